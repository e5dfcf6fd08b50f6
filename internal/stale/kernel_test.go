package stale

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nines/internal/host"
)

// part, when set, makes the test binary play a part in a network namespace of its own.
const part = "NINES_TEST_PART"

const (
	ownAddress  = "198.18.7.1"
	peerAddress = "198.18.7.2"
	vipAddress  = "198.18.7.9"
	port        = 7777
)

func TestMain(m *testing.M) {
	switch os.Getenv(part) {
	case "peer":
		playPeer()
		return
	case "controller":
		playController()
		return
	}
	goleak.VerifyTestMain(m)
}

// playPeer takes connections and never says a word, until its standard input ends.
func playPeer() {
	l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var held []net.Conn // a connection that nobody holds is closed by the garbage collector
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held = append(held, c)
		}
	}()
	fmt.Println("listening")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestKernel is played by two processes of this binary, each in a network of its own, with a cable between them.
func TestKernel(t *testing.T) {
	if os.Getenv(part) == "node" {
		testNode(t)
		return
	}
	alone := []string{"--net"}
	if os.Geteuid() != 0 { // root of a user namespace may do the same there
		alone = append(alone, "--user", "--map-root-user")
	}
	c := exec.Command("unshare", append(alone, "--", os.Args[0], "-test.run=^TestKernel$", "-test.v")...)
	c.Env = append(os.Environ(), part+"=node", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func testNode(t *testing.T) {
	peer := startPeer(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var log bytes.Buffer
	absent := make(chan []netip.Addr, 1)
	go func() {
		ended <- Run(ctx, Options{Acquainted: func() {}, Yielding: func(netip.Addr) {}, Absent: func(_ context.Context, peers []netip.Addr) { absent <- peers }, Peers: []netip.Addr{netip.MustParseAddr(peerAddress)},
			VIP:         func() netip.Addr { return netip.MustParseAddr(vipAddress) },
			Connections: Kernel{Host: host.NewLinux(slog.New(slog.DiscardHandler))}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	}()
	time.Sleep(3 * every) // the peer has been heard

	waiting := await(dial(t, peerAddress))
	shell(t, "nsenter -t "+peer+" -n nft 'table ip cut { chain input { type filter hook input priority 0; policy drop; }; }'")
	cut := time.Now()
	if peers := <-absent; len(peers) != 1 || peers[0].String() != peerAddress || time.Since(cut) > patience {
		t.Errorf("absent: %v, after %s: requests go past who falls silent before that is a death", peers, time.Since(cut))
	}
	if err := <-waiting; !errors.Is(err, syscall.ECONNABORTED) || time.Since(cut) > patience+3*time.Second {
		t.Errorf("who waits for the dead peer: %v after %s", err, time.Since(cut))
	}
	began := time.Now()
	if _, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", peerAddress, port), 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > time.Second {
		t.Errorf("a new connection: %v after %s", err, time.Since(began))
	}
	shell(t, "nsenter -t "+peer+" -n nft delete table ip cut")
	time.Sleep(3 * every)
	dial(t, peerAddress).Close()
	testAvoided(t, peer)

	waiting = await(dial(t, vipAddress))
	// The kernel forgets a neighbour and asks for it again: no move.
	shell(t, "ip neigh del "+vipAddress+" dev near")
	dial(t, vipAddress).Close()
	select {
	case err := <-waiting:
		t.Fatalf("a neighbour that was asked for again ended a connection: %v", err)
	case <-time.After(every):
	}
	shell(t, "ip neigh replace "+vipAddress+" lladdr 02:00:00:00:00:77 dev near") // as a gratuitous ARP does
	moved := time.Now()
	if err := <-waiting; !errors.Is(err, syscall.ECONNABORTED) || time.Since(moved) > time.Second {
		t.Errorf("who waits at the address that moved: %v after %s", err, time.Since(moved))
	}

	// The address comes here because the peer has died: the roll is called long before its silence is a death.
	shell(t, "nsenter -t "+peer+" -n nft 'table ip cut { chain input { type filter hook input priority 0; policy drop; }; }'")
	opening := make(chan error, 1)
	go func() {
		_, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", peerAddress, port), 5*time.Second)
		opening <- err
	}()
	time.Sleep(50 * time.Millisecond) // its first packet is sent
	came := time.Now()
	shell(t, "ip address add "+vipAddress+"/32 dev near")
	if peers := <-absent; len(peers) != 1 || peers[0].String() != peerAddress || time.Since(came) > patience/2 {
		t.Errorf("absent: %v, after %s", peers, time.Since(came))
	}
	if err := <-opening; !errors.Is(err, syscall.ECONNABORTED) || time.Since(came) > patience/2 {
		t.Errorf("who opens a connection to the absent peer: %v after %s", err, time.Since(came))
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if left := shell(t, "nft list tables"); left != "" {
		t.Errorf("rules stay behind: %s", left)
	}
	if t.Failed() {
		t.Log(log.String())
	}
}

// testAvoided: who is avoided is refused in both directions, but for agents.
func testAvoided(t *testing.T, peer string) {
	ring, err := net.ListenPacket("udp", ownAddress+":0")
	check(t, err)
	defer ring.Close()
	ringPort := ring.LocalAddr().(*net.UDPAddr).Port
	avoid := func(agents uint16, remotes ...netip.Addr) {
		k := Kernel{Host: host.NewLinux(slog.New(slog.DiscardHandler)), Agents: agents, Rings: []uint16{uint16(ringPort)}}
		check(t, k.Refuse(t.Context(), Refusal{Avoided: remotes, Held: held}))
	}
	heard := func() bool {
		shell(t, fmt.Sprintf("nsenter -t %s -n bash -c 'echo > /dev/udp/%s/%d'", peer, ownAddress, ringPort))
		check(t, ring.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		_, _, err := ring.ReadFrom(make([]byte, 8))
		return err == nil
	}
	l, err := net.Listen("tcp", ownAddress+":0")
	check(t, err)
	defer l.Close()
	comes := func() error {
		_, port, _ := net.SplitHostPort(l.Addr().String())
		began := time.Now()
		out, err := exec.Command("nsenter", "-t", peer, "-n", "bash", "-c", "exec 3<>/dev/tcp/"+ownAddress+"/"+port).CombinedOutput()
		if err != nil && (!strings.Contains(string(out), "refused") || time.Since(began) > time.Second) {
			t.Errorf("not refused at once: %s", out)
		}
		return err
	}
	avoid(9, netip.MustParseAddr(peerAddress))
	if _, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", peerAddress, port), 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection to who is avoided: %v", err)
	}
	if comes() == nil {
		t.Error("who is avoided was let in")
	}
	if heard() {
		t.Error("a datagram of Corosync was let in")
	}
	avoid(port, netip.MustParseAddr(peerAddress))
	dial(t, peerAddress).Close() // an agent's
	avoid(9)
	if err := comes(); err != nil {
		t.Errorf("nobody is avoided: %v", err)
	}
	if !heard() {
		t.Error("nobody is avoided, and Corosync is not heard")
	}
}

// startPeer starts the other process and lays the cable. It returns the process's ID.
func startPeer(t *testing.T) string {
	c := exec.Command("unshare", "--net", "--", os.Args[0])
	c.Env = append(os.Environ(), part+"=peer")
	in, err := c.StdinPipe()
	check(t, err)
	out, err := c.StdoutPipe()
	check(t, err)
	check(t, c.Start())
	t.Cleanup(func() {
		in.Close()
		c.Wait()
	})
	_, err = out.Read(make([]byte, 16)) // it is in its network now
	check(t, err)
	pid := strconv.Itoa(c.Process.Pid)
	shell(t, "ip link set lo up") // the refusals go through it
	shell(t, "ip link add near type veth peer name far netns "+pid)
	shell(t, "ip address add "+ownAddress+"/24 dev near && ip link set near up")
	shell(t, "nsenter -t "+pid+" -n sh -c 'ip address add "+peerAddress+"/24 dev far && ip address add "+vipAddress+"/24 dev far && ip link set far up'")
	return pid
}

func shell(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return strings.TrimSpace(string(out))
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", address, port), 5*time.Second)
	check(t, err)
	return c
}

// await waits for an answer that never comes, and tells how that ended.
func await(c net.Conn) <-chan error {
	out := make(chan error, 1)
	go func() {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, err := c.Read(make([]byte, 1))
		c.Close()
		out <- err
	}()
	return out
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRules(t *testing.T) {
	four, six := netip.MustParseAddr("198.18.0.11"), netip.MustParseAddr("fd00::11")
	k := Kernel{Agents: port, Rings: []uint16{5405, 5406}}
	got := rules(Refusal{Dead: []netip.Addr{four}, Avoided: []netip.Addr{six}, Held: held}, k)
	for _, want := range []string{"delete table inet nines-stale", "198.18.0.11 timeout 15s", "fd00::11 timeout 15s", "ip daddr @dead4 reject with tcp reset", "ip6 saddr @avoided6 reject with tcp reset", "elements = { 5405 timeout 15s, 5406 timeout 15s }"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if got := rules(Refusal{Dead: []netip.Addr{four}, Held: held}, k); strings.Contains(got, "5405") {
		t.Errorf("nobody is avoided, and Corosync is cut off:\n%s", got)
	}
	if strings.Contains(rules(Refusal{Held: held}, k), "chain") {
		t.Error("nobody is dead, and there are rules")
	}
}
