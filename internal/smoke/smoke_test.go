package smoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"nines/internal/model"
	"nines/internal/smoke/guest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCloud keeps what is made in it. Things take a second to become what they are to be, and a second to go.
type fakeCloud struct {
	mu       sync.Mutex // of the methods of Cloud: a loop clears up beside its work
	things   []*fakeThing
	external bool // it has an external network of its own
	made     []string
	deleted  []string
	requests int
	// fail says which request fails, by "make NAME", "delete KIND", "list KIND", "state KIND", "attach", "detach".
	fail func(request string) error
	// broken is the state that new things of a kind go to.
	broken map[Kind]string
	lost   bool // make does its work, but its answer is lost
}

type fakeThing struct {
	Thing
	spec     Spec
	word     string // from ready on
	ready    time.Time
	gone     time.Time
	attached *fakeThing
}

var errCloud = errors.New("HTTP 500")

func (c *fakeCloud) request(what string) error {
	c.requests++
	if c.fail != nil {
		return c.fail(what)
	}
	return nil
}

func (c *fakeCloud) find(t Thing) *fakeThing {
	for _, have := range c.things {
		if have.Kind == t.Kind && have.ID == t.ID && (have.gone.IsZero() || time.Now().Before(have.gone)) {
			return have
		}
	}
	return nil
}

var readyWords = map[Kind]string{KindImage: imageReady, KindServer: serverReady, KindVolume: volumeReady, KindSnapshot: snapshotReady}

func (c *fakeCloud) Make(ctx context.Context, name string, spec Spec) (Thing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.request("make " + name)
	if err != nil && !c.lost {
		return Thing{}, err
	}
	kind := spec.Kind()
	t := &fakeThing{Thing: Thing{Kind: kind, ID: fmt.Sprint(len(c.things)), Name: name}, spec: spec, word: readyWords[kind], ready: time.Now().Add(time.Second)}
	if word := c.broken[kind]; word != "" {
		t.word = word
	}
	switch kind {
	case KindAddress:
		t.Address = netip.MustParseAddr("198.51.100.200")
	case KindPort:
		t.Address = netip.MustParseAddr("192.168.233.7")
	case KindNetwork:
		t.Subnet = "s" + t.ID
	}
	c.things = append(c.things, t)
	c.made = append(c.made, name)
	if err != nil {
		return Thing{}, err
	}
	return t.Thing, nil
}

// uses says what a thing cannot be without.
func uses(s Spec) []Thing {
	switch s := s.(type) {
	case RouterSpec:
		return []Thing{s.External, s.Network}
	case PortSpec:
		return []Thing{s.Network, s.Group}
	case AddressSpec:
		return []Thing{s.External, s.Port}
	case ServerSpec:
		return []Thing{s.Port}
	case SnapshotSpec:
		return []Thing{s.Volume}
	}
	return nil
}

func (c *fakeCloud) Delete(_ context.Context, t Thing) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.request("delete " + string(t.Kind)); err != nil {
		return err
	}
	have := c.find(t)
	if have == nil {
		return ErrGone
	}
	for _, other := range c.things {
		for _, used := range uses(other.spec) {
			if used.Kind == t.Kind && used.ID == t.ID && c.find(other.Thing) != nil {
				return fmt.Errorf("%w by %s", ErrBusy, other.Name)
			}
		}
		if t.Kind == KindVolume && other.attached == have && c.find(other.Thing) != nil {
			return ErrBusy
		}
	}
	have.gone = time.Now().Add(time.Second)
	c.deleted = append(c.deleted, t.Name)
	return nil
}

func (c *fakeCloud) List(_ context.Context, kind Kind) ([]Thing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.request("list " + string(kind)); err != nil {
		return nil, err
	}
	var out []Thing
	for _, t := range c.things {
		if t.Kind == kind && c.find(t.Thing) != nil {
			out = append(out, t.Thing)
		}
	}
	return out, nil
}

