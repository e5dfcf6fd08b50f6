package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// identity is what a member wrote down when it first took part. Raft's safety
// rests on members not forgetting what they promised: an emptied member under
// its old name could vote twice and lose acknowledged writes.
type identity struct {
	Cluster string `json:"cluster"`
	Member  string `json:"member"`
}

func identityFile(dir string) string { return filepath.Clean(dir) + ".member.json" }

// hasData reports whether dir holds a write-ahead log.
func hasData(dir string) bool {
	logs, _ := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal")) // the pattern is sound
	return len(logs) > 0
}

// checkIdentity refuses data of another cluster or member, and a member that lost its data.
func checkIdentity(cfg ServerConfig) error {
	b, err := os.ReadFile(identityFile(cfg.Dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return fmt.Errorf("%s: %w", identityFile(cfg.Dir), err)
	}
	want := identity{cfg.ClusterToken, cfg.Name}
	if id != want {
		return fmt.Errorf("%w: it is member %s of cluster %s, want member %s of cluster %s; move %s and %s away if that cluster is gone",
			ErrForeign, id.Member, id.Cluster, want.Member, want.Cluster, cfg.Dir, identityFile(cfg.Dir))
	}
	if !hasData(cfg.Dir) {
		return fmt.Errorf("%w: remove member %s from the cluster and add it again, do not start it empty (%s says so)",
			ErrLostState, cfg.Name, identityFile(cfg.Dir))
	}
	return nil
}

// recordIdentity writes the identity down, surviving a power cut.
func recordIdentity(cfg ServerConfig) error {
	name := identityFile(cfg.Dir)
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	b, err := json.Marshal(identity{cfg.ClusterToken, cfg.Name})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
