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
const fakeTime = cacheRoot + "/libfaketimeMT.so.1"

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

// skewScript gives a machine's Keystone a clock of its own: %[1]s is the library, in base64, %[2]d by how many seconds it is ahead. The
// drop-in is gone with the machine's power. uWSGI writes names of its processes over an environment that libfaketime
// has moved, and dies of it: here they go without.
const skewScript = `mkdir -p /opt/nines-lab /run/systemd/system/keystone.service.d
base64 -d >/opt/nines-lab/libfaketime.so <<'LIBRARY'
%[1]s
LIBRARY
sed /^procname/d /etc/keystone/nines-uwsgi.ini >/opt/nines-lab/keystone.ini
cat >/run/systemd/system/keystone.service.d/90-nines-lab-clock.conf <<'DROPIN'
[Service]
ExecStart=
ExecStart=/usr/bin/uwsgi_python3 --ini /opt/nines-lab/keystone.ini
Environment=LD_PRELOAD=/opt/nines-lab/libfaketime.so FAKETIME=+%[2]ds
DROPIN
systemctl daemon-reload
systemctl restart keystone
`

const rightScript = `rm -rf /run/systemd/system/keystone.service.d/90-nines-lab-clock.conf /opt/nines-lab
systemctl daemon-reload
systemctl restart keystone
`

// SkewKeystone starts a machine's Keystone anew with a clock that is ahead of the lab's. FetchFakeTime comes first.
func (l *Lab) SkewKeystone(ctx context.Context, node string, ahead time.Duration) error {
	library, err := os.ReadFile(fakeTime)
	if err != nil {
		return fmt.Errorf("the clock of Keystone on %s: %w", node, err)
	}
	_, err = l.Shell(ctx, node, fmt.Sprintf(skewScript, base64.StdEncoding.EncodeToString(library), int(ahead.Seconds())))
	return err
}

// RightKeystone starts it anew with the lab's clock.
func (l *Lab) RightKeystone(ctx context.Context, node string) error {
	_, err := l.Shell(ctx, node, rightScript)
	return err
}