func (c *fakeCloud) State(_ context.Context, t Thing) (State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.request("state " + string(t.Kind)); err != nil {
		return State{}, err
	}
	have := c.find(t)
	switch {
	case have == nil:
		return State{}, ErrGone
	case time.Now().Before(have.ready):
		return State{Word: "working"}, nil
	case c.user(have) != nil:
		return State{Word: volumeUsed}, nil
	}
	return State{Word: have.word, Detail: "no valid host"}, nil
}

// user is the server that a volume is attached to.
func (c *fakeCloud) user(volume *fakeThing) *fakeThing {
	for _, t := range c.things {
		if t.attached == volume && c.find(t.Thing) != nil {
			return t
		}
	}
	return nil
}

func (c *fakeCloud) External(context.Context) (Thing, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.external {
		return Thing{Kind: KindNetwork, ID: "public", Name: "public"}, true, nil
	}
	return Thing{}, false, c.request("external")
}

func (c *fakeCloud) Gateway(_ context.Context, router Thing) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(router) == nil {
		return "", ErrGone
	}
	return "ctl2", c.request("gateway")
}

func (c *fakeCloud) Attach(_ context.Context, server, volume Thing) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.request("attach")
	if err == nil {
		c.find(server).attached = c.find(volume)
	}
	return err
}

func (c *fakeCloud) Detach(_ context.Context, server, _ Thing) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.request("detach")
	if err == nil {
		c.find(server).attached = nil
	}
	return err
}

// visit answers as the guest of the newest instance does.
func (c *fakeCloud) visit(_ context.Context, _ netip.Addr) (Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.request("visit"); err != nil {
		return Answer{}, err
	}
	for _, t := range slices.Backward(c.things) {
		s, ok := t.spec.(ServerSpec)
		if !ok || c.find(t.Thing) == nil || time.Now().Before(t.ready) {
			continue
		}
		var key string
		for _, k := range c.things {
			if k.Kind == KindKey && k.ID == s.Key.ID {
				key = k.spec.(KeySpec).Public
			}
		}
		a := Answer{Hostname: t.Name, Metadata: t.Name + ".novalocal", Address: s.Port.Address.String(), Key: key, Disks: []string{"vda"}}
		if t.attached != nil {
			a.Disks = append(a.Disks, "vdb")
		}
		return a, nil
	}
	return Answer{}, errors.New("connection refused")
}

func (c *fakeCloud) left() []string {
	var out []string
	for _, t := range c.things {
		if c.find(t.Thing) != nil {
			out = append(out, t.Name)
		}
	}
	return out
}

// strangers are things of others, whose names look a little like ours.
func strangers() []*fakeThing {
	var out []*fakeThing
	for _, kind := range removal {
		for i, name := range []string{"", "web", "nines-smoke", "nines-smoke-test-network", "my-" + Prefix + "0123456789-x", Prefix + "0123456789"} {
			out = append(out, &fakeThing{Thing: Thing{Kind: kind, ID: fmt.Sprintf("%s-%d", kind, i), Name: name}})
		}
	}
	return out
}

func testCluster(t *testing.T) *model.Cluster {
	t.Helper()
	address := netip.MustParseAddr
	node := func(name, management, external string) model.Node {
		return model.Node{Name: name, Addresses: map[model.NetworkName]netip.Addr{model.Management: address(management), model.External: address(external)}}
	}
	return &model.Cluster{
		Networks: map[model.NetworkName]model.Network{model.Management: {CIDR: netip.MustParsePrefix("198.18.0.0/24")}, model.External: {CIDR: netip.MustParsePrefix("198.18.1.0/24")}},
		Nodes:    []model.Node{node("ctl1", "198.18.0.11", "198.18.1.11"), node("ctl2", "198.18.0.12", "198.18.1.12"), node("cmp1", "198.18.0.21", "198.18.1.21")},
		VIP:      model.VIP{Address: netip.MustParsePrefix("198.18.0.10/24")},
		Neutron:  model.Neutron{ProviderInterface: "provider0", PhysicalNetwork: "external"},
	}
}

