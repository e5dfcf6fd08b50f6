package bootstrap

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// factsScript prints what parseFacts reads.
//
//go:embed facts.sh
var factsScript string

// facts is what a machine said of itself.
type facts struct {
	now      time.Time // its clock, at the beginning
	os       string    // ID of os-release
	codename string
	pretty   string
	arch     string   // as dpkg names it
	init     string   // name of process 1
	system   string   // systemctl is-system-running
	agent    string   // systemctl is-active, of the agent and of its socket
	socket   string   //
	enabled  bool     // both units start at boot
	missing  []string // tools that bootstrap needs
	free     map[string]int64
	addrs    []ifaceAddr
	listen   []listener
	store    bool   // there is data of etcd
	binary   string // SHA-256 of the installed executable, hex
	files    map[string]remoteFile
}

// ifaceAddr is an address of an interface, with the interface's prefix length.
type ifaceAddr struct {
	iface  string
	prefix netip.Prefix
}

// listener is a process, or several, that listens on one of the agent's ports.
type listener struct {
	addr    netip.AddrPort // unspecified address: on all
	comm    string         // of the first process
	pids    []int
	cgroups []string
}

// remoteFile is a file as it stands on a machine.
type remoteFile struct {
	mode    fs.FileMode
	owner   string // user:group
	content []byte
}

var errFacts = errors.New("the machine's answer makes no sense")

// parseFacts reads the output of factsScript.
func parseFacts(out []byte) (facts, error) {
	f := facts{free: map[string]int64{}, files: map[string]remoteFile{}}
	cgroups := map[int]string{}
	whole := false
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		value = strings.TrimSpace(value)
		if err := f.take(key, value, cgroups); err != nil {
			// The value of a file may be a key: it must not get into an error.
			if key == "file" {
				value = "..."
			}
			return facts{}, fmt.Errorf("%w: %s %s: %w", errFacts, key, value, err)
		}
		whole = whole || key == "end"
	}
	if err := lines.Err(); err != nil {
		return facts{}, fmt.Errorf("%w: %w", errFacts, err)
	}
	if !whole {
		return facts{}, fmt.Errorf("%w: it breaks off", errFacts)
	}
	for i, l := range f.listen {
		for _, pid := range l.pids {
			f.listen[i].cgroups = append(f.listen[i].cgroups, cgroups[pid])
		}
	}
	return f, nil
}

// take takes one line. Unknown keys are passed over: a login shell may greet.
func (f *facts) take(key, value string, cgroups map[int]string) (err error) {
	words := map[string]*string{"os": &f.os, "codename": &f.codename, "pretty": &f.pretty, "arch": &f.arch, "init": &f.init,
		"system": &f.system, "agent": &f.agent, "socket": &f.socket, "binary": &f.binary}
	if w, ok := words[key]; ok {
		*w = value
		return nil
	}
	switch key {
	case "now":
		f.now, err = parseTime(value)
	case "enabled":
		f.enabled = value == "enabled,enabled,"
	case "missing":
		f.missing = append(f.missing, value)
	case "store":
		f.store = true
	case "free":
		dir, kib, _ := strings.Cut(value, " ")
		var n int64
		if n, err = strconv.ParseInt(kib, 10, 64); err == nil && n <= math.MaxInt64>>10 {
			f.free[dir] = n << 10
		}
	case "addr":
		iface, text, _ := strings.Cut(value, " ")
		if p, err := netip.ParsePrefix(text); err == nil { // point-to-point addresses have no prefix
			f.addrs = append(f.addrs, ifaceAddr{iface: iface, prefix: p})
		}
	case "listen":
		var l listener
		l, err = parseListener(value)
		f.listen = append(f.listen, l)
	case "cgroup":
		text, path, _ := strings.Cut(value, " ")
		var pid int
		pid, err = strconv.Atoi(text)
		cgroups[pid] = path
	case "file":
		err = f.takeFile(value)
	}
	return err
}

// parseTime reads seconds with nanoseconds after the point.
func parseTime(value string) (time.Time, error) {
	sec, frac, _ := strings.Cut(value, ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, errors.New("not a time")
	}
	n, err := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}, errors.New("not a time")
	}
	return time.Unix(s, n), nil
}

var (
	ssUser = regexp.MustCompile(`"([^"]*)",pid=(\d+)`)
	ssZone = regexp.MustCompile(`%[^:\]]*`)
)

// parseListener reads `LOCAL users:(("name",pid=1,fd=3),...)` as ss prints it.
func parseListener(value string) (listener, error) {
	local, users, _ := strings.Cut(value, " ")
	i := strings.LastIndexByte(local, ':')
	if i < 0 {
		return listener{}, errors.New("no port")
	}
	port, err := strconv.ParseUint(local[i+1:], 10, 16)
	if err != nil {
		return listener{}, errors.New("no port")
	}
	host := strings.Trim(ssZone.ReplaceAllString(local[:i], ""), "[]")
	addr := netip.IPv6Unspecified()
	if host != "*" {
		if addr, err = netip.ParseAddr(host); err != nil {
			return listener{}, errors.New("no address")
		}
	}
	l := listener{addr: netip.AddrPortFrom(addr.Unmap(), uint16(port))}
	for _, m := range ssUser.FindAllStringSubmatch(users, -1) {
		pid, err := strconv.Atoi(m[2])
		if err != nil {
			return listener{}, errors.New("no process id")
		}
		if l.comm == "" {
			l.comm = m[1]
		}
		l.pids = append(l.pids, pid)
	}
	return l, nil
}

// takeFile reads "PATH MODE OWNER BASE64".
func (f *facts) takeFile(value string) error {
	w := strings.Fields(value)
	if len(w) == 3 {
		w = append(w, "") // an empty file
	}
	if len(w) != 4 {
		return errors.New("not a file")
	}
	mode, err := strconv.ParseUint(w[1], 8, 12)
	if err != nil {
		return errors.New("no mode")
	}
	content, err := base64.StdEncoding.DecodeString(w[3])
	if err != nil {
		return errors.New("not base64")
	}
	f.files[w[0]] = remoteFile{mode: fs.FileMode(mode), owner: w[2], content: content}
	return nil
}
