package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRules(t *testing.T) {
	l := coreLab()
	d := disorder{Loss: map[string]int{"ctl3": 20}}
	d.cut("ctl1", "ctl2")
	d.cut("ctl2", "ctl1")
	d.cut("ctl2", "ctl1") // again
	d.cut("ctl3", "ctl1")
	if len(d.Cuts) != 3 {
		t.Fatalf("%v", d.Cuts)
	}
	rules := l.rules(d)
	for _, want := range []string{
		"\t\tiifname { \"ctl1-m\", \"ctl1-e\" } oifname { \"ctl2-m\", \"ctl2-e\" } drop\n",
		"\t\tmeta protocol != arp iifname { \"ctl3-m\", \"ctl3-e\" } oifname { \"ctl1-m\", \"ctl1-e\" } drop\n",
		"\t\tiifname { \"ctl3-m\", \"ctl3-e\" } numgen random mod 100 < 20 drop\n",
		"\t\toifname { \"ctl3-m\", \"ctl3-e\" } numgen random mod 100 < 20 drop\n",
	} {
		if !strings.Contains(rules, want) {
			t.Errorf("no %q in\n%s", want, rules)
		}
	}
	if calm := l.rules(disorder{}); strings.Contains(calm, "chain") {
		t.Errorf("nothing is wrong, and there are rules:\n%s", calm)
	}
}

// The program itself takes the rules, and takes them away again.
func TestRulesAreTaken(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and nft")
	}
	l := coreLab()
	d := disorder{Cuts: []Cut{{"ctl1", "ctl2"}, {"ctl2", "ctl1"}, {"ctl2", "ctl3"}}, Loss: map[string]int{"ctl1": 50}}
	path := filepath.Join(t.TempDir(), "netns")
	if err := makeNetworkNamespace(path); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	defer unix.Unmount(path, unix.MNT_DETACH)
	runtime.LockOSThread() // never unlocked: the thread is in another network now
	if err := joinNetwork(path); err != nil {
		t.Fatal(err)
	}
	for _, rules := range []string{l.rules(d), l.rules(d), l.rules(disorder{})} {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, rules)
		}
	}
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("left: %s, %v", out, err)
	}
}
