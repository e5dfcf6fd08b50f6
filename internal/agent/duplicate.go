package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"nines/internal/arp"
	"nines/internal/health"
	"nines/internal/model"
)

// How often the holder of the VIP asks its network who else has it, and for how long it listens. Twice in a row the same answer
// counts: whoever had the VIP a moment ago may still have said so. That makes less than five seconds.
const (
	askForDuplicates = 1500 * time.Millisecond
	listenForThem    = 300 * time.Millisecond
)

// duplicates knows who else says that it has an address of the VIP, whatever moves it.
type duplicates struct {
	// others asks who else has the address; nobody is asked where this machine does not have it. Tests have their own.
	others func(ctx context.Context, vip netip.Addr) ([]net.HardwareAddr, error)
	// announce has clients that believed the other one come back.
	announce func(vip netip.Addr) error

	mu   sync.Mutex
	seen map[netip.Addr]duplicate
}

// duplicate is who answered for an address.
type duplicate struct {
	since time.Time // of the first of the answers in a row
	count int
	mac   string
}

// watchDuplicates asks until ctx ends.
func (a *Agent) watchDuplicates(ctx context.Context) {
	var last string
	for pause(ctx, askForDuplicates) {
		c := a.spec.Load()
		if c == nil || !c.VIP.Address.IsValid() {
			continue
		}
		var failed []error
		for _, v := range c.VIP.Addresses() {
			failed = append(failed, a.duplicates.ask(ctx, v.Prefix.Addr()))
		}
		err := errors.Join(failed...)
		if err == nil || ctx.Err() != nil {
			last = ""
		} else if err.Error() != last { // once, not each time
			a.Log.Warn("who else has the VIP is not known", "err", err)
			last = err.Error()
		}
	}
}

func (d *duplicates) ask(ctx context.Context, vip netip.Addr) error {
	macs, err := d.others(ctx, vip)
	if err == nil && len(macs) > 0 {
		err = d.announce(vip)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(macs) == 0 {
		delete(d.seen, vip)
		return err
	}
	if d.seen == nil {
		d.seen = map[netip.Addr]duplicate{}
	}
	who := d.seen[vip]
	if who.count++; who.count == 1 {
		who.since = time.Now()
	}
	who.mac = macs[0].String()
	d.seen[vip] = who
	return err
}

// conditions says who else has the VIP, once it is sure.
func (d *duplicates) conditions(vip model.VIP) []health.Condition {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []health.Condition
	for _, v := range vip.Addresses() {
		who := d.seen[v.Prefix.Addr()]
		if who.count < 2 {
			continue
		}
		out = append(out, health.Condition{Code: "vip-duplicate", Severity: health.Critical,
			Text: fmt.Sprintf("another machine on the network, %s, says that it has the VIP %s, since %s", who.mac, v.Prefix.Addr(), who.since.UTC().Format("15:04:05 UTC")),
			Hint: "find the machine by its hardware address ('ip neigh', the switch's address table) and take the address from it, or choose another VIP"})
	}
	return out
}

// othersByARP asks on the interface that carries the address.
func othersByARP(ctx context.Context, vip netip.Addr) ([]net.HardwareAddr, error) {
	nic, err := carrier(vip)
	if err != nil || nic == "" {
		return nil, err
	}
	return arp.Others(ctx, nic, vip, listenForThem)
}

// answersClaims reports whether the holder's agent may answer a claim: with Pacemaker and fencing no other controller has the address.
// keepalived announces it each second by itself; one that is frozen keeps it while another controller has taken over, and the two would fight.
func answersClaims(c *model.Cluster) bool { return c.VIP.Engine == model.EnginePacemaker && c.Fences() }

// announce says once more that this machine has the address, if it does and may.
func (a *Agent) announce(vip netip.Addr) error {
	if c := a.spec.Load(); c == nil || !answersClaims(c) {
		return nil
	}
	if member := a.member.Load(); member == nil || a.aside.forbids() != "" {
		return nil
	} else if quorum, _ := member.HasQuorum(); !quorum {
		return nil
	}
	nic, err := carrier(vip)
	if err != nil || nic == "" {
		return err
	}
	return arp.Announce(nic, vip)
}

// carrier is the interface that carries the address; "" if none does.
func carrier(address netip.Addr) (string, error) {
	nics, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, nic := range nics {
		addrs, err := nic.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == address {
				return nic.Name, nil
			}
		}
	}
	return "", nil
}
