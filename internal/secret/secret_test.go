package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestGenerateMakesWhatItsKindSays(t *testing.T) {
	shapes := map[Kind]string{
		Password:   `^[A-Za-z0-9]{32}$`,
		Cookie:     `^[A-Z]{32}$`,
		FernetKey:  `^[A-Za-z0-9_-]{43}=$`,
		FernetRing: `^\{"keys":\{"0":"[A-Za-z0-9_-]{43}=","1":"[A-Za-z0-9_-]{43}="\}\}$`,
	}
	for kind, shape := range shapes {
		seen := map[string]bool{}
		for range 50 {
			v, err := Generate(Spec{Name: "x", Kind: kind})
			if err != nil {
				t.Fatal(err)
			}
			if !regexp.MustCompile(shape).MatchString(v) {
				t.Fatalf("%s: %q does not look like %s", kind, v, shape)
			}
			if seen[v] {
				t.Fatalf("%s: the same value twice", kind)
			}
			seen[v] = true
		}
	}
	if _, err := Generate(Spec{Name: "x", Kind: "rune"}); err == nil {
		t.Fatal("an unknown kind was made")
	}
}

func TestRandomTextUsesTheWholeAlphabetEvenly(t *testing.T) {
	const draws = 62 * 2000
	count := map[rune]int{}
	for _, c := range randomText(alphanumeric, draws) {
		count[c]++
	}
	for _, c := range alphanumeric {
		// Mean 2000, deviation 45: seven of them are far beyond chance.
		if n := count[c]; n < 1680 || n > 2320 {
			t.Errorf("%q came %d times, want about 2000", c, n)
		}
	}
}

