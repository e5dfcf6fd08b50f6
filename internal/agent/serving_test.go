package agent

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/api"
	"nines/internal/service"
)

// balancing is a service that notes what it heeds.
type balancing struct {
	moody
	heeded chan map[string]bool
}

func (balancing) PassOver(context.Context, service.Env, []string) error { return nil }
func (b balancing) Heed(_ context.Context, _ service.Env, node string, serving map[string]bool) error {
	b.heeded <- serving
	return nil
}

func TestWhatIsNewIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balancing{heeded: make(chan map[string]bool, 100)}
		a := &Agent{Options: Options{Services: []service.Service{b}, Log: slog.New(slog.DiscardHandler)}}
		a.Config.Node = "ctl1"
		a.spec.Store(cluster())
		words := make(chan map[string]bool)
		done := make(chan struct{})
		go func() { defer close(done); a.passOn(t.Context(), "ctl2", words) }()
		heeds := func(said, want map[string]bool) {
			t.Helper()
			words <- said
			synctest.Wait()
			got := map[string]bool{}
			for len(b.heeded) > 0 {
				maps.Copy(got, <-b.heeded)
			}
			if !maps.Equal(got, want) {
				t.Errorf("said %v, passed on %v, want %v", said, got, want)
			}
		}
		heeds(map[string]bool{"galera": true, "keystone": false}, map[string]bool{"galera": true, "keystone": false})
		heeds(map[string]bool{"galera": true, "keystone": true}, map[string]bool{"keystone": true})
		heeds(map[string]bool{"galera": false, "keystone": true}, map[string]bool{"galera": false})
		time.Sleep(10 * repeatEvery)
		synctest.Wait()
		if n := len(b.heeded); n < 9 {
			t.Errorf("what does not serve was repeated %d times in 10 s: a proxy that starts anew takes it for serving", n)
		}
		for len(b.heeded) > 0 {
			if said := <-b.heeded; !maps.Equal(said, map[string]bool{"galera": false}) {
				t.Errorf("repeated: %v", said)
			}
		}
		heeds(nil, map[string]bool{}) // the agent is silent: that is no word
		time.Sleep(10 * repeatEvery)
		if n := len(b.heeded); n > 0 {
			t.Errorf("passed on %d words of one that is silent", n)
		}
		heeds(map[string]bool{"galera": true, "keystone": true}, map[string]bool{"galera": true, "keystone": true}) // all that it says anew is news
		close(words)
		<-done
	})
}

// Both ends of the stream over TLS: it says everything at first, each change at once, and ends with the agent.
func TestServicesThatServeAreSaid(t *testing.T) {
	var down atomic.Bool
	w := watching(t, func(context.Context) service.Observation { return service.Observation{Serving: !down.Load()} })
	defer w.stop()
	life, end := context.WithCancel(t.Context())
	a := &Agent{watch: w, life: life}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != api.PathServing {
			t.Errorf("asked for %s", r.URL.Path)
		}
		if err := a.getServing(w, r); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	client := api.NewClient(&tls.Config{RootCAs: roots}, nil)
	defer client.Close()
	said, ended := make(chan map[string]bool), make(chan error, 1)
	go func() {
		ended <- client.Serving(t.Context(), strings.TrimPrefix(server.URL, "https://"), func(s map[string]bool) { said <- s })
	}()
	says := func(want bool) {
		t.Helper()
		for deadline := time.After(10 * time.Second); ; {
			select {
			case s := <-said:
				if serves, known := s["moody"]; known && serves == want {
					return
				}
			case <-deadline:
				t.Fatalf("it was not said that serving is %v", want)
			}
		}
	}
	says(true)
	down.Store(true)
	says(false)
	w.leave("moody", "")
	down.Store(false)
	says(true)
	w.leave("moody", "it is stopped soon")
	says(false)
	end()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the end of an agent is no error")
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream outlives the agent, whose shutdown waits for it")
	}
}
