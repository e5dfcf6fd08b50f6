package agent

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"nines/internal/converge"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// moody is a service that answers as it is told.
type moody struct {
	answer func(context.Context) service.Observation
}

func (moody) Name() string            { return "moody" }
func (moody) Interval() time.Duration { return 500 * time.Millisecond }
func (m moody) Observe(ctx context.Context, _ service.Env) service.Observation {
	return m.answer(ctx)
}
func (m moody) Parts() map[string]service.Part {
	return map[string]service.Part{"here": {Unit: "moody.service", Observer: m}, "elsewhere": {Unit: "other.service", Observer: m}}
}
func (moody) Resources(c *model.Cluster, _ secret.Source) ([]plan.Resource, error) {
	var rs []plan.Resource
	for _, n := range c.Nodes {
		rs = append(rs, plan.Resource{ID: plan.Make("moody", n.Name, "unit", "moody.service"), Service: "moody", Node: n.Name, Unit: &plan.Unit{Name: "moody.service"}})
	}
	return rs, nil
}

func cluster() *model.Cluster {
	return &model.Cluster{Name: "test", Services: []string{"moody"}, Nodes: []model.Node{{Name: "ctl1", Roles: []model.Role{model.RoleController},
		Addresses: map[model.NetworkName]netip.Addr{model.Management: netip.MustParseAddr("198.18.0.11")}}}}
}

// A service that the cluster runs no more is not shown as one that fails, and may come back.
func TestServicesGoAndComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watching(t, func(context.Context) service.Observation { return service.Observation{Serving: true} })
		for range 2 {
			synctest.Wait()
			if !w.all()["moody"].Serving {
				t.Fatal("not observed")
			}
			without := cluster()
			without.Services = []string{"other"}
			w.follow(t.Context(), without)
			time.Sleep(time.Minute)
			if seen := w.all(); len(seen) > 0 {
				t.Fatalf("still there: %v", seen)
			}
			w.follow(t.Context(), cluster())
		}
	})
}

func watching(t *testing.T, answer func(context.Context) service.Observation) *watchers {
	t.Helper()
	env := func(c *model.Cluster) (service.Env, error) { return service.Env{Cluster: c, Node: c.Nodes[0]}, nil }
	w := newWatchers([]service.Service{moody{answer}}, env, slog.New(slog.DiscardHandler))
	w.follow(t.Context(), cluster())
	return w
}

func TestFrozenServiceIsNotServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var frozen atomic.Bool
		w := watching(t, func(ctx context.Context) service.Observation {
			if frozen.Load() {
				<-ctx.Done() // answers nothing, as a stopped process
			}
			return service.Observation{Serving: true, Reason: "fine"}
		})
		defer w.stop()
		time.Sleep(time.Second)
		if o := w.all()["moody"]; !o.Serving {
			t.Fatalf("not serving: %+v", o)
		}
		frozen.Store(true)
		time.Sleep(1600 * time.Millisecond)
		if o := w.all()["moody"]; !o.Serving {
			t.Errorf("one missing answer: %+v, want still serving: the machine may be busy", o)
		}
		time.Sleep(1400 * time.Millisecond)
		if o := w.all()["moody"]; o.Serving || !strings.Contains(o.Reason, "no answer") {
			t.Errorf("frozen for 3 s: %+v, want not serving for want of an answer", o)
		}
		frozen.Store(false)
		time.Sleep(2 * time.Second)
		if o := w.all()["moody"]; !o.Serving {
			t.Errorf("thawed: %+v, want serving", o)
		}
	})
}

// On a busy machine the first question after an agent's start may go unanswered: what it says then ends connections elsewhere.
func TestNothingIsSaidOfWhatIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		w := watching(t, func(ctx context.Context) service.Observation {
			if time.Since(started) < observeTimeout {
				<-ctx.Done()
			}
			pause(ctx, observeTimeout/2)
			return service.Observation{Serving: time.Since(started) < time.Minute}
		})
		defer w.stop()
		news := w.news()
		time.Sleep(observeTimeout * 5 / 4)
		if seen := w.all(); len(seen) > 0 {
			t.Errorf("one answer is missing, and it is said: %+v", seen)
		}
		select {
		case <-news:
			t.Error("told")
		default:
		}
		time.Sleep(2 * time.Second)
		if !w.all()["moody"].Serving {
			t.Errorf("%+v, want serving", w.all())
		}
		time.Sleep(time.Minute)
		if o, ok := w.all()["moody"]; !ok || o.Serving {
			t.Errorf("%+v, want not serving", w.all())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := watching(t, func(ctx context.Context) service.Observation {
			<-ctx.Done()
			return service.Observation{}
		})
		defer w.stop()
		time.Sleep(5 * time.Second)
		if o, ok := w.all()["moody"]; !ok || o.Serving || !strings.Contains(o.Reason, "no answer") {
			t.Errorf("two answers are missing: %+v", w.all())
		}
	})
}