func TestSealedValuesComeBack(t *testing.T) {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := Recipient(id + "\n") // as it is read from a file
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		values := Map(rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "values"))
		sealed, err := Seal(values, to)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Open(sealed, id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(values, back); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	id, _ := NewIdentity()
	other, _ := NewIdentity()
	to, _ := Recipient(id)
	sealed, err := Seal(Map{"a": "hunter2hunter2"}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("another identity", func(t *testing.T) {
		if _, err := Open(sealed, other); !errors.Is(err, ErrWrongIdentity) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("no identity, and does not repeat what it was given", func(t *testing.T) {
		_, err := Open(sealed, "AGE-SECRET-KEY-1BROKEN")
		if err == nil || strings.Contains(err.Error(), "BROKEN") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("every truncation and every flipped bit", func(t *testing.T) {
		for i := range sealed {
			if m, err := Open(sealed[:i], id); err == nil {
				t.Fatalf("%d of %d bytes opened: %v", i, len(sealed), m)
			}
			bad := bytes.Clone(sealed)
			bad[i] ^= 1
			if _, err := Open(bad, id); err == nil {
				t.Fatalf("opened with byte %d changed", i)
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	id, err := NewIdentity()
	if err != nil {
		f.Fatal(err)
	}
	to, err := Recipient(id)
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := Seal(Map{"galera/root": "x"}, to)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, id)
	f.Add([]byte("age-encryption.org/v1\n"), id)
	f.Add([]byte{}, "")
	f.Fuzz(func(t *testing.T, sealed []byte, identity string) {
		if m, err := Open(sealed, identity); err == nil && m == nil {
			t.Fatal("neither secrets nor an error")
		}
		_, _ = Open(sealed, id)
	})
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte(`{"a":"b"}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"a":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseBundle(text)
		if (m == nil) == (err == nil) {
			t.Fatalf("got %v and %v", m, err)
		}
	})
}

func TestCompleteMakesTheMissingOnly(t *testing.T) {
	kinds := rapid.SampledFrom([]Kind{Password, Cookie, FernetKey})
	rapid.Check(t, func(t *rapid.T) {
		have := Map(rapid.MapOf(rapid.StringN(1, 4, -1), rapid.String()).Draw(t, "have"))
		before := fmt.Sprint(have)
		var specs []Spec
		for _, n := range rapid.SliceOf(rapid.StringN(1, 4, -1)).Draw(t, "names") {
			specs = append(specs, Spec{Name: n, Kind: kinds.Draw(t, "kind")})
		}
		out, changed, err := Complete(have, specs)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(have) != before {
			t.Fatal("the given map was changed")
		}
		for k, v := range have {
			if out[k] != v {
				t.Fatalf("%q was changed", k)
			}
		}
		for _, s := range specs {
			if _, ok := out[s.Name]; !ok {
				t.Fatalf("%q is missing", s.Name)
			}
		}
		if changed != (len(out) > len(have)) {
			t.Fatalf("changed is %v with %d of %d new", changed, len(out)-len(have), len(out))
		}
		again, changed, err := Complete(out, specs)
		if err != nil || changed || !cmp.Equal(again, out) {
			t.Fatal("the second time something changed")
		}
	})
}

func TestRedactorLeavesNoKnownSecret(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secrets := rapid.SliceOfN(rapid.StringMatching(`[A-Za-z0-9]{8,20}`), 1, 5).Draw(t, "secrets")
		r := &Redactor{}
		r.Add(secrets...)
		around := rapid.StringMatching(`[a-z =:'"/]{0,6}`)
		text := around.Draw(t, "start")
		for _, s := range secrets {
			text += s + around.Draw(t, "between")
		}
		got := r.String(text)
		for _, s := range secrets {
			if strings.Contains(got, s) {
				t.Fatalf("%q still has %q", got, s)
			}
		}
	})
}

func TestRedactorKnowsPartsOfSecrets(t *testing.T) {
	ring := `{"keys":{"0":"Zm9vZm9vZm9vZm9vZm9v=","1":"YmFyYmFyYmFyYmFyYmFy="}}`
	pem := "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\n-----END PRIVATE KEY-----\n"
	r := NewRedactor(Map{"ring": ring, "pem": pem, "short": "on"})
	for _, text := range []string{
		"key=Zm9vZm9vZm9vZm9vZm9v%3D", "YmFyYmFyYmFyYmFyYmFy=", ring, pem,
		strings.ReplaceAll(pem, "\n", `\n`), "> AgEGCCqGSM49AwEHBG0w",
	} {
		got := r.String(text)
		for _, part := range []string{"Zm9v", "YmFy", "MIGH", "AgEG"} {
			if strings.Contains(got, part) {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
	if got := r.String("switched on, BEGIN PRIVATE KEY"); got != "switched on, BEGIN PRIVATE KEY" {
		t.Errorf("harmless words became %q", got)
	}
}

func TestRedactedErrorKeepsItsCause(t *testing.T) {
	cause := errors.New("access denied")
	r := &Redactor{}
	if err := r.Error(fmt.Errorf("password correct-horse: %w", cause)); !errors.Is(err, cause) || r.Error(nil) != nil {
		t.Fatal("cause lost, or an error out of nothing")
	}
	r.Add("correct-horse")
	err := r.Error(fmt.Errorf("password correct-horse: %w", cause))
	if err.Error() != "password <secret>: access denied" || !errors.Is(err, cause) {
		t.Fatalf("got %v", err)
	}
}

func TestReplaceAttrMasksEveryKindOfAttribute(t *testing.T) {
	const value = "s3cr3ts3cr3t"
	r := NewRedactor(Map{"x": value})
	for name, handler := range map[string]func(*bytes.Buffer, *slog.HandlerOptions) slog.Handler{
		"text": func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(b, o) },
		"json": func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(b, o) },
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := slog.New(handler(&out, &slog.HandlerOptions{ReplaceAttr: r.ReplaceAttr}))
			log.Info("password is "+value, "s", value, "err", errors.New("bad "+value), "args", []string{"-p", value},
				"bytes", []byte(value), "raw", json.RawMessage(`{"p":"`+value+`"}`), slog.Group("g", "inner", value), "n", 7, "ok", []int{1, 2})
			if strings.Contains(out.String(), value) {
				t.Fatal(out.String())
			}
			if !strings.Contains(out.String(), "7") || !strings.Contains(out.String(), "[1") {
				t.Fatalf("harmless attributes are gone: %s", out.String())
			}
		})
	}
}
