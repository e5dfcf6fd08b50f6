// Package render writes every file of every node into a folder, for review and
// version control, without touching a node. Each secret is replaced by a mark. It
// needs no root and no network.
package render

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service"
)

// File is one rendered file: DIR/node/path on disk.
type File struct {
	Node    string
	Path    string // on the node
	Mode    fs.FileMode
	Owner   string
	Group   string
	Content []byte
}

// Files returns every file of every node, sorted by node and path.
func Files(services []service.Service, c *model.Cluster) ([]File, error) {
	var out []File
	for _, s := range services {
		if !c.Runs(s.Name()) {
			continue
		}
		rs, err := s.Resources(c, secret.Redacted{})
		if err != nil {
			return nil, fmt.Errorf("render %s: %w", s.Name(), err)
		}
		for _, r := range rs {
			if f := r.File; f != nil {
				out = append(out, File{Node: r.Node, Path: f.Path, Mode: f.Mode, Owner: f.Owner, Group: f.Group, Content: f.Content})
			}
		}
	}
	slices.SortFunc(out, func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Path, b.Path))
	})
	return out, nil
}

// ErrForeign says that the folder holds something render did not write.
var ErrForeign = errors.New("the folder is not empty and was not written by nines render")

// mark tells a folder that render may replace.
const mark = ".nines-render"

// Write puts the files below dir. A folder that render wrote before is replaced as a whole; any
// other folder that is not empty is refused.
func Write(dir string, files []File) error {
	if err := clear(dir); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, mark), []byte("Written by nines render; replaced by the next run.\n"), 0o644); err != nil {
		return fmt.Errorf("render: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Node, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("render: %w", err)
		}
		if err := os.WriteFile(path, f.Content, 0o644); err != nil {
			return fmt.Errorf("render: %w", err)
		}
	}
	return nil
}

func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.MkdirAll(dir, 0o755)
	case err != nil:
		return fmt.Errorf("render: %w", err)
	case len(entries) == 0:
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, mark)); err != nil {
		return fmt.Errorf("render into %s: %w", dir, ErrForeign)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("render: %w", err)
		}
	}
	return nil
}