const testID = "00000000aa"

func testRunner(t *testing.T, c *fakeCloud) *Runner {
	t.Helper()
	image := guest.Image{Kernel: filepath.Join(t.TempDir(), "kernel"), Ramdisk: filepath.Join(t.TempDir(), "ramdisk")}
	for _, path := range []string{image.Kernel, image.Ramdisk} {
		if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &Runner{ID: testID, Cluster: testCluster(t), Cloud: c, Guest: image, Visit: c.visit}
}

func stepNames(steps []Step) []string {
	var out []string
	for _, s := range steps {
		out = append(out, s.Name)
	}
	return out
}

func TestRunMakesUsesAndDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{things: strangers()}
		before := c.left()
		r := testRunner(t, c)
		report := r.Run(t.Context(), false)
		if !report.OK {
			t.Fatalf("failed: %+v", report.Steps)
		}
		want := []string{"upload images", "external network", "make network", "make router", "make security group", "make flavor", "make key pair",
			"make port", "boot instance", "give it a floating address", "reach the instance", "make volume", "attach volume", "see the disk in the instance",
			"snapshot of the volume", "image of the instance", "detach volume", "see it gone in the instance",
			"delete floating address", "delete instance", "delete volume snapshot", "delete volume", "delete port", "delete router", "delete network",
			"delete security group", "delete flavor", "delete key pair", "delete image"}
		if diff := cmp.Diff(want, stepNames(report.Steps)); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(before, c.left()); diff != "" {
			t.Errorf("what is left (-want +got):\n%s", diff)
		}
		slices.Sort(c.made)
		slices.Sort(c.deleted)
		if diff := cmp.Diff(c.made, c.deleted); diff != "" {
			t.Errorf("made and not deleted, or the other way round (-made +deleted):\n%s", diff)
		}
	})
}

// TestLend: an instance for somebody else's use is reached before it is handed over, and gone when it was given back. What
// could not be made leaves nothing.
func TestLend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{things: strangers()}
		before := c.left()
		lent, err := testRunner(t, c).Lend(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if gateway, err := lent.Gateway(t.Context()); gateway != "ctl2" || err != nil || lent.Address().Port() != guestPort || !lent.Address().IsValid() {
			t.Errorf("at %s through %q, %v", lent.Address(), gateway, err)
		}
		if err := lent.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before, c.left()); diff != "" {
			t.Errorf("what is left (-want +got):\n%s", diff)
		}

		c = &fakeCloud{fail: func(request string) error {
			if request == "visit" {
				return errCloud
			}
			return nil
		}}
		if _, err := testRunner(t, c).Lend(t.Context()); err == nil || len(c.left()) > 0 {
			t.Errorf("error %v, left %v", err, c.left())
		}
	})
}

// TestEveryFailureIsCleanedUp lets each request of a run fail in turn, once as if it was refused and once as if its
// answer was lost: nothing may be left, nothing of others touched.
func TestEveryFailureIsCleanedUp(t *testing.T) {
	total := 0
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{}
		testRunner(t, c).Run(t.Context(), false)
		total = c.requests
	})
	for n := range total {
		for _, lost := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				c := &fakeCloud{things: strangers(), lost: lost}
				before := c.left()
				failed := ""
				c.fail = func(what string) error {
					if c.requests == n+1 {
						failed = what
						return errCloud
					}
					return nil
				}
				report := testRunner(t, c).Run(t.Context(), false)
				time.Sleep(2 * time.Second) // what is being deleted goes
				if diff := cmp.Diff(before, c.left()); diff != "" {
					t.Errorf("request %d (%s, lost %t): what is left (-want +got):\n%s\n%+v", n, failed, lost, diff, report.Steps)
				}
				tolerated := strings.HasPrefix(failed, "state") || failed == "visit" // looked at again
				if report.OK != tolerated {
					t.Errorf("request %d (%s, lost %t) failed, and the report says ok: %t", n, failed, lost, report.OK)
				}
			})
		}
	}
}

