package openstack

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nines/internal/host"
	"nines/internal/host/hosttest"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
	"nines/internal/service/servicetest"
)

var shared = SharedDirectory{Service: "some", Content: "image", Option: "images.directory", User: "some", Folders: []string{"images", "staging"},
	Path: func(c *model.Cluster) string { return c.Images.Directory }}

var sharedSecrets = secret.Map{"some/store-mark": "marksecret"}

// machine is a controller. Machines with the same file server see the same files below the directory.
func machine(t *testing.T, name string) (service.Env, *hosttest.Host, map[string]string) {
	t.Helper()
	c, h := servicetest.Cluster(), hosttest.New()
	n, _ := c.Node(name)
	h.Answer("install -d", "", 0)
	h.Answer("test -w", "", 0)
	rs, err := shared.Resources(c, c.Nodes, sharedSecrets)
	if err != nil {
		t.Fatal(err)
	}
	action := plan.Index(rs)[shared.ID(n)].Action
	return service.Env{Host: h, Cluster: c, Node: n, Secrets: sharedSecrets, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, h, action.Args
}

const markPath = "/srv/images/.nines-image-store"

func TestTheFirstControllerMarksTheStore(t *testing.T) {
	env, h, args := machine(t, "ctl1")
	if done, reason, err := shared.check(t.Context(), env, args); done || reason == "" || err != nil {
		t.Fatalf("%v %q %v", done, reason, err)
	}
	for range 2 { // it can be repeated
		if err := shared.run(t.Context(), env, args); err != nil {
			t.Fatal(err)
		}
		if done, reason, err := shared.check(t.Context(), env, args); !done || err != nil {
			t.Fatalf("%v %q %v", done, reason, err)
		}
	}
	if f, err := h.ReadFile(markPath); err != nil || strings.Contains(string(f.Content), "marksecret") {
		t.Errorf("%q %v", f.Content, err)
	}
}

func TestTheOthersWaitForTheMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, server, args := machine(t, "ctl1")
		if err := shared.run(t.Context(), first, args); err != nil {
			t.Fatal(err)
		}
		env, h, args := machine(t, "ctl2")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := shared.run(ctx, env, args)
		if err == nil || !strings.Contains(err.Error(), "ctl1") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a directory of its own: %v", err)
		}
		if _, err := h.ReadFile(markPath); err == nil {
			t.Error("ctl2 made a mark of its own")
		}
		f, err := server.ReadFile(markPath)
		if err != nil {
			t.Fatal(err)
		}
		h.PutFile(f)
		if err := shared.run(t.Context(), env, args); err != nil {
			t.Errorf("the shared directory: %v", err)
		}
	})
}

// A compute only reads: it needs no user of the service.
func TestAComputeNeedsTheMarkAlone(t *testing.T) {
	first, server, args := machine(t, "ctl1")
	if err := shared.run(t.Context(), first, args); err != nil {
		t.Fatal(err)
	}
	f, err := server.ReadFile(markPath)
	if err != nil {
		t.Fatal(err)
	}
	env, h, args := machine(t, "cmp1")
	h.PutFile(f)
	h.Answer("test -w", "", 1)
	if done, reason, err := shared.check(t.Context(), env, args); !done || err != nil {
		t.Errorf("%v %q %v", done, reason, err)
	}
}

func TestAnotherClustersStoreIsLeftAlone(t *testing.T) {
	env, h, args := machine(t, "ctl1")
	h.PutFile(host.File{Path: markPath, Mode: 0o644, Content: []byte("0123\n")})
	if err := shared.run(t.Context(), env, args); !errors.Is(err, errForeign) {
		t.Errorf("error %v", err)
	}
	if f, _ := h.ReadFile(markPath); string(f.Content) != "0123\n" {
		t.Errorf("the mark is now %q", f.Content)
	}
}

func TestTheUserMustBeAbleToWrite(t *testing.T) {
	env, h, args := machine(t, "ctl1")
	if err := shared.run(t.Context(), env, args); err != nil {
		t.Fatal(err)
	}
	h.Answer("test -w /srv/images/staging", "", 1)
	if done, reason, err := shared.check(t.Context(), env, args); done || !strings.Contains(reason, "staging") || err != nil {
		t.Errorf("%v %q %v", done, reason, err)
	}
}

func TestSight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sight
		gone, looks := errors.New("gone"), 0
		answer := func() error { looks++; return gone }
		see := func(look func() error) error {
			err := s.ask(time.Now(), look)
			synctest.Wait()
			return err
		}
		_ = see(answer) // the first look is under way
		for range 3 {
			if err := see(answer); !errors.Is(err, gone) {
				t.Errorf("error %v", err)
			}
		}
		if looks != 1 {
			t.Errorf("%d looks at the same moment", looks)
		}
		time.Sleep(sightAge)
		release := make(chan struct{})
		hang := func() error { <-release; return nil }
		_ = see(hang)
		time.Sleep(sightPatience + time.Second)
		if err := see(hang); !errors.Is(err, errHangs) {
			t.Errorf("error %v", err)
		}
		close(release)
		synctest.Wait()
		if err := see(answer); err != nil {
			t.Errorf("after it answered: %v", err)
		}
	})
}
