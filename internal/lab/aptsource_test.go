package lab

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDebianMirrorOfTheHost(t *testing.T) {
	const bookwormSources = `# Debian's own
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`
	for name, c := range map[string]struct {
		files map[string]string
		want  mirror
	}{
		"nothing configured": {files: nil, want: mirror{}},
		"stanzas": {
			files: map[string]string{"sources.list.d/debian.sources": bookwormSources},
			want:  mirror{URI: "http://mirror.example/debian/", Security: "http://mirror.example/debian-security"},
		},
		"one line each": {
			files: map[string]string{"sources.list": `
deb-src http://mirror.example/debian trixie main
# deb http://commented.example/debian trixie main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://mirror.example/debian trixie main contrib # the mirror
deb https://mirror.example/debian trixie-updates main
deb https://security.example/debian-security trixie-security main
`},
			want: mirror{URI: "https://mirror.example/debian", Security: "https://security.example/debian-security"},
		},
		"third parties use Debian's suite names": {
			files: map[string]string{
				"sources.list.d/a-vendor.list":    "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://apt.vendor.example bookworm main\n",
				"sources.list.d/a-container.list": "deb https://download.container.example/linux/debian bookworm stable\n",
				"sources.list.d/b-nokey.list":     "deb https://apt.nokey.example bookworm main\n",
				"sources.list.d/z.sources":        bookwormSources,
			},
			want: mirror{URI: "http://mirror.example/debian/", Security: "http://mirror.example/debian-security"},
		},
		"switched off, and file names apt ignores": {
			files: map[string]string{
				"sources.list.d/debian.sources":          "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n",
				"sources.list.d/debian.sources.disabled": bookwormSources,
			},
			want: mirror{},
		},
		"media and files are of no use to an image": {
			files: map[string]string{"sources.list": "deb cdrom:[Debian]/ trixie main\ndeb file:/srv/debian trixie main\n"},
			want:  mirror{},
		},
		"a key inside the stanza, values over several lines": {
			files: map[string]string{"sources.list.d/debian.sources": `Types: deb
URIs:
 http://mirror.example/debian
Suites: trixie
# a comment inside
 trixie-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
`},
			want: mirror{URI: "http://mirror.example/debian"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for path, content := range c.files {
				full := filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(c.want, debianMirror(readAptSources(dir))); diff != "" {
				t.Errorf("mirror (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzAptSources(f *testing.F) {
	f.Add("deb [a=b] http://x/debian trixie main\n")
	f.Add("Types: deb\nURIs: http://x/debian\nSuites: trixie\nComponents: main\n\n x\n: y\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseOneLine(text), parseDeb822(text)...) {
			if s.URI == "" {
				t.Errorf("source without URI: %+v", s)
			}
		}
	})
}
