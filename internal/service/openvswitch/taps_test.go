package openvswitch

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// tapsScenario is what goes on in a network of its own: interfaces that are there before the script starts, that come later, and that are set down
// behind libvirt's back.
const tapsScenario = `set -eu
await() { # INTERFACE PATTERN-OF-ITS-FLAGS
	for i in $(seq 100); do
		case $(ip -oneline link show "$1") in $2) return 0 ;; esac
		sleep 0.05
	done
	ip link show
	echo "$1 is not $2"
	return 1
}
up='*[<,]UP[,>]*'
ip link add tap01234567-89 type veth peer name a
"$1" &
script=$!
# Its parts are processes of their own, and end with this network.
await tap01234567-89 "$up"
ip link add tapfedcba98-76 type veth peer name b
await tapfedcba98-76 "$up"
for i in 1 2 3; do
	ip link set tapfedcba98-76 down
	await tapfedcba98-76 "$up"
done
ip link add tap0 type veth peer name c # nobody's instance
ip link set tap0 up
ip link set tap0 down
ip link delete tap01234567-89
ip link set tapfedcba98-76 down
await tapfedcba98-76 "$up" # what came before it was seen by then
case $(ip -oneline link show tap0) in $up) echo "tap0 was set up"; exit 1 ;; esac
kill $script
`

func TestInstancesInterfacesAreKeptUp(t *testing.T) {
	script := filepath.Join(t.TempDir(), "nines-switch-taps")
	f, err := os.OpenFile(script, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if err := templates.ExecuteTemplate(f, "nines-switch-taps.tmpl", nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	alone := []string{"--net", "--pid", "--fork", "--kill-child"}
	if os.Geteuid() != 0 { // root of a user namespace may do the same there
		alone = append(alone, "--user", "--map-root-user")
	}
	c := exec.Command("unshare", append(alone, "--", "sh", "-c", tapsScenario, "sh", script)...)
	c.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
