package fence

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nines/internal/model"
)

// simulator runs OpenIPMI's BMC on loopback, and returns its process and the device of an operator.
// The power that it switches is a file.
func simulator(t *testing.T) (*exec.Cmd, Device) {
	t.Helper()
	program, err := exec.LookPath("ipmi_sim")
	if err != nil {
		t.Fatal("no BMC that speaks IPMI here: 'make tools' installs OpenIPMI's simulator (apt-get install openipmi)")
	}
	dir := t.TempDir()
	port := freePort(t)
	for name, text := range map[string]string{
		"power": "1\n",
		"chassis.sh": `#!/bin/sh
# ADDRESS get|set power [VALUE]
case "$2 $3" in
"get power") echo "power:$(cat ` + dir + `/power)" ;;
"set power") echo "$4" > ` + dir + `/power ;;
esac
`,
		"lan.conf": fmt.Sprintf(`name "bmc"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 %d
  priv_limit admin
  guid a123456789abcdefa123456789abcdef
endlan
chassis_control "%s/chassis.sh 0x20"
user 2 true "nines" "right" operator 10 none md5
`, port, dir),
		"mc.emu": "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sim := exec.CommandContext(t.Context(), program, "-n", "-c", dir+"/lan.conf", "-f", dir+"/mc.emu", "-s", dir)
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sim.Process.Kill()
		_ = sim.Wait()
	})
	d := Device{Password: "right", Level: model.Level{Node: "ctl1", BMC: model.BMC{Protocol: model.IPMI, Address: fmt.Sprintf("127.0.0.1:%d", port), User: "nines"}}}
	for deadline := time.Now().Add(30 * time.Second); ; { // it opens its port some time after its start
		r := Test(t.Context(), d)
		if r.Trouble == "" {
			return sim, d
		}
		if time.Now().After(deadline) {
			t.Fatalf("the simulator does not let an operator in: %+v", r)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// freePort returns a UDP port of loopback that nobody had a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func TestIPMISwitchesPower(t *testing.T) {
	_, d := simulator(t)
	if r := Test(t.Context(), d); r.Trouble != "" || r.Power != On || r.Fingerprint != "" {
		t.Fatalf("%+v", r)
	}
	for _, want := range []Power{Off, Off, On} {
		if err := Switch(t.Context(), d, want); err != nil {
			t.Fatalf("switch %s: %v", want, err)
		}
		if r := Test(t.Context(), d); r.Trouble != "" || r.Power != want {
			t.Fatalf("switched %s: %+v", want, r)
		}
	}
}

func TestIPMISaysWhatIsWrong(t *testing.T) {
	sim, right := simulator(t)
	for name, tc := range map[string]struct {
		change func(*Device)
		want   Trouble
	}{
		"a wrong password":             {func(d *Device) { d.Password = "a very wrong one" }, Credentials},
		"an unknown user":              {func(d *Device) { d.BMC.User = "nobody" }, Credentials},
		"nobody at that address":       {func(d *Device) { d.BMC.Address = fmt.Sprintf("127.0.0.1:%d", freePort(t)) }, Unreachable},
		"a protocol it does not speak": {func(d *Device) { d.BMC.Protocol = model.Redfish }, Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			d := right
			tc.change(&d)
			r := Test(t.Context(), d)
			if r.Trouble != tc.want || r.Power != "" || r.Text == "" || strings.Contains(r.Text, d.Password) {
				t.Errorf("%+v, want %s", r, tc.want)
			}
			if err := Switch(t.Context(), d, Off); err == nil {
				t.Error("switched")
			}
		})
	}
	if r := Test(t.Context(), right); r.Power != On {
		t.Errorf("the power is %s", r.Power)
	}

	t.Run("a BMC that hangs", func(t *testing.T) {
		if err := sim.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if r := Test(context.Background(), right); r.Trouble != Unreachable || time.Since(began) > testLimit {
			t.Errorf("after %s: %+v", time.Since(began), r)
		}
	})
}
