package config

import (
	"encoding"
	"fmt"
	"reflect"
	"time"

	"github.com/goccy/go-yaml"

	"nines/internal/model"
)

// Marshal writes a Cluster as a cluster.yaml with every value written out and no
// comments. Parse reads it back as the same Cluster.
func Marshal(c *model.Cluster) ([]byte, error) {
	out, err := yaml.MarshalWithOptions(plain(reflect.ValueOf(*c), ""), yaml.Indent(2), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("write cluster.yaml: %w", err)
	}
	return out, nil
}

// plain turns a value of the model into what the YAML library writes in order.
func plain(v reflect.Value, pattern string) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		if err != nil {
			return "" // netip's types do not fail
		}
		return string(text)
	}
	switch v.Kind() {
	case reflect.Struct:
		var out yaml.MapSlice
		for _, m := range members(v.Type(), pattern) {
			sub, f := join(pattern, m.key), v.Field(m.index)
			if f.Kind() == reflect.String && f.Len() == 0 || f.Kind() == reflect.Struct && f.IsZero() {
				continue
			}
			out = append(out, yaml.MapItem{Key: m.key, Value: plain(f, sub)})
		}
		return out
	case reflect.Map:
		out := yaml.MapSlice{}
		for _, name := range model.NetworkNames {
			if e := v.MapIndex(reflect.ValueOf(name)); e.IsValid() {
				out = append(out, yaml.MapItem{Key: string(name), Value: plain(e, join(pattern, "*"))})
			}
		}
		return out
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range v.Len() {
			out[i] = plain(v.Index(i), pattern+"[]")
		}
		return out
	case reflect.Int:
		return v.Int()
	case reflect.Bool:
		return v.Bool()
	}
	return v.String()
}
