package config

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"nines/internal/model"
)

// position is a place in the text, counted from 1.
type position struct{ line, column int }

// place is where in the description the decoder is.
type place struct {
	path    string // nodes[2].addresses.management
	pattern string // nodes[].addresses.*: the key of fields
}

func (p place) key(k string) place  { return place{join(p.path, k), join(p.pattern, k)} }
func (p place) name(k string) place { return place{join(p.path, k), join(p.pattern, "*")} }
func (p place) item(i int) place {
	return place{fmt.Sprintf("%s[%d]", p.path, i), p.pattern + "[]"}
}

// decoder fills a Cluster from YAML and remembers where everything stands.
type decoder struct {
	name     string
	text     []byte
	cluster  *model.Cluster
	keys     map[string]position // path -> its key
	values   map[string]position // path -> its value
	bad      map[string]bool     // paths whose value does not fit
	problems []Problem
}

var (
	typeDuration = reflect.TypeFor[time.Duration]()
	typePrefix   = reflect.TypeFor[netip.Prefix]()
	typeAddr     = reflect.TypeFor[netip.Addr]()
)

// at is where a node begins. A mapping's own token is its first colon, so its
// first key is asked instead.
func at(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return at(m.Values[0].Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return position{t.Position.Line, t.Position.Column}
	}
	return position{1, 1}
}

// value is where the value of a path stands; a missing one stands where its
// nearest parent's key does.
func (p *decoder) value(path string) position { return nearest(path, p.values, p.keys) }

// key is where the key of a path stands.
func (p *decoder) key(path string) position { return nearest(path, p.keys, p.values) }

func nearest(path string, first, second map[string]position) position {
	if at, ok := first[path]; ok {
		return at
	}
	for ; path != ""; path = path[:max(strings.LastIndexAny(path, ".["), 0)] {
		if at, ok := second[path]; ok {
			return at
		}
		if at, ok := first[path]; ok {
			return at
		}
	}
	return position{1, 1}
}

// given reports whether the path stands in the file.
func (p *decoder) given(path string) bool { _, ok := p.values[path]; return ok }

// decode fills dst from a node. It reports what does not fit and goes on.
func (p *decoder) decode(n ast.Node, dst reflect.Value, where place) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		p.report(at(n), "anchors, aliases and tags are not used here", "write the value out")
		return
	case *ast.NullNode:
		if _, ok := p.values[where.path]; !ok {
			p.values[where.path] = at(n)
		}
		p.null(n, dst, where)
		return
	}
	p.values[where.path] = at(n)
	switch dst.Type() {
	case typeDuration, typePrefix, typeAddr:
		p.scalar(n, dst, where)
		return
	}
	switch dst.Kind() {
	case reflect.Struct:
		p.structure(n, dst, where)
	case reflect.Map:
		p.mapping(n, dst, where)
	case reflect.Slice:
		p.list(n, dst, where)
	default:
		p.scalar(n, dst, where)
	}
}

// null is a key without a value: nothing for a block, a mistake elsewhere.
func (p *decoder) null(n ast.Node, dst reflect.Value, where place) {
	if k := dst.Kind(); (k == reflect.Struct || k == reflect.Map) && dst.Type() != typePrefix && dst.Type() != typeAddr {
		delete(p.values, where.path)
		if where.path == "" {
			p.report(at(n), "the file is empty", "start from the example that `nines init` writes")
			return
		}
		if t := dst.Type(); t.Kind() == reflect.Struct {
			p.missing(nil, t, where)
		}
		return
	}
	p.bad[where.path] = true
	right := "write " + describe(dst.Type(), where)
	if !fields[where.pattern].required {
		right += ", or leave the key out"
	}
	p.report(p.key(where.path), leaf(where.path)+" has no value", right)
}

// entries returns the keys and values of a mapping, each key once.
func (p *decoder) entries(n ast.Node, where place) (out []entry, ok bool) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		p.report(at(n), fmt.Sprintf("%s is %s", subject(where), kind(n)), "a mapping: `key: value` lines, indented")
		return nil, false
	}
	seen := map[string]position{}
	for _, v := range m.Values {
		key, plain := v.Key.(ast.ScalarNode)
		if !plain {
			p.report(at(v.Key), "this key is not a plain word", "`key: value`; anchors and merges are not used here")
			continue
		}
		name := key.GetToken().Value
		if first, twice := seen[name]; twice {
			p.report(at(v.Key), fmt.Sprintf("the key %s is here twice", name), fmt.Sprintf("keep one; the first stands in line %d", first.line))
			continue
		}
		seen[name] = at(v.Key)
		out = append(out, entry{name, at(v.Key), v.Value})
	}
	return out, true
}

type entry struct {
	key   string
	at    position
	value ast.Node
}

func (p *decoder) structure(n ast.Node, dst reflect.Value, where place) {
	entries, ok := p.entries(n, where)
	if !ok {
		return
	}
	known := members(dst.Type(), where.pattern)
	names := make([]string, len(known))
	for i, m := range known {
		names[i] = m.key
	}
	present := map[string]bool{}
	for _, e := range entries {
		i := slices.Index(names, e.key)
		if i < 0 {
			p.report(e.at, fmt.Sprintf("unknown key %s%s", e.key, in(where)), oneOf(e.key, names))
			// The key that was meant is not also reported as missing.
			present[suggest(e.key, names)] = true
			continue
		}
		present[e.key] = true
		sub := where.key(e.key)
		p.keys[sub.path] = e.at
		p.decode(e.value, dst.Field(known[i].index), sub)
	}
	p.missing(present, dst.Type(), where)
}

