// Package config turns cluster.yaml into a model.Cluster: every default filled
// in, every rule of the file checked, each error with its line and column and
// with what would be right.
//
// One table (fields.go) says of each key what it means, which default it has and
// why, and what it may hold. The parser, the JSON Schema, the overrides and the
// writer are all derived from the model's types and that table, so they cannot
// drift apart.
//
// Invariants: Parse is a pure function of its text; a Cluster without an error
// satisfies every rule, and Parse(Marshal(c)) is c again. The package must never
// reach for the network or for a node: what has to be measured belongs to check.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"nines/internal/model"
)

// maxSize bounds the file: a cluster.yaml of a thousand nodes is a tenth of it.
const maxSize = 4 << 20

// Load reads cluster.yaml. Besides what Parse does it resolves relative paths
// (ssh.identity, ssh.known_hosts, packages.key) against the file's own folder and "~/"
// against the operator's home, and reads packages.key into Packages.KeyText.
// The error is an *Errors when the file could be read.
func Load(path string) (*model.Cluster, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &FileError{Err: err}
	}
	p := parse(path, text)
	if p.failed() {
		return nil, p.errors()
	}
	p.resolvePaths(filepath.Dir(path))
	if p.failed() {
		return nil, p.errors()
	}
	return p.cluster, nil
}

// FileError says that cluster.yaml could not be read at all.
type FileError struct{ Err error }

func (e *FileError) Error() string { return "cluster.yaml cannot be read: " + e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *FileError) Hint() string { return "'nines init' writes one, '-c FILE' names another" }

// Parse turns the text of a cluster.yaml into a Cluster. The name is used in
// errors only. All problems are reported at once in an *Errors.
func Parse(name string, text []byte) (*model.Cluster, error) {
	p := parse(name, text)
	if p.failed() {
		return nil, p.errors()
	}
	return p.cluster, nil
}

func parse(name string, text []byte) *decoder {
	p := &decoder{name: name, text: text, cluster: &model.Cluster{}, keys: map[string]position{}, values: map[string]position{}, bad: map[string]bool{}}
	root := p.document()
	if p.failed() {
		return p
	}
	p.decode(root, reflect.ValueOf(p.cluster).Elem(), place{})
	p.defaults()
	p.rules()
	return p
}

// document parses the YAML and returns its one mapping.
func (p *decoder) document() (root ast.Node) {
	if len(p.text) > maxSize {
		p.report(position{1, 1}, "the file is larger than 4 MiB", "describe one cluster in a file")
		return nil
	}
	if i := bytes.IndexByte(p.text, 0); i >= 0 {
		p.report(position{1 + bytes.Count(p.text[:i], []byte("\n")), 1}, "the file holds a NUL byte: it is not text", "save it as UTF-8 text")
		return nil
	}
	// The YAML library is written by others and reads what anybody typed: a
	// panic of it is an error in the file, not a crash of the program.
	defer func() {
		if r := recover(); r != nil {
			p.report(position{1, 1}, fmt.Sprintf("this is not YAML (%v)", r), "")
			root = nil
		}
	}()
	file, err := parser.ParseBytes(p.text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		p.syntax(err)
		return nil
	}
	var docs []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			docs = append(docs, d.Body)
		}
	}
	switch {
	case len(docs) == 0:
		p.report(position{1, 1}, "the file is empty", "start from the example that `nines init` writes")
		return nil
	case len(docs) > 1:
		p.report(at(docs[1]), "the file holds a second YAML document", "describe one cluster in a file; remove the --- line and what follows")
		return nil
	}
	return docs[0]
}

func (p *decoder) syntax(err error) {
	var se *yaml.SyntaxError
	if errors.As(err, &se) && se.Token != nil && se.Token.Position != nil {
		p.report(position{se.Token.Position.Line, se.Token.Position.Column}, "not valid YAML: "+se.Message, "")
		return
	}
	p.report(position{1, 1}, "not valid YAML: "+strings.SplitN(err.Error(), "\n", 2)[0], "")
}

// resolvePaths makes the paths of the spec independent of the working directory.
func (p *decoder) resolvePaths(dir string) {
	c := p.cluster
	for _, s := range []*string{&c.SSH.Identity, &c.SSH.KnownHosts, &c.Packages.Key} {
		*s = resolve(dir, *s)
	}
	if c.Packages.Key == "" {
		return
	}
	text, err := os.ReadFile(c.Packages.Key)
	if err != nil {
		p.report(p.value("packages.key"), fmt.Sprintf("the key of the package source cannot be read: %v", err),
			"give the path of the OpenPGP key the source is signed with, relative to this file")
		return
	}
	c.Packages.KeyText = string(text)
}

func resolve(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
		return path
	}
	return filepath.Join(dir, path)
}
