package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"nines/internal/model"
)

// Override returns the text of a cluster.yaml with values changed, as
// `--set KEY=VALUE` asks. KEY is a path of keys: vip.advert, tuning.galera.gcache,
// nodes[0].roles or nodes.ctl1.addresses.external (a node by its name). VALUE is
// YAML on one line: 50ms, [controller, compute], {cidr: 198.18.4.0/24}. Keys that
// are missing are added; comments stay. The result is not validated: Parse does that.
func Override(text []byte, sets []string) ([]byte, error) {
	for _, set := range sets {
		next, err := override(text, set)
		if err != nil {
			return nil, fmt.Errorf("--set %s: %w", set, err)
		}
		text = next
	}
	return text, nil
}

func override(text []byte, set string) (out []byte, err error) {
	key, value, ok := strings.Cut(set, "=")
	if !ok {
		return nil, errors.New("write it as KEY=VALUE, like vip.advert=50ms")
	}
	steps, err := split(strings.TrimSpace(key))
	if err != nil {
		return nil, err
	}
	if err := knownKey(steps); err != nil {
		return nil, err
	}
	value = strings.TrimSpace(value)
	if err := oneLine(value); err != nil {
		return nil, err
	}
	// See document: a panic of the YAML library is an error in the text.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the file cannot be edited (%v)", r)
		}
	}()
	file, err := parser.ParseBytes(text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, errors.New("the file does not hold one YAML document")
	}
	if err := edit(file, steps, value); err != nil {
		return nil, err
	}
	out = []byte(file.String())
	return out, verify(out, steps, value)
}

// split turns nodes[0].roles into its steps; an index keeps its brackets.
func split(key string) ([]string, error) {
	var steps []string
	for _, part := range strings.Split(key, ".") {
		name, rest, indexed := strings.Cut(part, "[")
		if name == "" {
			return nil, fmt.Errorf("%q is no path of keys", key)
		}
		steps = append(steps, name)
		if !indexed {
			continue
		}
		number, found := strings.CutSuffix(rest, "]")
		if n, err := strconv.Atoi(number); !found || err != nil || n < 0 {
			return nil, fmt.Errorf("%q is no index: write nodes[0]", part)
		}
		steps = append(steps, "["+number+"]")
	}
	return steps, nil
}

// knownKey follows the steps through the model and reports the first that is not a key.
func knownKey(steps []string) error {
	t, pattern := reflect.TypeFor[model.Cluster](), ""
	for i, s := range steps {
		so := strings.Join(steps[:i], ".")
		switch {
		case t.Kind() == reflect.Slice:
			t, pattern = t.Elem(), pattern+"[]"
		case t.Kind() == reflect.Map:
			if names := words(model.NetworkNames); !slices.Contains(names, s) {
				return fmt.Errorf("%s has no key %s: %s", so, s, oneOf(s, names))
			}
			t, pattern = t.Elem(), join(pattern, "*")
		case t.Kind() == reflect.Struct && t != typePrefix && t != typeAddr:
			known := members(t, pattern)
			i := slices.IndexFunc(known, func(m member) bool { return m.key == s })
			if i < 0 {
				names := make([]string, len(known))
				for j, m := range known {
					names[j] = m.key
				}
				return fmt.Errorf("unknown key %s: %s", strings.TrimPrefix(so+"."+s, "."), oneOf(s, names))
			}
			t, pattern = t.Field(known[i].index).Type, join(pattern, s)
		default:
			return fmt.Errorf("%s is a value and has no key %s", so, s)
		}
	}
	return nil
}

// oneLine checks that a value is one YAML value that fits on a line.
func oneLine(value string) error {
	if value == "" {
		return errors.New("the value is missing; write \"\" for an empty text")
	}
	if strings.ContainsAny(value, "\n\r") {
		return errors.New("the value has more than one line; write lists as [a, b] and mappings as {a: b}")
	}
	file, err := parser.ParseBytes([]byte(value), 0)
	if err != nil || len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return fmt.Errorf("%q is no YAML value; quote it", value)
	}
	switch n := file.Docs[0].Body.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle {
			return errors.New("write a mapping as {a: b}")
		}
	case *ast.SequenceNode:
		if !n.IsFlowStyle {
			return errors.New("write a list as [a, b]")
		}
	case *ast.CommentGroupNode, *ast.AnchorNode, *ast.AliasNode, *ast.LiteralNode, *ast.DirectiveNode:
		return fmt.Errorf("%q is no plain value; quote it", value)
	}
	return nil
}

