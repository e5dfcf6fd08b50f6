package stale

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"nines/internal/host"
)

const (
	agentsPort = 7443
	ownEnv     = "NINES_TEST_OWN"
)

// playController runs the real thing at an address of the three, and tells on standard output what it does. It has one connection open to
// each of the others (a member of something), and begins when its standard input has a line.
func playController() {
	own := netip.MustParseAddr(os.Getenv(ownEnv))
	fmt.Println("born")
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	peers := slices.DeleteFunc(slices.Clone(trioAddresses), func(a netip.Addr) bool { return a == own })
	ears := &Ears{}
	go http.ListenAndServe(netip.AddrPortFrom(own, agentsPort).String(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		age, ok := ears.Age(netip.MustParseAddr(r.URL.Query().Get("about")))
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		json.NewEncoder(w).Encode(age)
	}))
	go member(own)
	for _, p := range peers {
		go stayConnected(p)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Own: own, Peers: peers, VIP: func() netip.Addr { return netip.Addr{} }, Ears: ears, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			Connections: Kernel{Host: host.NewLinux(slog.New(slog.DiscardHandler)), Agents: agentsPort},
			Absent:      func(context.Context, []netip.Addr) {}, Contested: func(netip.Addr) {}, Acquainted: func() {}, Yielding: func(netip.Addr) {}, Third: askByHTTP,
			Aside: func(a netip.Addr) { fmt.Println("aside", a.IsValid()) }})
	}()
	_, _ = in.ReadString('\n') // until its input ends
	stop()
	<-ended
}

func askByHTTP(ctx context.Context, asked, about netip.Addr) (age time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s?about=%s", netip.AddrPortFrom(asked, agentsPort), about), nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	return age, json.NewDecoder(res.Body).Decode(&age)
}

// member takes the others' connections and says nothing.
func member(own netip.Addr) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(own, port).String())
	if err != nil {
		fmt.Println(err)
		return
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go io.Copy(io.Discard, c) // which holds it
	}
}

// stayConnected says when the connection to a peer stands, and when it ends.
func stayConnected(peer netip.Addr) {
	for ; ; time.Sleep(50 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(peer, port).String(), time.Second)
		if err != nil {
			continue
		}
		fmt.Println("up", peer)
		_, _ = c.Read(make([]byte, 1))
		c.Close()
		fmt.Println("down", peer)
	}
}

// TestStandingAsideForReal: three processes, each in a network of its own at one bridge; what the first sends to the second is lost.
func TestStandingAsideForReal(t *testing.T) {
	if os.Getenv(part) == "bridge" {
		testTrio(t)
		return
	}
	alone := []string{"--net"}
	if os.Geteuid() != 0 {
		alone = append(alone, "--user", "--map-root-user")
	}
	c := exec.Command("unshare", append(alone, "--", os.Args[0], "-test.run=^TestStandingAsideForReal$", "-test.v")...)
	c.Env = append(os.Environ(), part+"=bridge", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// event is what a controller said.
type event struct {
	node int
	text string
}

func testTrio(t *testing.T) {
	shell(t, "ip link add sw0 type bridge mcast_snooping 0 && ip link set sw0 up")
	events := make(chan event, 1000)
	for i := range trioAddresses {
		startController(t, i, events)
	}
	await := func(within time.Duration, want ...event) {
		t.Helper()
		seen := map[event]bool{}
		for timeout := time.After(within); len(seen) < len(want); {
			select {
			case e := <-events:
				if slices.Contains(want, e) {
					seen[e] = true
				}
			case <-timeout:
				t.Fatalf("want %v, seen %v", want, seen)
			}
		}
	}
	var all []event
	for i := range trioAddresses {
		for j, peer := range trioAddresses {
			if i != j {
				all = append(all, event{node: i, text: "up " + peer.String()})
			}
		}
	}
	await(20*time.Second, all...)
	time.Sleep(3 * every) // they have heard each other

	shell(t, "nft 'table bridge cut { chain forward { type filter hook forward priority 0; meta protocol != arp iifname c0 oifname c1 drop; }; }'")
	aside, first, third, second := event{node: 1, text: "aside true"}, event{node: 0, text: "down " + two.String()}, event{node: 2, text: "down " + two.String()}, event{node: 1, text: "down " + three.String()}
	await(20*time.Second, aside, first, second, third) // in which order: see TestAsideBeforeTheOtherCloses, where no machine is busy
	shell(t, "nft delete table bridge cut")
	await(20*time.Second, event{node: 1, text: "aside false"}, event{node: 0, text: "up " + two.String()}, event{node: 2, text: "up " + two.String()},
		event{node: 1, text: "up " + one.String()}, event{node: 1, text: "up " + three.String()})
}

// startController starts one and lays its cable.
func startController(t *testing.T, i int, events chan<- event) {
	c := exec.Command("unshare", "--net", "--", os.Args[0])
	c.Env = append(os.Environ(), part+"=controller", ownEnv+"="+trioAddresses[i].String())
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	check(t, err)
	pipe, err := c.StdoutPipe()
	check(t, err)
	check(t, c.Start())
	out := bufio.NewScanner(pipe)
	if !out.Scan() { // it is in its network now
		t.Fatal("it was not born")
	}
	pid := fmt.Sprint(c.Process.Pid)
	shell(t, fmt.Sprintf("ip link add c%d type veth peer name mgmt0 netns %s && ip link set c%[1]d master sw0 up", i, pid))
	shell(t, fmt.Sprintf("nsenter -t %s -n sh -c 'ip link set lo up && ip address add %s/24 dev mgmt0 && ip link set mgmt0 up'", pid, trioAddresses[i]))
	_, err = fmt.Fprintln(in, "go")
	check(t, err)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for out.Scan() {
			events <- event{i, strings.TrimSpace(out.Text())}
		}
	}()
	t.Cleanup(func() {
		in.Close()
		<-read
		c.Wait()
	})
}
