package config

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nines/internal/model"
)

// keysOf returns every path of the model that cluster.yaml accepts.
func keysOf(t reflect.Type, pattern string, out map[string]reflect.Type) {
	if pattern != "" {
		out[pattern] = t
	}
	switch {
	case t == typePrefix || t == typeAddr:
	case t.Kind() == reflect.Struct:
		for _, m := range members(t, pattern) {
			keysOf(t.Field(m.index).Type, join(pattern, m.key), out)
		}
	case t.Kind() == reflect.Map:
		keysOf(t.Elem(), join(pattern, "*"), out)
	case t.Kind() == reflect.Slice:
		keysOf(t.Elem(), pattern+"[]", out)
	}
}

func TestTableMatchesTheModel(t *testing.T) {
	keys := map[string]reflect.Type{}
	keysOf(reflect.TypeFor[model.Cluster](), "", keys)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(keys)), slices.Sorted(maps.Keys(fields))); diff != "" {
		t.Fatalf("the model's keys and the table differ:\n%s", diff)
	}
	for path, f := range fields {
		typ := keys[path]
		if f.doc == "" || !strings.HasSuffix(f.doc, ".") {
			t.Errorf("%s: its documentation is no sentence", path)
		}
		if _, err := regexp.Compile(f.pattern); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if (f.pattern == "") != (f.means == "") {
			t.Errorf("%s: a pattern needs words", path)
		}
		for _, b := range []string{f.min, f.max, f.step} {
			if b == "" {
				continue
			}
			if _, err := time.ParseDuration(b); typ == typeDuration && err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if typ.Kind() == reflect.Int && bound(b) == nil {
				t.Errorf("%s: bound %q", path, b)
			}
		}
		if f.fallback != "" {
			if err := fallback(reflect.New(typ).Elem(), f); err != nil {
				t.Errorf("%s: its default does not fit: %v", path, err)
			}
		}
	}
}

func TestSchemaHasTheSameKeys(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	var walk func(s *schema, path string)
	walk = func(s *schema, path string) {
		if path != "" {
			got[path] = true
		}
		for k, sub := range s.Properties {
			if slices.Contains(words(model.NetworkNames), k) && (path == "networks" || strings.HasSuffix(path, ".addresses")) {
				k = "*"
			}
			walk(sub, join(path, k))
		}
		if s.Items != nil {
			walk(s.Items, path+"[]")
		}
	}
	walk(&s, "")
	if diff := cmp.Diff(slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Error(diff)
	}
}

func TestRequiresNamesServices(t *testing.T) {
	for s, needs := range requires {
		for _, n := range append(needs, s) {
			if n != vipEngine && !slices.Contains(model.KnownServices, n) {
				t.Errorf("requires names the unknown service %s", n)
			}
		}
	}
}

func TestSuggest(t *testing.T) {
	words := []string{"address", "advert", "engine", "network", "router_id"}
	for word, want := range map[string]string{"adress": "address", "routerID": "router_id", "router-id": "router_id", "Engine": "engine", "colour": "", "": ""} {
		if got := suggest(word, words); got != want {
			t.Errorf("suggest(%q) = %q, want %q", word, got, want)
		}
	}
}