// edit walks as far as the path exists, then replaces the value there or adds what is missing.
func edit(file *ast.File, steps []string, value string) error {
	here, node := (&yaml.PathBuilder{}).Root(), file.Docs[0].Body
	flow := false
	for i, s := range steps {
		if m, ok := node.(*ast.MappingNode); ok {
			flow = flow || m.IsFlowStyle
			child := childOf(m, s)
			if child == nil {
				return here.Build().MergeFromReader(file, strings.NewReader(nest(steps[i:], value, flow)))
			}
			here, node = here.Child(s), child
			continue
		}
		if seq, ok := node.(*ast.SequenceNode); ok {
			flow = flow || seq.IsFlowStyle
			n, err := indexOf(seq, s)
			if err != nil {
				return fmt.Errorf("%s: %w", strings.Join(steps[:i], "."), err)
			}
			here, node = here.Index(uint(n)), seq.Values[n]
			continue
		}
		// null or a value of another kind: what is missing takes its place, in
		// braces, because the library indents a new block its own way
		return replace(file, here.Build(), node, "{"+nest(steps[i:], value, true)+"}")
	}
	return replace(file, here.Build(), node, value)
}

// replace puts a value in a node's place and keeps the comment beside it.
func replace(file *ast.File, path *yaml.Path, old ast.Node, value string) error {
	parsed, err := parser.ParseBytes([]byte(value), 0)
	if err != nil {
		return err
	}
	body := parsed.Docs[0].Body
	if c := old.GetComment(); c != nil {
		if err := body.SetComment(c); err != nil {
			return err
		}
	}
	return path.ReplaceWithNode(file, body)
}

func childOf(m *ast.MappingNode, key string) ast.Node {
	for _, v := range m.Values {
		if v.Key.GetToken().Value == key {
			return v.Value
		}
	}
	return nil
}

// indexOf finds an element by [number] or, in a list of nodes, by its name.
func indexOf(seq *ast.SequenceNode, step string) (int, error) {
	if number, ok := strings.CutPrefix(step, "["); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(number, "]"))
		if err != nil || n >= len(seq.Values) {
			return 0, fmt.Errorf("there are only %d", len(seq.Values))
		}
		return n, nil
	}
	var names []string
	for i, v := range seq.Values {
		if m, ok := v.(*ast.MappingNode); ok {
			if name := childOf(m, "name"); name != nil {
				if name.GetToken().Value == step {
					return i, nil
				}
				names = append(names, name.GetToken().Value)
			}
		}
	}
	return 0, fmt.Errorf("nothing is named %s: %s, or an index like [0]", step, oneOf(step, names))
}

// nest writes a value below keys: as indented lines, or in braces inside a flow mapping.
func nest(steps []string, value string, flow bool) string {
	var b strings.Builder
	for i, s := range steps {
		if flow {
			if i > 0 {
				b.WriteByte('{')
			}
			b.WriteString(s + ": ")
		} else {
			if i > 0 {
				b.WriteString("\n" + strings.Repeat("  ", i))
			}
			b.WriteString(s + ":")
		}
	}
	if !flow {
		b.WriteByte(' ')
	}
	b.WriteString(value)
	if flow {
		b.WriteString(strings.Repeat("}", len(steps)-1))
	}
	return b.String()
}

// verify reads the edited text back: an edit the YAML library garbles must not
// go on as somebody's cluster.
func verify(text []byte, steps []string, value string) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return fmt.Errorf("the file cannot be edited there; change it by hand: %w", err)
	}
	node := file.Docs[0].Body
	for _, s := range steps {
		switch n := node.(type) {
		case *ast.MappingNode:
			node = childOf(n, s)
		case *ast.SequenceNode:
			i, err := indexOf(n, s)
			if err != nil {
				return nil // the name itself was changed
			}
			node = n.Values[i]
		default:
			node = nil
		}
		if node == nil {
			return errors.New("the file cannot be edited there; change it by hand")
		}
	}
	var got, want any
	if err := yaml.NodeToValue(node, &got); err != nil {
		return fmt.Errorf("the file cannot be edited there; change it by hand: %w", err)
	}
	if err := yaml.Unmarshal([]byte(value), &want); err != nil {
		return err
	}
	if !reflect.DeepEqual(got, want) {
		return errors.New("the file cannot be edited there; change it by hand")
	}
	return nil
}
