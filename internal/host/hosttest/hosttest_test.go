package hosttest_test

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	"nines/internal/host"
	"nines/internal/host/hosttest"

	"github.com/google/go-cmp/cmp"
)

func TestUnitReadsItsFilesWhenItStarts(t *testing.T) {
	ctx := context.Background()
	h := hosttest.New()
	h.Offer(hosttest.Package{Name: "web", Version: "1", Units: []string{"web.service"}, Files: []host.File{{Path: "/etc/web", Content: []byte("1")}}})
	if err := h.StartUnit(ctx, "web.service"); err == nil {
		t.Error("a unit that does not exist started")
	}
	if err := h.InstallPackages(ctx, []string{"web"}); err != nil {
		t.Fatal(err)
	}
	if st, _ := h.Unit(ctx, "web.service"); !st.Loaded || st.Enabled || st.Active != "inactive" {
		t.Errorf("after its installation: %+v", st)
	}
	if err := h.StartUnit(ctx, "web.service"); err != nil {
		t.Fatal(err)
	}
	first, _ := h.Unit(ctx, "web.service")
	h.PutFile(host.File{Path: "/etc/web", Content: []byte("2")})
	if err := h.ReloadUnit(ctx, "web.service"); err != nil {
		t.Fatal(err)
	}
	started, _ := h.StartedWith("web.service", "/etc/web")
	read, _ := h.LastRead("web.service", "/etc/web")
	if started != "1" || read != "2" {
		t.Errorf("started with %q, read %q", started, read)
	}
	h.Reboot()
	if st, _ := h.Unit(ctx, "web.service"); st.Active != "inactive" {
		t.Errorf("a disabled unit after a reboot: %+v", st)
	}
	h.Bounce("web.service")
	if st, _ := h.Unit(ctx, "web.service"); st.Invocation == first.Invocation || !st.Started.After(first.Started) {
		t.Errorf("before %+v, after %+v", first, st)
	}
}

func TestCrash(t *testing.T) {
	ctx := context.Background()
	for _, applied := range []bool{false, true} {
		h := hosttest.New()
		h.CrashAfter(1, applied)
		write := func(path string) error { return h.WriteFile(ctx, host.File{Path: path}, nil) }
		if err := write("/a"); err != nil {
			t.Fatal(err)
		}
		if err := write("/b"); !errors.Is(err, hosttest.ErrCrashed) {
			t.Errorf("second write: %v", err)
		}
		if _, err := h.ReadFile("/a"); !errors.Is(err, hosttest.ErrCrashed) {
			t.Errorf("read after the crash: %v", err)
		}
		if !h.Revive() {
			t.Error("it did not crash")
		}
		_, err := h.ReadFile("/b")
		if errors.Is(err, fs.ErrNotExist) == applied {
			t.Errorf("applied %t: %v", applied, err)
		}
	}
}

func TestScripts(t *testing.T) {
	ctx := context.Background()
	h := hosttest.New()
	h.Answer("show", "short\n", 0)
	h.Answer("show all", "long\n", 0)
	out, err := h.Run(ctx, host.Cmd{Args: []string{"show", "all", "of", "it"}})
	if err != nil || string(out.Stdout) != "long\n" {
		t.Errorf("got %q, %v", out.Stdout, err)
	}
	var exit *host.ExitError
	if _, err := h.Run(ctx, host.Cmd{Args: []string{"other"}}); !errors.As(err, &exit) || exit.Code != 127 {
		t.Errorf("unscripted: %v", err)
	}
	full := errors.New("disk full")
	h.Fail(hosttest.Write, "/x", full)
	if err := h.WriteFile(ctx, host.File{Path: "/x"}, nil); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	h.Fail(hosttest.Write, "/x", nil)
	if err := h.WriteFile(ctx, host.File{Path: "/x"}, nil); err != nil {
		t.Errorf("got %v", err)
	}
	want := []string{"run show all of it", "run other", "write /x", "write /x"}
	if diff := cmp.Diff(want, h.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}
