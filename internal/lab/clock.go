package lab

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// fakeTime is where libfaketime is kept on the host; the machines share its clock, so another one can only be faked for one program.
const fakeTime = "/var/cache/nines-lab/libfaketimeMT.so.1"

// FetchFakeTime has apt bring libfaketime onto the host, once. The machines' own source does not have it. It needs the host's network.
func FetchFakeTime(ctx context.Context) error {
	if _, err := os.Stat(fakeTime); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(fakeTime), 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(fakeTime), "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, script := range []string{"apt-get -q download libfaketime", "dpkg-deb -x libfaketime_*.deb ."} {
		cmd := exec.CommandContext(ctx, "sh", "-c", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("bring libfaketime, with which a program's clock is faked ('apt-get update' first?): %s: %w: %s", script, err, out)
		}
	}
	found, err := filepath.Glob(filepath.Join(dir, "usr/lib/*/faketime", filepath.Base(fakeTime)))
	if err == nil && len(found) != 1 {
		err = errors.New("the package libfaketime does not hold " + filepath.Base(fakeTime))
	}
	if err != nil {
		return err
	}
	return os.Rename(found[0], fakeTime)
}

// Paths of the fake on a machine. The drop-in is gone with the machine's power.
const (
	fakeLibrary = "/opt/nines-lab/libfaketimeMT.so.1"
	fakeDropIn  = "/run/systemd/system/%s.d/90-nines-lab-clock.conf"
)

// skewScript gives a unit a clock of its own: %s are the drop-in, the library, by how many seconds it is ahead, and the unit.
const skewScript = `mkdir -p /opt/nines-lab
base64 -d >%[2]s <<'LIBRARY'
%[5]s
LIBRARY
mkdir -p "$(dirname %[1]s)"
cat >%[1]s <<'DROPIN'
[Service]
Environment=LD_PRELOAD=%[2]s FAKETIME=+%[3]ds FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1
DROPIN
systemctl daemon-reload
systemctl restart %[4]s
`

const rightScript = `rm -f %[1]s %[2]s
systemctl daemon-reload
systemctl restart %[3]s
`

// SkewClock starts a unit of a machine anew with a clock that is ahead of the lab's. FetchFakeTime comes first.
func (l *Lab) SkewClock(ctx context.Context, node, unit string, ahead time.Duration) error {
	library, err := os.ReadFile(fakeTime)
	if err != nil {
		return fmt.Errorf("the clock of %s on %s: %w", unit, node, err)
	}
	script := fmt.Sprintf(skewScript, fmt.Sprintf(fakeDropIn, unit), fakeLibrary, int(ahead.Seconds()), unit, base64.StdEncoding.EncodeToString(library))
	_, err = l.Shell(ctx, node, script)
	return err
}

// RightClock starts the unit anew with the lab's clock.
func (l *Lab) RightClock(ctx context.Context, node, unit string) error {
	_, err := l.Shell(ctx, node, fmt.Sprintf(rightScript, fmt.Sprintf(fakeDropIn, unit), fakeLibrary, unit))
	return err
}
