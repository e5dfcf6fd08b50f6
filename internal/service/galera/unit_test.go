package galera

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nines/internal/service/servicetest"
)

const (
	loneView = "my_uuid: c5d5d990-30ee-11e4-aab1-46d0ed84b408\n#vwbeg\nview_id: 3 c5d5d990-30ee-11e4-aab1-46d0ed84b408 1\nbootstrap: 0\n" +
		"member: c5d5d990-30ee-11e4-aab1-46d0ed84b408 0\n#vwend\n"
)

// beforeStart is what the unit runs before the server about saved views, as the shell gets it, with its paths below root.
func beforeStart(t *testing.T, root string) string {
	t.Helper()
	c := servicetest.Cluster()
	files, err := files(c, c.Controllers()[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range files {
		if r.File.Path != dropInPath {
			continue
		}
		text := string(r.File.Content)
		_, text, found := strings.Cut(text, "ExecStartPre=+/bin/sh -c 'mkdir")
		if !found {
			t.Fatal("the unit says nothing about saved views")
		}
		script, _, _ := strings.Cut("mkdir"+text, "'\n")
		// systemd joins continued lines, and takes $$ for $.
		script = strings.NewReplacer("\\\n", " ", "$$", "$", "/var/lib/", root+"/var/lib/", "/run/nines", root+"/run/nines").Replace(script)
		return script
	}
	t.Fatal("no unit settings")
	return ""
}

// TestViewOfAMinorityIsSetAside runs the unit's own script: at the first start after a boot, and only in a cluster that was complete once.
func TestViewOfAMinorityIsSetAside(t *testing.T) {
	for name, tc := range map[string]struct {
		view, have   string // gvwstate.dat; files there are, by their names here
		aside, stays bool   // a view was set aside; gvwstate.dat is still there
		refused      bool
	}{
		"nothing was saved":                     {},
		"a view of two":                         {view: savedView, stays: true},
		"a view of one":                         {view: loneView, aside: true, refused: true},
		"of one, and it founds":                 {view: loneView, have: "found", aside: true},
		"of one, but the machine was not off":   {view: loneView, have: "started", stays: true},
		"of one, and the founding is under way": {view: loneView, have: "bootstrapped", stays: true},
		"of one, by the founder of long ago":    {view: loneView, have: "bootstrapped formed", aside: true, refused: true},
		"empty":                                 {view: " ", aside: true},
		"zeros after a power cut":               {view: "\x00\x00\x00", aside: true},
		"set aside before":                      {have: "started aside", aside: true, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			at := func(path string) string { return filepath.Join(root, path) }
			put := func(path, content string) {
				if err := os.MkdirAll(filepath.Dir(at(path)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at(path), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			put(grastateFile, "")
			if tc.view != "" {
				put(viewFile, tc.view)
			}
			for _, name := range strings.Fields(tc.have) {
				put(map[string]string{"found": bootstrapEnv, "started": startedMark, "bootstrapped": BootstrappedFile, "formed": FormedFile, "aside": asideFile}[name], loneView)
			}
			out, err := exec.Command("/bin/sh", "-c", beforeStart(t, root)).CombinedOutput()
			if (err != nil) != tc.refused {
				t.Errorf("%v: %s", err, out)
			}
			for path, want := range map[string]bool{asideFile: tc.aside, viewFile: tc.stays, startedMark: true} {
				if _, err := os.Stat(at(path)); (err == nil) != want {
					t.Errorf("%s is there: %t", path, err == nil)
				}
			}
		})
	}
}
