// Package measure finds the facts that the rules of check judge, on the machine it
// runs on. It changes nothing there.
package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nines/internal/check"
	"nines/internal/model"
)

// Request says what to measure.
type Request struct {
	Node string `json:"node"`
	// Peers are the other nodes' management addresses with a port that answers (SSH's).
	Peers map[string]netip.AddrPort `json:"peers"`
	// Source is the URL of the Release file of the package source; empty: none of nines's own.
	Source        string `json:"source,omitempty"`
	WantClusterID string `json:"want_cluster_id,omitempty"`
}

// For returns what to measure on a node of the cluster.
func For(c *model.Cluster, n model.Node, clusterID string) Request {
	r := Request{Node: n.Name, Peers: map[string]netip.AddrPort{}, WantClusterID: clusterID}
	for _, peer := range c.Nodes {
		if peer.Name != n.Name {
			r.Peers[peer.Name] = netip.AddrPortFrom(peer.Address(), uint16(c.SSH.Port))
		}
	}
	if c.Packages.Source != "" {
		r.Source = strings.TrimSuffix(c.Packages.Source, "/") + "/dists/" + c.Packages.Suite + "/InRelease"
	}
	return r
}

// Reply is what was measured and when, by the machine's own clock.
type Reply struct {
	check.Measured
	Now time.Time `json:"now"`
}

// Local measures this machine. What cannot be measured stays empty.
func Local(ctx context.Context, req Request) Reply {
	m := check.Measured{Node: req.Node, WantClusterID: req.WantClusterID, UserID: os.Geteuid(),
		LatencyTo: map[string]time.Duration{}, FreeBytes: map[string]uint64{}, SourceErrors: map[string]string{}}
	m.Cores = runtime.NumCPU()
	m.MemoryBytes = memory()
	m.DiskBytes = diskSize("/")
	m.Release = release()
	m.Hostname, _ = os.Hostname() // empty: not measured
	m.ClusterID = clusterID()
	m.Interfaces, m.NICs = interfaces()
	m.Listeners = listeners()
	seen := map[uint64]bool{} // a file system is named once, by its shortest path
	for _, path := range []string{"/", "/var", "/var/lib"} {
		if device, free, ok := freeBytes(path); ok && !seen[device] {
			seen[device], m.FreeBytes[path] = true, free
		}
	}
	peers(ctx, req, &m)
	if req.Source != "" {
		if err := reachable(ctx, req.Source); err != nil {
			m.SourceErrors[req.Source] = err.Error()
		}
	}
	return Reply{Measured: m, Now: time.Now()}
}

func memory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return info.Totalram * uint64(info.Unit)
}

func diskSize(path string) uint64 {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	return st.Blocks * uint64(st.Bsize)
}

// freeBytes is what root may still write to the file system of the path.
func freeBytes(path string) (device, free uint64, ok bool) {
	var st unix.Statfs_t
	var at unix.Stat_t
	if unix.Statfs(path, &st) != nil || unix.Stat(path, &at) != nil {
		return 0, 0, false
	}
	return at.Dev, st.Bavail * uint64(st.Bsize), true
}

// release is ID and VERSION_ID of os-release, joined: "debian13".
func release() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return ""
	}
	defer f.Close()
	values := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), "="); ok {
			values[k] = strings.Trim(v, `"'`)
		}
	}
	return values["ID"] + values["VERSION_ID"]
}

// clusterID is the cluster an agent of this machine belongs to.
func clusterID() string {
	b, err := os.ReadFile(model.PathAgentConfig)
	if err != nil {
		return ""
	}
	var conf model.AgentConfig
	if json.Unmarshal(b, &conf) != nil {
		return "unreadable " + model.PathAgentConfig
	}
	return conf.ClusterID
}

