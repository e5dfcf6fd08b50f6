package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// The wording of problems stands here, apart from the decoding.

// kind says what a node is, in words an operator uses.
func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.NullNode:
		return "empty"
	}
	return "one word"
}

// describe says what may stand at a place.
func describe(t reflect.Type, where place) string {
	f := fields[where.pattern]
	switch {
	case t == typeDuration:
		return durationRight(f)
	case t == typePrefix:
		return "an address with a prefix length, like 192.0.2.0/24"
	case t == typeAddr:
		return "an address, like 192.0.2.11"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return numberRight(f)
	case t.Kind() == reflect.Slice && len(f.enum) > 0:
		return "a list of " + strings.Join(f.enum, ", ")
	case t.Kind() == reflect.Slice:
		return "a list"
	case len(f.enum) > 0:
		return oneOf("", f.enum)
	case f.means != "":
		return f.means
	}
	return "text"
}

func durationRight(f field) string {
	right := "a number with a unit, like 500ms, 15s or 24h"
	if f.min != "" && f.max != "" {
		right += fmt.Sprintf(", from %s to %s", f.min, f.max)
	}
	return right
}

func numberRight(f field) string {
	if f.min != "" && f.max != "" {
		return fmt.Sprintf("a whole number from %s to %s", f.min, f.max)
	}
	return "a whole number"
}

func prefixRight(text string) string {
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
		return text + "/24, with the prefix length of the network"
	}
	return "like 192.0.2.0/24"
}

func addrRight(text string) string {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr().String() + ", without a prefix length: the network has it"
	}
	return "like 192.0.2.11"
}

// leaf is the last word of a path.
func leaf(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func leafOf(where place) string { return leaf(where.path) }

// subject names a place at the beginning of a sentence.
func subject(where place) string {
	if where.path == "" {
		return "the file"
	}
	return where.path
}

// in names the place a key stands in, at the end of a sentence.
func in(where place) string {
	if where.path == "" {
		return ""
	}
	return " in " + where.path
}
