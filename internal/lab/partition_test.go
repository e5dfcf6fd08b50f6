package lab

import (
	"os"
	"os/exec"
	"strings"
	"testing"
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

// The program itself takes the rules, and takes them away again: in a network of their own, where anybody may be root.
func TestRulesAreTaken(t *testing.T) {
	l := coreLab()
	d := disorder{Cuts: []Cut{{"ctl1", "ctl2"}, {"ctl2", "ctl1"}, {"ctl2", "ctl3"}}, Loss: map[string]int{"ctl1": 50}}
	alone := []string{"--net"}
	if os.Geteuid() != 0 {
		alone = append(alone, "--user", "--map-root-user")
	}
	for name, rules := range map[string]string{
		"at first": l.rules(d),
		"again":    l.rules(d) + l.rules(d),
		"and away": l.rules(d) + l.rules(disorder{}),
	} {
		cmd := exec.Command("unshare", append(alone, "--", "sh", "-c", "nft -f - && nft list ruleset")...)
		cmd.Stdin = strings.NewReader(rules)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s\n%s", name, err, out, rules)
		}
		if left := strings.TrimSpace(string(out)) != ""; left != (name != "and away") {
			t.Errorf("%s: left %q", name, out)
		}
	}
}
