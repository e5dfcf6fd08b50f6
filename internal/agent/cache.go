package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"nines/internal/converge"
	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/store"
)

// cache keeps what an agent must know before etcd answers: after a restart its health
// checks must not wait for an election. The secrets in it stay sealed.
type cache struct{ dir string }

func (c *cache) specPath() string    { return filepath.Join(c.dir, "spec.json") }
func (c *cache) secretsPath() string { return filepath.Join(c.dir, "secrets.age") }

func (c *cache) spec() (*model.Cluster, error) {
	b, err := os.ReadFile(c.specPath())
	if err != nil {
		return nil, err
	}
	var spec model.Cluster
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", c.specPath(), err)
	}
	return &spec, nil
}

func (c *cache) saveSpec(spec *model.Cluster) error {
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return replace(c.specPath(), b)
}

// replace writes a file so that a crash or a power cut leaves the old one or the new one, whole.
func replace(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// secrets is the cluster's sealed bundle in the store, opened with the cluster's key.
type secrets struct {
	key   []byte
	cache *cache

	mu    sync.Mutex
	store store.Store
	known secret.Map
	kept  int64 // revision of the bundle in the cache
}

func (s *secrets) use(st store.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store = st
}

// Get implements secret.Source from what was last read; refresh reads.
func (s *secrets) Get(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		if sealed, err := os.ReadFile(s.cache.secretsPath()); err == nil {
			s.known, _ = secret.Open(sealed, string(s.key)) // unreadable: as if it were not there
		}
	}
	return s.known.Get(name)
}

// refresh reads the bundle from the store.
func (s *secrets) refresh(ctx context.Context) (rev int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return 0, errors.New("read the secrets: etcd is starting")
	}
	e, err := s.store.Get(ctx, converge.KeySecrets)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the secrets: %w", err)
	}
	if e.Revision == s.kept {
		return e.Revision, nil
	}
	known, err := secret.Open(e.Value, string(s.key))
	if err != nil {
		return 0, fmt.Errorf("open the secrets: %w", err)
	}
	if err := replace(s.cache.secretsPath(), e.Value); err != nil {
		return 0, fmt.Errorf("keep the sealed secrets: %w", err)
	}
	s.known, s.kept = known, e.Revision
	return e.Revision, nil
}

// Ensure implements converge.Secrets.
func (s *secrets) Ensure(ctx context.Context, specs []secret.Spec) (secret.Source, error) {
	return s.change(ctx, func(have secret.Map) (secret.Map, bool, error) { return secret.Complete(have, specs) })
}

// Merge replaces some secrets.
func (s *secrets) Merge(ctx context.Context, values map[string]string) error {
	_, err := s.change(ctx, func(have secret.Map) (secret.Map, bool, error) {
		out := secret.Map{}
		for k, v := range have {
			out[k] = v
		}
		for k, v := range values {
			out[k] = v
		}
		return out, true, nil
	})
	return err
}

// change rewrites the bundle by compare-and-swap; after a lost race it tries again.
func (s *secrets) change(ctx context.Context, edit func(secret.Map) (secret.Map, bool, error)) (secret.Source, error) {
	for {
		rev, err := s.refresh(ctx)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		next, changed, err := edit(s.known)
		st := s.store
		s.mu.Unlock()
		if err != nil || !changed {
			return next, err
		}
		recipient, err := secret.Recipient(string(s.key))
		if err != nil {
			return nil, fmt.Errorf("the cluster's key: %w", err)
		}
		sealed, err := secret.Seal(next, recipient)
		if err != nil {
			return nil, fmt.Errorf("seal the secrets: %w", err)
		}
		_, err = st.Put(ctx, converge.KeySecrets, sealed, rev)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("write the secrets: %w", err)
		}
		_, err = s.refresh(ctx)
		return next, err
	}
}
