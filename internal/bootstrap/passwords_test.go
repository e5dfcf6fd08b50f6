package bootstrap

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestPasswordsAreKeptSealed(t *testing.T) {
	dir := t.TempDir()
	if have, err := Passwords(dir); err != nil || len(have) != 0 {
		t.Fatal(have, err)
	}
	if _, err := os.Stat(filepath.Join(dir, stateDir)); err == nil {
		t.Error("a look made a cluster's identity")
	}
	both := map[string]string{"ctl1": "first-password", "ctl2": "second-password"}
	if err := KeepPasswords(dir, both); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, stateDir, filePasswords))
	if err != nil || bytes.Contains(raw, []byte("password")) {
		t.Fatalf("%q, %v", raw, err)
	}
	if have, err := Passwords(dir); err != nil || !maps.Equal(have, both) {
		t.Fatal(have, err)
	}
	if err := ForgetPasswords(dir, map[string]string{"ctl1": "first-password", "ctl2": "an older one"}); err != nil {
		t.Fatal(err)
	}
	if have, err := Passwords(dir); err != nil || !maps.Equal(have, map[string]string{"ctl2": "second-password"}) {
		t.Fatal(have, err)
	}
	if err := ForgetPasswords(dir, both); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, stateDir, filePasswords)); err == nil {
		t.Error("an empty file stays")
	}
}
