package keepalived

import "nines/internal/service"

// The words of the guard file (model.PathVIPFile): keepalived adds the number to the node's
// priority, and -254 means that it must not hold the VIP whatever the rest says.
const (
	Allow = "0"
	Deny  = "-254"
)

// proxy is the service that must work on the node that holds the VIP.
const proxy = "haproxy"

// Guard says what the guard file of a node must hold, and why: only a node in etcd's
// majority whose HAProxy answers may hold the VIP. seen holds the node's own latest observations by service.
func Guard(quorum bool, seen map[string]service.Observation) (content, reason string) {
	if !quorum {
		return Deny, "not in the majority of etcd"
	}
	o, ok := seen[proxy]
	if !ok {
		return Deny, "HAProxy was not observed yet"
	}
	if !o.Serving {
		return Deny, "HAProxy: " + o.Reason
	}
	return Allow, "in the majority, HAProxy serves"
}
