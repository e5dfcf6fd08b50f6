package lab

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// overridePath is a path as --set takes it: names separated by dots, with an
// index for lists: nodes[0].name.
var overridePath = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\[[0-9]+\])*(\.[A-Za-z_][A-Za-z0-9_]*(\[[0-9]+\])*)*$`)

// override sets values in a YAML document and keeps its comments. Each setting
// is PATH=VALUE with a YAML value; mappings that are missing on the way are
// made. Whether the keys mean anything is for the reader of the document to say.
func override(document []byte, settings []string) ([]byte, error) {
	if len(settings) == 0 {
		return document, nil
	}
	file, err := parser.ParseBytes(document, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("cluster.yaml: %w", err)
	}
	for _, setting := range settings {
		path, value, ok := strings.Cut(setting, "=")
		if !ok || !overridePath.MatchString(path) {
			return nil, fmt.Errorf("--set %s: want PATH=VALUE, for example vip.advert=50ms", setting)
		}
		if err := set(file.Docs[0], splitPath(path), value); err != nil {
			return nil, fmt.Errorf("--set %s: %w", setting, err)
		}
	}
	return []byte(file.String()), nil
}

// splitPath turns a.b[0].c into a, b, 0, c; an index is all digits, a name never is.
func splitPath(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
}

// set puts value at path. It rebuilds the missing part of the path as one flow
// mapping, so that indentation never matters.
func set(doc *ast.DocumentNode, path []string, value string) error {
	node := doc.Body
	for i, step := range path {
		last := i == len(path)-1
		switch n := node.(type) {
		case *ast.MappingNode:
			entry := findEntry(n, step)
			switch {
			case entry == nil:
				return appendEntry(n, path[i:], value)
			case last:
				return replaceValue(entry, value)
			default:
				if _, null := entry.Value.(*ast.NullNode); null {
					return replaceValue(entry, flow(path[i+1:], value))
				}
				node = entry.Value
			}
		case *ast.SequenceNode:
			index, err := strconv.Atoi(step)
			if err != nil || index >= len(n.Values) {
				return fmt.Errorf("%q is a list of %d: give an index below that", strings.Join(path[:i], "."), len(n.Values))
			}
			if last {
				fresh, err := parseValue(value)
				if err != nil {
					return err
				}
				n.Values[index] = fresh
				return nil
			}
			node = n.Values[index]
		default:
			return fmt.Errorf("%q holds a plain value, it has no %q", strings.Join(path[:i], "."), step)
		}
	}
	return nil
}

func findEntry(m *ast.MappingNode, key string) *ast.MappingValueNode {
	for _, v := range m.Values {
		if v.Key.GetToken().Value == key {
			return v
		}
	}
	return nil
}

// appendEntry adds path: value as the mapping's last entry.
func appendEntry(m *ast.MappingNode, path []string, value string) error {
	file, err := parser.ParseBytes([]byte(path[0]+": "+flow(path[1:], value)+"\n"), 0)
	if err != nil {
		return fmt.Errorf("%q is no YAML value: %w", value, err)
	}
	fresh, ok := file.Docs[0].Body.(*ast.MappingNode)
	if !ok || len(fresh.Values) != 1 {
		return fmt.Errorf("%q is no YAML value", value)
	}
	if len(m.Values) > 0 && !m.IsFlowStyle {
		fresh.Values[0].AddColumn(m.Values[0].Key.GetToken().Position.Column - 1)
	}
	m.Values = append(m.Values, fresh.Values[0])
	return nil
}

// replaceValue gives the entry another value.
func replaceValue(entry *ast.MappingValueNode, value string) error {
	fresh, err := parseValue(value)
	if err != nil {
		return err
	}
	return entry.Replace(fresh)
}

// parseValue reads a scalar or flow value.
func parseValue(value string) (ast.Node, error) {
	if strings.ContainsAny(value, "\n") {
		return nil, fmt.Errorf("%q: one line only", value)
	}
	if value == "" {
		value = `""`
	}
	file, err := parser.ParseBytes([]byte("v: "+value+"\n"), 0)
	if err != nil {
		return nil, fmt.Errorf("%q is no YAML value: %w", value, err)
	}
	m, ok := file.Docs[0].Body.(*ast.MappingNode)
	if !ok || len(m.Values) != 1 {
		return nil, fmt.Errorf("%q is no YAML value", value)
	}
	return m.Values[0].Value, nil
}

// flow writes nested mappings around value: {a: {b: value}}.
func flow(path []string, value string) string {
	if value == "" {
		value = `""`
	}
	for i := len(path) - 1; i >= 0; i-- {
		value = "{" + path[i] + ": " + value + "}"
	}
	return value
}
