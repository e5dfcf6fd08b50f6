package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// allowed says what each package may import of nines, and why. A package that
// is not listed fails the test: adding one means deciding where it stands.
var allowed = map[string]struct {
	imports string
	why     string
}{
	"model":                     {"", "the nouns stand alone"},
	"graph":                     {"", "a graph of strings knows nothing else"},
	"progress":                  {"", "events are values"},
	"health":                    {"model", "pure vocabulary"},
	"disk":                      {"model health", "pure: measurements in, conditions and a decision out"},
	"plan":                      {"model graph health", "pure: desired and observed in, ops out"},
	"config":                    {"model", "text in, model out"},
	"check":                     {"model health", "pure rules"},
	"secret":                    {"model", "a leaf: what it hides has no meaning to it"},
	"host":                      {"model", "the operating system does not know services"},
	"host/hosttest":             {"host model", "a fake of the seam"},
	"store":                     {"model", "state has no meaning to the store"},
	"store/memstore":            {"store", "implements the seam"},
	"store/storetest":           {"store", "tests the seam"},
	"etcd":                      {"store model", "the only importer of etcd"},
	"ssh":                       {"model", "a transport"},
	"exclusive":                 {"store", "runs a program under a lease; it knows neither"},
	"service":                   {"model plan health host secret", "the contract"},
	"ovsdb":                     {"host", "a protocol: it knows no service"},
	"ovsdb/ovsdbtest":           {"ovsdb", "a fake of the seam"},
	"service/*":                 {"service openstack ovsdb model plan health host secret", "services never import each other; they meet through the model"},
	"service/galera":            {"service service/galera/recovery openstack model plan health host secret", "the decision about a recovery is a pure package of its own"},
	"service/galera/recovery":   {"service", "pure: evidence in, decision out"},
	"service/rabbitmq":          {"service service/rabbitmq/recovery model plan health host secret", "the decision about a recovery is a pure package of its own"},
	"service/rabbitmq/recovery": {"service", "pure: evidence in, decision out"},
	"supervise":                 {"", "pure: what agents saw in, decisions out"},
	"heal":                      {"service model store", "the leader's side of a recovery"},
	"openstack":                 {"service model plan health host secret", "what the services of OpenStack share; it names none of them but Keystone"},
	"service/servicetest":       {"service model plan secret", "tests the seam: it knows no service"},
	"measure":                   {"model check", "facts for the rules"},
	"fence":                     {"model", "a machine's BMC; it decides nothing"},
	"arp":                       {"", "a protocol: it knows addresses only"},
	"stale":                     {"host", "connections and addresses; it knows no service"},
	"node":                      {"service model plan health host secret", "the node side of a plan"},
	"bootstrap":                 {"model secret ssh progress", "before there are agents there is only SSH"},
	"converge":                  {"service model plan health store secret graph progress", "the leader's side of a plan"},
	"api":                       {"model fence plan health service converge etcd check heal supervise disk store", "words on the wire"},
	"agent":                     {"api arp fence model plan health service node converge heal supervise host stale store etcd secret progress check disk", "one node's process"},
	"drill":                     {"model health service plan progress api converge supervise", "what clients feel"},
	"smoke":                     {"model progress smoke/guest", "a user of the cloud: it sees endpoints, and nothing of how they are kept up"},
	"smoke/guest":               {"", "packages in, a bootable image out"},
	"render":                    {"model plan service secret", "files without touching anything"},
	"lab":                       {"arp model config progress", "where machines come from; nothing below knows it"},
	"app":                       {"*", "the composition root"},
	"cli":                       {"*", "arguments and views"},
	"cli/*":                     {"api converge heal progress model plan health service/galera/recovery service/rabbitmq/recovery", "views"},
}

const module = "nines/internal/"

func TestImportsPointDown(t *testing.T) {
	for pkg, imports := range internalImports(t) {
		rule, ok := allowed[pkg]
		if !ok {
			rule, ok = allowed[path.Dir(pkg)+"/*"]
		}
		if !ok {
			t.Errorf("internal/%s has no import rule: add it to the table with a reason", pkg)
			continue
		}
		if rule.imports == "*" {
			continue
		}
		for _, imp := range imports {
			if imp != pkg && !strings.Contains(" "+rule.imports+" ", " "+imp+" ") {
				t.Errorf("internal/%s imports internal/%s; it may import only [%s]: %s", pkg, imp, rule.imports, rule.why)
			}
		}
	}
}

// outside says which libraries only one package may import.
var outside = map[string]string{
	"go.etcd.io/":                    "etcd",
	"github.com/coreos/go-systemd":   "host agent app",
	"github.com/spf13/cobra":         "cli",
	"github.com/charmbracelet/":      "cli/live",
	"github.com/goccy/go-yaml":       "config lab",
	"golang.org/x/crypto/ssh":        "ssh lab",
	"filippo.io/age":                 "secret",
	"github.com/rabbitmq/amqp091-go": "drill",
	"github.com/go-sql-driver/mysql": "service/galera openstack drill",
	"github.com/gophercloud/":        "openstack smoke",
	"github.com/vishvananda/netlink": "lab service/keepalived agent host stale",
	"golang.org/x/net/icmp":          "stale",
	"github.com/stmcginnis/gofish":   "fence",
	"github.com/bougou/go-ipmi":      "fence",
}

func TestLibrariesHaveOneHome(t *testing.T) {
	eachFile(t, func(pkg string, imports []string) {
		for _, imp := range imports {
			for lib, homes := range outside {
				if strings.HasPrefix(imp, lib) && !strings.Contains(" "+homes+" ", " "+pkg+" ") {
					t.Errorf("internal/%s imports %s, whose home is internal/{%s}", pkg, imp, homes)
				}
			}
		}
	})
}

func TestPurePackagesStayPure(t *testing.T) {
	banned := []string{"os", "os/exec", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "io/ioutil", "syscall"}
	eachFile(t, func(pkg string, imports []string) {
		if pkg != "model" && pkg != "plan" && pkg != "health" && pkg != "check" && pkg != "graph" && pkg != "supervise" && pkg != "service/galera/recovery" && pkg != "service/rabbitmq/recovery" {
			return
		}
		for _, imp := range imports {
			for _, b := range banned {
				if imp == b {
					t.Errorf("internal/%s imports %s: it does no I/O and draws no randomness", pkg, imp)
				}
			}
		}
	})
}

func internalImports(t *testing.T) map[string][]string {
	out := map[string][]string{}
	eachFile(t, func(pkg string, imports []string) {
		for _, imp := range imports {
			if rest, ok := strings.CutPrefix(imp, module); ok {
				out[pkg] = append(out[pkg], rest)
			} else if out[pkg] == nil {
				out[pkg] = []string{}
			}
		}
	})
	return out
}

// eachFile calls f with the package folder and the imports of each non-test Go file.
func eachFile(t *testing.T, f func(pkg string, imports []string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		src, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		var imports []string
		for _, spec := range src.Imports {
			s, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, s)
		}
		f(filepath.ToSlash(filepath.Dir(p)), imports)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
