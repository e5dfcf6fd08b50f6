package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"nines/internal/api"
	"nines/internal/health"
	"nines/internal/model"
)

// How often the link to the users is looked at besides when the kernel tells of a change, and the others are asked anew while it is down.
const (
	outsideRest  = 10 * time.Second
	outsideAgain = time.Second
	outsideAsks  = time.Second // bounds a question
)

// outside knows whether users reach this node: whether the interface has a link that would carry the public address of the VIP.
type outside struct {
	mu    sync.Mutex
	nic   string // that has none; empty: it has, or there is no such address
	since time.Time
}

func (o *outside) set(nic string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nic != nic {
		o.nic, o.since = nic, time.Now()
	}
}

func (o *outside) down() (nic string, since time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.nic, o.since
}

func (o *outside) conditions() []health.Condition {
	nic, since := o.down()
	if nic == "" {
		return nil
	}
	return []health.Condition{{Code: "public-link-down", Severity: health.Warning,
		Text: fmt.Sprintf("the interface %s, by which users come to the VIP, has no link since %s", nic, since.UTC().Format("15:04:05 UTC")),
		Hint: "cable, switch port, switch; the VIP is on a controller that has a link while there is one"}}
}

// watchOutside has this node let go of the VIP while its link to the users is down and another controller's is up, until ctx ends. If all are
// down it changes nothing: the cluster's own programs come by the other address.
func (a *Agent) watchOutside(ctx context.Context) {
	changes := make(chan netlink.LinkUpdate, 16)
	if err := netlink.LinkSubscribe(changes, ctx.Done()); err != nil {
		a.Log.Warn("changes of links are noticed late", "err", err)
		changes = nil
	}
	for {
		c, next := a.spec.Load(), outsideRest
		nic := ""
		if c != nil {
			nic = unplugged(c, a.Config.Node)
		}
		a.outside.set(nic)
		if nic != "" {
			next = outsideAgain
		}
		if nic == "" || !a.othersAreOutside(ctx, c) {
			nic = ""
		}
		a.aside.unplug(nic)
		select {
		case <-ctx.Done():
			return
		case _, ok := <-changes:
			if !ok {
				changes = nil
			}
		case <-time.After(next):
		}
	}
}

// unplugged is the node's interface that would carry the public address and has no link; empty: it has one, or there is no such address.
func unplugged(c *model.Cluster, node string) string {
	n, ok := c.Node(node)
	if !ok || !n.Has(model.RoleController) || !c.VIP.Public.IsValid() {
		return ""
	}
	return noLink(n.Addresses[c.VIP.PublicNetwork], "/sys/class/net")
}

// noLink is the interface that carries the address, if it has no link (Documentation/ABI/testing/sysfs-class-net of the kernel).
func noLink(address netip.Addr, interfaces string) string {
	nic, err := carrier(address)
	if err != nil || nic == "" {
		return ""
	}
	link, err := os.ReadFile(filepath.Join(interfaces, nic, "carrier"))
	if err == nil && strings.TrimSpace(string(link)) == "1" {
		return ""
	}
	return nic // one that is set down does not say
}

// othersAreOutside asks the other controllers whether users reach one of them.
func (a *Agent) othersAreOutside(ctx context.Context, c *model.Cluster) bool {
	ctx, cancel := context.WithTimeout(ctx, outsideAsks)
	defer cancel()
	var wg sync.WaitGroup
	up := make(chan bool, len(c.Nodes))
	for _, n := range c.Controllers() {
		if n.Name == a.Config.Node {
			continue
		}
		wg.Go(func() {
			rep, err := a.peers.NodeReport(ctx, api.NodeAddr(n), api.LookAtHealth)
			up <- err == nil && !rep.PublicLinkDown
		})
	}
	wg.Wait()
	close(up)
	for is := range up {
		if is {
			return true
		}
	}
	return false
}
