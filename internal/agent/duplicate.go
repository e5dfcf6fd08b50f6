package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"nines/internal/arp"
	"nines/internal/health"
)

// How often the holder of the VIP asks its network who else has it, and for how long it listens. Twice in a row the same answer
// counts: whoever had the VIP a moment ago may still have said so. That makes less than five seconds.
const (
	askForDuplicates = 1500 * time.Millisecond
	listenForThem    = 300 * time.Millisecond
)

// duplicates knows who else says that it has the VIP, whatever moves it.
type duplicates struct {
	// others asks who else has the address; nobody is asked where this machine does not have it. Tests have their own.
	others func(ctx context.Context, vip netip.Addr) ([]net.HardwareAddr, error)

	mu    sync.Mutex
	since time.Time // of the first of the answers in a row; zero: nobody else
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
		err := a.duplicates.ask(ctx, c.VIP.Address.Addr())
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
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil || len(macs) == 0 {
		d.since, d.count, d.mac = time.Time{}, 0, ""
		return err
	}
	if d.count++; d.count == 1 {
		d.since = time.Now()
	}
	d.mac = macs[0].String()
	return nil
}

// conditions says who else has the VIP, once it is sure.
func (d *duplicates) conditions(vip netip.Addr) []health.Condition {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.count < 2 {
		return nil
	}
	return []health.Condition{{Code: "vip-duplicate", Severity: health.Critical,
		Text: fmt.Sprintf("another machine on the network, %s, says that it has the VIP %s, since %s", d.mac, vip, d.since.UTC().Format("15:04:05 UTC")),
		Hint: "find the machine by its hardware address ('ip neigh', the switch's address table) and take the address from it, or choose another VIP"}}
}

// othersByARP asks on the interface that carries the address.
func othersByARP(ctx context.Context, vip netip.Addr) ([]net.HardwareAddr, error) {
	nic, err := carrier(vip)
	if err != nil || nic == "" {
		return nil, err
	}
	return arp.Others(ctx, nic, vip, listenForThem)
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