func TestStatesThatFail(t *testing.T) {
	for kind, word := range map[Kind]string{KindServer: "error", KindVolume: "error", KindImage: "killed", KindSnapshot: "error"} {
		synctest.Test(t, func(t *testing.T) {
			c := &fakeCloud{broken: map[Kind]string{kind: word}}
			report := testRunner(t, c).Run(t.Context(), false)
			i := slices.IndexFunc(report.Steps, func(s Step) bool { return s.Err != nil })
			if report.OK || i < 0 || !strings.Contains(report.Steps[i].Error, `"`+word+`": no valid host`) || report.Steps[i].TookMS > 3000 {
				t.Errorf("%s in state %s: %+v", kind, word, report.Steps)
			}
			if left := c.left(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestNothingHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{broken: map[Kind]string{KindServer: "build"}} // for ever
		report := testRunner(t, c).Run(t.Context(), false)
		var boot Step
		for _, s := range report.Steps {
			if s.Name == "boot instance" {
				boot = s
			}
		}
		if boot.TookMS != limitBoot.Milliseconds() || !strings.Contains(boot.Error, "not done within 3m0s: instance") || !strings.Contains(boot.Error, "but build") {
			t.Errorf("%+v", boot)
		}
	})
}

func TestInterruptCleansUp(t *testing.T) {
	for _, at := range []string{"make " + names{id: testID}.of("router"), "state instance", "visit", "detach"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			c := &fakeCloud{}
			c.fail = func(what string) error {
				if what == at {
					cancel()
				}
				return nil
			}
			report := testRunner(t, c).Run(ctx, false)
			if left := c.left(); len(left) > 0 {
				t.Errorf("interrupted at %q: left %v", at, left)
			}
			if report.OK || !slices.ContainsFunc(report.Steps, func(s Step) bool { return errors.Is(s.Err, context.Canceled) }) {
				t.Errorf("interrupted at %q: %+v", at, report.Steps)
			}
		})
	}
}

func TestKeepAndClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{external: true}
		report := testRunner(t, c).Run(t.Context(), true)
		want := &Kept{Run: testID, Name: "nines-smoke-kept-" + testID + "-", Address: "198.51.100.200", URL: "http://198.51.100.200/"}
		if diff := cmp.Diff(want, report.Kept); diff != "" || !report.OK {
			t.Errorf("%+v\n%s", report.Steps, diff)
		}
		kept := c.left()
		if len(kept) == 0 || slices.ContainsFunc(kept, func(s string) bool { return !strings.HasPrefix(s, want.Name) }) {
			t.Errorf("kept: %v", kept)
		}

		// Another run leaves it there, and so does a clean while that run is at work.
		other := testRunner(t, c)
		other.ID = "00000000bb"
		if report := other.Run(t.Context(), false); !report.OK {
			t.Errorf("%+v", report.Steps)
		}
		other.Alive = func(id string) bool { return id == testID }
		if report := other.Clean(t.Context()); !report.OK || len(report.Steps) > 0 {
			t.Errorf("%+v", report.Steps)
		}
		if diff := cmp.Diff(kept, c.left()); diff != "" {
			t.Errorf("(-kept +left)\n%s", diff)
		}

		other.Alive = nil
		if report := other.Clean(t.Context()); !report.OK || len(report.Steps) == 0 || len(c.left()) > 0 {
			t.Errorf("left: %v, %+v", c.left(), report.Steps)
		}
		if report := other.Clean(t.Context()); !report.OK || len(report.Steps) > 0 {
			t.Errorf("nothing to clean: %+v", report.Steps)
		}
	})
}

func TestLeftoversAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{external: true, things: strangers()}
		before := c.left()
		dead, alive := names{id: "00000000cc"}, names{id: "00000000dd"}
		for _, n := range []names{dead, alive} {
			network, _ := c.Make(t.Context(), n.of("network"), NetworkSpec{})
			_, _ = c.Make(t.Context(), n.of("router"), RouterSpec{Network: network})
			_, _ = c.Make(t.Context(), n.of("volume"), VolumeSpec{})
		}
		r := testRunner(t, c)
		r.Alive = func(id string) bool { return id == alive.id }
		report := r.Run(t.Context(), false)
		if got := stepNames(report.Steps)[:4]; !report.OK || !slices.Equal(got, []string{"delete volume", "delete router", "delete network", "upload images"}) {
			t.Errorf("%v, %+v", got, report)
		}
		want := append(before, alive.of("network"), alive.of("router"), alive.of("volume"))
		if diff := cmp.Diff(want, c.left()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{external: true}
		report := testRunner(t, c).Loop(t.Context(), Loop{time.Minute, OperationLimit})
		if !report.OK || report.Count < 30 || report.Failed != 0 || report.LongestMS == 0 || report.Longest == "" {
			t.Errorf("%+v", report)
		}
		var kinds []string
		for _, o := range report.Operations {
			kinds = append(kinds, o.Name)
		}
		want := []string{"make volume", "delete volume", "make port", "boot instance", "make floating address", "reach instance", "delete floating address", "delete instance", "delete port"}
		if diff := cmp.Diff(want, kinds); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if left := c.left(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestLoopCountsFailuresAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{external: true}
		began := time.Now()
		c.fail = func(what string) error {
			since := time.Since(began)
			switch {
			case strings.Contains(what, "-r2-volume"):
				return errCloud
			case what == "visit" && since > time.Minute && since < 80*time.Second:
				return errCloud // looked at again: slow, not failed
			case what == "state instance" && since > 2*time.Minute && since < 3*time.Minute:
				return errCloud // longer than an operation may take
			}
			return nil
		}
		report := testRunner(t, c).Loop(t.Context(), Loop{5 * time.Minute, OperationLimit})
		if report.OK || report.Failed != len(report.Failures) || report.Failed < 2 || report.Failures[0].Name != "make volume" || report.Failures[0].Error != "HTTP 500" {
			t.Errorf("%+v", report.Failures)
		}
		if report.LongestMS != OperationLimit.Milliseconds() || !strings.Contains(report.Failures[1].Error, "not done within 30s") {
			t.Errorf("longest %d ms (%s), %+v", report.LongestMS, report.Longest, report.Failures)
		}
		if left := c.left(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		if report.Count < 100 {
			t.Errorf("only %d operations: a failure stopped the loop", report.Count)
		}
	})
}

func TestLoopEndsWhenInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{external: true}
		ctx, cancel := context.WithTimeout(t.Context(), 47500*time.Millisecond)
		defer cancel()
		report := testRunner(t, c).Loop(ctx, Loop{Limit: OperationLimit})
		if !report.OK || report.Count == 0 || len(c.left()) > 0 {
			t.Errorf("left %v, %+v", c.left(), report)
		}
	})
}

func TestLoopThatCannotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCloud{fail: func(what string) error {
			if strings.HasSuffix(what, "-router") {
				return errCloud
			}
			return nil
		}}
		report := testRunner(t, c).Loop(t.Context(), Loop{time.Minute, OperationLimit})
		if report.OK || report.Count != 0 || len(c.left()) > 0 {
			t.Errorf("left %v, %+v", c.left(), report)
		}
	})
}

func TestReportJSON(t *testing.T) {
	got, err := json.Marshal(Report{Steps: []Step{{Name: "make network", TookMS: 1200}, {Name: "make router", TookMS: 3, Error: "no", Err: errCloud}}, TookMS: 1203})
	want := `{"steps":[{"name":"make network","took_ms":1200},{"name":"make router","took_ms":3,"error":"no"}],"ok":false,"took_ms":1203}`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}