// The guard of the VIP waits for this: a proxy that died must not hold the address until the next look.
func TestChangesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		w := watching(t, func(context.Context) service.Observation { return service.Observation{Serving: !down.Load()} })
		defer w.stop()
		told := func(news <-chan struct{}) bool {
			time.Sleep(time.Second)
			select {
			case <-news:
				return true
			default:
				return false
			}
		}
		if !told(w.news()) {
			t.Error("it serves now: not told")
		}
		if told(w.news()) {
			t.Error("told although nothing changed")
		}
		down.Store(true)
		one, another := w.news(), w.news()
		if !told(one) || !told(another) {
			t.Error("it ceased to serve: not told to all who listen")
		}
	})
}

func TestOldObservationIsNotBelieved(t *testing.T) {
	now := time.Now()
	o := observed{Observation: service.Observation{Serving: true}, at: now, good: 3 * time.Second}
	if !o.believed(now.Add(2 * time.Second)).Serving {
		t.Error("a fresh observation is not believed")
	}
	if o.believed(now.Add(4 * time.Second)).Serving {
		t.Error("an observation that is too old is believed")
	}
}

func TestHealthPort(t *testing.T) {
	serving := true
	w := watching(t, func(context.Context) service.Observation {
		return service.Observation{Serving: serving, Reason: "because"}
	})
	defer w.stop()
	a := &Agent{watch: w}
	ask := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRecorder()
		a.healthHandler().ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
		return r
	}
	if r := ask("/health/moody"); r.Code != http.StatusOK || !strings.Contains(r.Body.String(), "because") {
		t.Errorf("serving: %d %s", r.Code, r.Body)
	}
	if r := ask("/health/moody/here"); r.Code != http.StatusOK {
		t.Errorf("a part that serves: %d %s", r.Code, r.Body)
	}
	if got := slices.Sorted(maps.Keys(w.all())); !slices.Equal(got, []string{"moody", "moody/here"}) {
		t.Errorf("observed: %v, want the service and its part on this node", got)
	}
	if r := ask("/health/other"); r.Code != http.StatusNotFound {
		t.Errorf("unknown service: %d", r.Code)
	}
	w.keep("moody", time.Second, service.Observation{Reason: "drained"}, true)
	if r := ask("/health/moody"); r.Code != http.StatusServiceUnavailable || !strings.Contains(r.Body.String(), "drained") {
		t.Errorf("not serving: %d %s", r.Code, r.Body)
	}
}

func TestStrangersMayNothing(t *testing.T) {
	a := &Agent{Options: Options{Log: slog.New(slog.DiscardHandler)}}
	r := httptest.NewRecorder()
	a.handler().ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/v1/version", nil))
	if r.Code != http.StatusUnauthorized {
		t.Errorf("no certificate: %d, want 401", r.Code)
	}
}

func newSecrets(t *testing.T, dir, key string, st *memstore.Store) *secrets {
	t.Helper()
	s := &secrets{key: []byte(key), cache: &cache{dir: dir}}
	if st != nil {
		s.use(st)
	}
	return s
}

func TestSecretsAreMadeOnceSealedAndKept(t *testing.T) {
	st := memstore.New()
	defer st.Close()
	key, err := secret.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	specs := []secret.Spec{{Name: "a", Kind: secret.Password}}
	first, err := newSecrets(t, dir, key, st).Ensure(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	value, _ := first.Get("a")
	second, err := newSecrets(t, t.TempDir(), key, st).Ensure(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := second.Get("a"); again != value || value == "" {
		t.Error("another node got another secret")
	}
	e, err := st.Get(t.Context(), converge.KeySecrets)
	if err != nil || strings.Contains(string(e.Value), value) {
		t.Errorf("the bundle in the store is not sealed (%v)", err)
	}
	// Before etcd answers, a restarted agent knows them from its cache.
	if v, err := newSecrets(t, dir, key, nil).Get("a"); err != nil || v != value {
		t.Errorf("after a restart: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "secrets.age"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("cache: %v %v, want 0600", info.Mode(), err)
	}
}

// A power cut may empty what was not flushed: the cache is then read anew from the store.
func TestLostCacheIsReadFromTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		defer st.Close()
		key, err := secret.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newSecrets(t, t.TempDir(), key, st).Ensure(t.Context(), []secret.Spec{{Name: "a", Kind: secret.Password}}); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "secrets.age"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		a := &Agent{secrets: newSecrets(t, dir, key, st)}
		if _, err := a.secrets.Get("a"); err == nil {
			t.Fatal("a secret out of an empty file")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); a.followSecrets(ctx, st) }()
		synctest.Wait()
		if _, err := a.secrets.Get("a"); err != nil {
			t.Errorf("after following the store: %v", err)
		}
		cancel()
		<-done
	})
}