// missing reports the required keys that are not present.
func (p *decoder) missing(present map[string]bool, t reflect.Type, where place) {
	for _, m := range members(t, where.pattern) {
		f := fields[join(where.pattern, m.key)]
		if f.required && !present[m.key] {
			p.report(p.key(where.path), fmt.Sprintf("%s is missing%s", m.key, in(where)), strings.ToLower(f.doc[:1])+f.doc[1:])
		}
	}
}

func (p *decoder) mapping(n ast.Node, dst reflect.Value, where place) {
	entries, ok := p.entries(n, where)
	if !ok {
		return
	}
	dst.Set(reflect.MakeMapWithSize(dst.Type(), len(entries)))
	names := words(model.NetworkNames)
	for _, e := range entries {
		if !slices.Contains(names, e.key) {
			p.report(e.at, fmt.Sprintf("unknown network %s%s", e.key, in(where)), oneOf(e.key, names))
			continue
		}
		sub := where.name(e.key)
		p.keys[sub.path] = e.at
		v := reflect.New(dst.Type().Elem()).Elem()
		before := len(p.problems)
		p.decode(e.value, v, sub)
		if len(p.problems) == before {
			dst.SetMapIndex(reflect.ValueOf(e.key).Convert(dst.Type().Key()), v)
		}
	}
}

func (p *decoder) list(n ast.Node, dst reflect.Value, where place) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		p.bad[where.path] = true
		p.report(at(n), fmt.Sprintf("%s is %s", subject(where), kind(n)), "a list: [a, b], or lines that begin with `- `")
		return
	}
	out := reflect.MakeSlice(dst.Type(), 0, len(seq.Values))
	for i, item := range seq.Values {
		v := reflect.New(dst.Type().Elem()).Elem()
		p.decode(item, v, where.item(i))
		out = reflect.Append(out, v)
	}
	dst.Set(out)
}

// scalar decodes one word, number or switch and checks it against its field.
func (p *decoder) scalar(n ast.Node, dst reflect.Value, where place) {
	switch n.(type) {
	case *ast.MappingNode, *ast.SequenceNode, *ast.MappingValueNode:
		p.bad[where.path] = true
		p.report(at(n), fmt.Sprintf("%s is %s", subject(where), kind(n)), describe(dst.Type(), where))
		return
	}
	text := n.GetToken().Value
	if l, ok := n.(*ast.LiteralNode); ok && l.Value != nil {
		text = l.Value.Value
	}
	_, quoted := n.(*ast.StringNode)
	if problem, right := set(dst, text, fields[where.pattern]); problem != "" {
		p.bad[where.path] = true
		p.report(at(n), fmt.Sprintf("%s: %s", leafOf(where), problem), right)
	} else if dst.Kind() == reflect.String && !quoted && n.Type() != ast.LiteralType {
		p.report(at(n), fmt.Sprintf("%s is %s, not text", leafOf(where), kind(n)), strconv.Quote(text)+", in quotes")
	}
}

// set parses text into dst by its type and checks it. It returns what is wrong and what would be right.
func set(dst reflect.Value, text string, f field) (problem, right string) {
	switch dst.Type() {
	case typeDuration:
		return setDuration(dst, text, f)
	case typePrefix:
		v, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Sprintf("%q is not an address with a prefix length", text), prefixRight(text)
		}
		dst.Set(reflect.ValueOf(v))
		return "", ""
	case typeAddr:
		v, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Sprintf("%q is not an address", text), addrRight(text)
		}
		dst.Set(reflect.ValueOf(v))
		return "", ""
	}
	switch dst.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Sprintf("%q is neither true nor false", text), "true or false"
		}
		dst.SetBool(text == "true")
	case reflect.Int:
		v, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Sprintf("%q is not a whole number", text), numberRight(f)
		}
		if low, high := number(f.min, math.MinInt), number(f.max, math.MaxInt); v < low || v > high {
			return fmt.Sprintf("%d is out of range", v), numberRight(f)
		}
		dst.SetInt(int64(v))
	default:
		return setText(dst, text, f)
	}
	return "", ""
}

func setText(dst reflect.Value, text string, f field) (problem, right string) {
	switch {
	case strings.TrimSpace(text) != text || text == "":
		return fmt.Sprintf("%q is empty or has spaces around it", text), "the value alone, or leave the key out"
	case len(f.enum) > 0 && !slices.Contains(f.enum, text):
		return fmt.Sprintf("%q is unknown", text), oneOf(text, f.enum)
	case f.pattern != "" && !matches(f.pattern, text):
		return fmt.Sprintf("%q does not fit", text), f.means
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }):
		return "the text holds a control character", "printable characters on one line"
	}
	dst.SetString(text)
	return "", ""
}

// matches reports whether text matches a pattern of the table.
func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }

func setDuration(dst reflect.Value, text string, f field) (problem, right string) {
	v, err := time.ParseDuration(text)
	if err != nil {
		if _, e := strconv.ParseFloat(text, 64); e == nil {
			return fmt.Sprintf("%s has no unit", text), fmt.Sprintf("%ss, or %sms", text, text)
		}
		return fmt.Sprintf("%q is not a duration", text), durationRight(f)
	}
	low, high, step := duration(f.min, 0), duration(f.max, math.MaxInt64), duration(f.step, 1)
	switch {
	case v < low || v > high:
		return fmt.Sprintf("%s is out of range", text), durationRight(f)
	case v%step != 0:
		return fmt.Sprintf("%s is finer than the component can count", text), "a multiple of " + f.step
	}
	dst.SetInt(int64(v))
	return "", ""
}

// duration parses a bound of fields; a test parses them all.
func duration(text string, absent time.Duration) time.Duration {
	if d, err := time.ParseDuration(text); err == nil {
		return d
	}
	return absent
}

func number(text string, absent int) int {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return absent
}
