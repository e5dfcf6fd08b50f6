package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"nines/internal/model"
)

// schema is the part of JSON Schema (draft 2020-12) that cluster.yaml needs.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        string             `json:"type,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Additional  *bool              `json:"additionalProperties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	Minimum     *int               `json:"minimum,omitempty"`
	Maximum     *int               `json:"maximum,omitempty"`
	Default     any                `json:"default,omitempty"`
}

const (
	durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
	addrPattern     = `^[0-9]{1,3}(\.[0-9]{1,3}){3}$`
	prefixPattern   = `^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$`
)

// Schema returns the JSON Schema of cluster.yaml, for editors. It accepts every file
// that Parse accepts; the rules between keys are Parse's alone.
func Schema() ([]byte, error) {
	root := schemaOf(reflect.TypeFor[model.Cluster](), "")
	root.Schema = "https://json-schema.org/draft/2020-12/schema"
	root.Title = "cluster.yaml of nines"
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("JSON Schema of cluster.yaml: %w", err)
	}
	return append(out, '\n'), nil
}

func schemaOf(t reflect.Type, pattern string) *schema {
	f := fields[pattern]
	s := &schema{Description: f.doc}
	switch {
	case t == typeDuration:
		s.Type, s.Pattern = "string", durationPattern
	case t == typePrefix:
		s.Type, s.Pattern = "string", prefixPattern
	case t == typeAddr:
		s.Type, s.Pattern = "string", addrPattern
	case t.Kind() == reflect.Struct:
		s.object()
		for _, m := range members(t, pattern) {
			sub := join(pattern, m.key)
			s.Properties[m.key] = schemaOf(t.Field(m.index).Type, sub)
			if fields[sub].required {
				s.Required = append(s.Required, m.key)
			}
		}
	case t.Kind() == reflect.Map:
		s.object()
		for _, name := range words(model.NetworkNames) {
			s.Properties[name] = schemaOf(t.Elem(), join(pattern, "*"))
		}
	case t.Kind() == reflect.Slice:
		s.Type, s.Items = "array", schemaOf(t.Elem(), pattern+"[]")
	case t.Kind() == reflect.Bool:
		s.Type = "boolean"
	case t.Kind() == reflect.Int:
		s.Type, s.Minimum, s.Maximum = "integer", bound(f.min), bound(f.max)
	default:
		s.Type, s.Enum, s.Pattern = "string", f.enum, f.pattern
	}
	s.Default = defaultOf(t, f.fallback)
	return s
}

func (s *schema) object() {
	closed := false
	s.Type, s.Properties, s.Additional = "object", map[string]*schema{}, &closed
}

func bound(text string) *int {
	if n, err := strconv.Atoi(text); err == nil {
		return &n
	}
	return nil
}

// defaultOf is a fallback as a JSON value of its type.
func defaultOf(t reflect.Type, fallback string) any {
	switch {
	case fallback == "":
		return nil
	case t == typeDuration:
		return fallback
	case t.Kind() == reflect.Slice:
		return strings.Split(strings.Trim(fallback, "[]"), ", ")
	case t.Kind() == reflect.Bool:
		return fallback == "true"
	case t.Kind() == reflect.Int:
		return number(fallback, 0)
	}
	return fallback
}