// interfaces lists what has addresses, and counts what a cable could be in.
func interfaces() (out []check.Interface, nics int) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, 0
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		if len(i.HardwareAddr) > 0 {
			nics++
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		in := check.Interface{Name: i.Name}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				in.Addresses = append(in.Addresses, p)
			}
		}
		out = append(out, in)
	}
	return out, nics
}

// rounds is how many connections a latency is the median of.
const rounds = 5

func peers(ctx context.Context, req Request, m *check.Measured) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, addr := range req.Peers {
		wg.Go(func() {
			rtt, err := roundTrip(ctx, addr)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				m.Unanswered = append(m.Unanswered, name)
				return
			}
			m.LatencyTo[name] = rtt
		})
	}
	wg.Wait()
	slices.Sort(m.Unanswered)
}

// roundTrip is the median time of a TCP connection: one round trip and the kernel's work.
func roundTrip(ctx context.Context, addr netip.AddrPort) (time.Duration, error) {
	d := net.Dialer{Timeout: 2 * time.Second}
	times := make([]time.Duration, 0, rounds)
	for range rounds {
		start := time.Now()
		conn, err := d.DialContext(ctx, "tcp", addr.String())
		if err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
		conn.Close()
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

func reachable(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return errors.Unwrap(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", res.Status)
	}
	return nil
}

// listeners lists the listening TCP sockets with the processes that hold them.
func listeners() []check.Listener {
	inodes := map[string]check.Listener{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		for inode, addr := range parseSockets(f) {
			inodes[inode] = check.Listener{Address: addr}
		}
		f.Close()
	}
	name := processes(inodes)
	out := make([]check.Listener, 0, len(inodes))
	for inode, l := range inodes {
		l.Process = name[inode]
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b check.Listener) int { return a.Address.Compare(b.Address) })
	return out
}

// parseSockets reads /proc/net/tcp or tcp6 (proc_pid_net(5)): the listening ones by inode.
func parseSockets(r io.Reader) map[string]netip.AddrPort {
	out := map[string]netip.AddrPort{}
	for s := bufio.NewScanner(r); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 10 || f[3] != "0A" { // TCP_LISTEN
			continue
		}
		if addr, err := parseAddress(f[1]); err == nil {
			out[f[9]] = addr
		}
	}
	return out
}

// parseAddress reads the kernel's hexadecimal address: 32-bit words in host byte order.
func parseAddress(s string) (netip.AddrPort, error) {
	hex, port, ok := strings.Cut(s, ":")
	if !ok || (len(hex) != 8 && len(hex) != 32) {
		return netip.AddrPort{}, fmt.Errorf("address %q", s)
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	raw := make([]byte, 0, 16)
	for i := 0; i < len(hex); i += 8 {
		w, err := strconv.ParseUint(hex[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, err
		}
		raw = append(raw, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	addr, _ := netip.AddrFromSlice(raw) // 4 or 16 bytes: cannot fail
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), nil
}

// processes finds who holds the sockets.
func processes(inodes map[string]check.Listener) map[string]string {
	out := map[string]string{}
	pids, err := os.ReadDir("/proc")
	if err != nil {
		return out
	}
	for _, pid := range pids {
		if _, err := strconv.Atoi(pid.Name()); err != nil {
			continue
		}
		fds, err := os.ReadDir("/proc/" + pid.Name() + "/fd")
		if err != nil {
			continue // gone, or not ours to see
		}
		for _, fd := range fds {
			inode, ok := socketInode("/proc/" + pid.Name() + "/fd/" + fd.Name())
			if _, wanted := inodes[inode]; ok && wanted {
				out[inode] = comm(pid)
			}
		}
	}
	return out
}

func socketInode(path string) (string, bool) {
	target, err := os.Readlink(path)
	if err != nil || !strings.HasPrefix(target, "socket:[") {
		return "", false
	}
	return strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]"), true
}

func comm(pid fs.DirEntry) string {
	b, err := os.ReadFile("/proc/" + pid.Name() + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
