package internal_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"nines/internal/config"
)

const (
	operations = "../docs/operations.md"
	guide      = "../docs/guide.md"
)

// TestKeysAreDocumented compares the keys of cluster.yaml and their defaults with the tables of docs/guide.md.
func TestKeysAreDocumented(t *testing.T) {
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := config.Schema()
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	if err := json.Unmarshal(raw, &root); err != nil {
		t.Fatal(err)
	}
	networks := regexp.MustCompile(`\b(networks|addresses)\.(management|external|tenant|storage)\b`)
	keys := 0
	root.leaves("", func(key string, fallback any) {
		keys++
		row := "| `" + networks.ReplaceAllString(key, "$1.NETWORK") + "` |"
		switch fallback.(type) {
		case string, bool, float64:
			row += fmt.Sprintf(" `%v` |", fallback)
		}
		if !strings.Contains(string(text), "\n"+row) {
			t.Errorf("%s: no table has a row that begins with %q", guide, row)
		}
	})
	if keys < 30 {
		t.Fatalf("only %d keys found in the schema", keys)
	}
}

// schema is the part of a JSON Schema that the test reads.
type schema struct {
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	Default    any                `json:"default"`
}

// leaves calls f with every key that has no keys below it.
func (s *schema) leaves(path string, f func(key string, fallback any)) {
	if s.Items != nil && s.Items.Properties != nil {
		s.Items.leaves(path+"[]", f)
		return
	}
	if s.Properties == nil {
		f(path, s.Default)
		return
	}
	for name, sub := range s.Properties {
		sub.leaves(strings.TrimPrefix(path+"."+name, "."), f)
	}
}

// TestConditionsAreDocumented compares the codes of conditions in the source with the
// headings of docs/operations.md, both ways: a code without help is of no use at
// night, and help for a code that does not exist misleads.
func TestConditionsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(operations)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^### `([a-z0-9-]+)`").FindAllStringSubmatch(string(text), -1) {
		if documented[m[1]] {
			t.Errorf("%s: %s is documented twice", operations, m[1])
		}
		documented[m[1]] = true
	}
	codes := conditionCodes(t)
	if len(codes) < 30 {
		t.Fatalf("only %d codes found in the source: this test does not see how conditions are made any more", len(codes))
	}
	for code, where := range codes {
		if !documented[code] {
			t.Errorf("%s: condition %q is missing in %s: add a heading \"### `%s`\" with what it means, what users feel and what to do", where, code, operations, code)
		}
	}
	for code := range documented {
		if codes[code] == "" {
			t.Errorf("%s: no condition %q is made anywhere in internal/", operations, code)
		}
	}
}

// conditionCodes finds the codes of all health.Conditions in the source: code -> place.
func conditionCodes(t *testing.T) map[string]string {
	t.Helper()
	codes := map[string]string{}
	byConstant := map[string]bool{}             // folders whose codes are constants
	constants := map[string]map[string]string{} // folder -> code -> place
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder := filepath.Dir(path)
		if constants[folder] == nil {
			constants[folder] = map[string]string{}
		}
		found := func(e ast.Expr) {
			if code, ok := text(e); ok {
				codes[code] = set.Position(e.Pos()).String()
			} else {
				byConstant[folder] = true
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				eachCondition(n, found)
			case *ast.AssignStmt: // c.Code, c.Severity = "galera-no-service", health.Critical
				for i, left := range n.Lhs {
					if s, ok := left.(*ast.SelectorExpr); ok && s.Sel.Name == "Code" && len(n.Rhs) == len(n.Lhs) {
						if code, ok := text(n.Rhs[i]); ok {
							codes[code] = set.Position(n.Pos()).String()
						}
					}
				}
			case *ast.ValueSpec: // CodeCores = "check-cores"
				for i, name := range n.Names {
					if strings.HasPrefix(name.Name, "Code") && i < len(n.Values) {
						if code, ok := text(n.Values[i]); ok {
							constants[folder][code] = set.Position(name.Pos()).String()
						}
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for folder := range byConstant {
		for code, where := range constants[folder] {
			codes[code] = where
		}
	}
	return codes
}

// eachCondition calls found with the Code of a health.Condition literal, and of those in a list of them.
func eachCondition(lit *ast.CompositeLit, found func(ast.Expr)) {
	switch typ := lit.Type.(type) {
	case *ast.SelectorExpr, *ast.Ident:
		if isCondition(typ) {
			codeOf(lit, found)
		}
	case *ast.ArrayType:
		if !isCondition(typ.Elt) {
			return
		}
		for _, e := range lit.Elts {
			if inner, ok := e.(*ast.CompositeLit); ok && inner.Type == nil {
				codeOf(inner, found)
			}
		}
	}
}

func codeOf(lit *ast.CompositeLit, found func(ast.Expr)) {
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := kv.Key.(*ast.Ident); ok && key.Name == "Code" {
				found(kv.Value)
			}
		}
	}
}

func isCondition(e ast.Expr) bool {
	if own, ok := e.(*ast.Ident); ok {
		return own.Name == "Condition" // in package health itself
	}
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "Condition" {
		return false
	}
	pkg, ok := s.X.(*ast.Ident)
	return ok && pkg.Name == "health"
}

// text is the value of a string literal.
func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}
