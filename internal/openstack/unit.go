package openstack

import (
	"fmt"
	"strings"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
)

// WSGI is a Python application that answers HTTP under uWSGI.
type WSGI struct {
	Name        string // of the processes; "placement-api"
	Unit        string // "placement-api.service"
	Description string
	Manual      string // page of the manual, "placement-manage(1)"
	User        string // system user and group
	Home        string // working directory
	Script      string // file that holds "application"
	// Imports are the modules of which most of the application consists, imported once for all processes (ADR 25). They must open nothing and start
	// no thread: whatever is open at the fork is shared.
	Imports    []string
	Ini        string // path of uWSGI's configuration
	Port       int
	PublicPort int // on the VIP; 0: the same
	// Static are folders that are served as they are, without the application, by the path of their URL.
	Static map[string]string
	// Health is the path that answers without a token and without asking another service: "/healthcheck".
	Health    string
	Processes int // never fewer than two, or a hanging request keeps the health check waiting
	Threads   int
	// Streams: bodies are passed on while they come and may take hours; no request is ended for its age.
	Streams bool
	// First: it gets processor time before the other APIs.
	First bool
	// Messaging: the application uses the broker.
	Messaging bool
	// Reads are the files of the node's configuration that it reads: it is restarted when one of them changes. nil: all.
	Reads []string
	// Env are more variables of its environment, NAME=VALUE.
	Env []string
	// Options are more lines of uWSGI's configuration, "start-time = %t".
	Options []string
}

// Files are uWSGI's configuration and the systemd unit, for one node. mount is a directory whose file
// system must be there before the application starts; empty: none.
func (w WSGI) Files(c *model.Cluster, n model.Node, mount string) ([]plan.File, error) {
	ini, err := Render(templates, "uwsgi.ini.tmpl", struct {
		WSGI
		Bind, Cert, Key       string
		State, Loading, Ready string
	}{w.atLeast(), HostPort(n.Address(), w.Port), model.PathCert, model.PathKey, stateFile(w.Unit), loading, ready})
	if err != nil {
		return nil, err
	}
	unit, err := Render(templates, "api.service.tmpl", struct {
		WSGI
		Mount, Await                   string
		RuntimeDirectory, State, Ready string
	}{w, mount, w.await(c, n), runtimeDirectory(w.Unit), stateFile(w.Unit), ready})
	if err != nil {
		return nil, err
	}
	return []plan.File{rootFile(w.Ini, ini), rootFile(unitPath(w.Unit), unit)}, nil
}

// The words of State.
const (
	loading = "loading"
	ready   = "ready"
)

// runtimeDirectory is made by systemd below /run, for as long as the unit runs.
func runtimeDirectory(unit string) string { return "nines-" + strings.TrimSuffix(unit, ".service") }

// stateFile is where uWSGI says whether anybody takes requests yet.
func stateFile(unit string) string { return "/run/" + runtimeDirectory(unit) + "/state" }

// Loading reports whether an API's application is being loaded. Its port is open long before anybody answers, and whoever asks there waits in a queue
// that is worked off in the end, though the askers are gone: on machines that were busy booting that took minutes.
func Loading(h host.Host, unit string) bool {
	f, err := h.ReadFile(stateFile(unit))
	return err == nil && strings.TrimSpace(string(f.Content)) == loading
}

// await is what it waits for before it starts. Whoever is first is ready when the database is.
func (w WSGI) await(c *model.Cluster, n model.Node) string {
	if w.First {
		return ""
	}
	return await(c, n, w.Messaging)
}

// await waits until a server of the database greets at the VIP, and the node's own broker takes connections if that is needed too, 80 s at most in all.
// HAProxy takes connections for a database that is not there, too, and ends them.
func await(c *model.Cluster, n model.Node, broker bool) string {
	all := fmt.Sprintf("read -t 2 -r -n 1 </dev/tcp/%s/%d", c.VIP.Address.Addr(), model.PortMariaDB)
	if broker {
		all += fmt.Sprintf(" && : </dev/tcp/%s/%d", n.Address(), model.PortAMQP)
	}
	return fmt.Sprintf("/usr/bin/timeout 80 /bin/bash -c 'until %s; do sleep 0.5; done 2>/dev/null'", all)
}

func (w WSGI) atLeast() WSGI {
	w.Processes, w.Threads = max(w.Processes, 2), max(w.Threads, 1)
	return w
}

// Daemon is a process of OpenStack that answers no HTTP: a scheduler, a conductor, an agent.
type Daemon struct {
	Role        model.Role // of the nodes it runs on; empty: all
	Unit        string     // "nova-scheduler.service"
	Description string
	Manual      string   // page of the manual
	User        string   // system user and group
	Command     []string // program and arguments
	// Root: it becomes root by sudo, and mounts what other processes of the node use. No sandbox.
	Root bool
	// In says in which clusters it runs; nil: in all that run the service.
	In func(*model.Cluster) bool
	// Reads are the files of the node's configuration that it reads: it is restarted when one of them changes. nil: all.
	Reads []string
	// Leaves: the programs that it has started go on when it is stopped or restarted.
	Leaves bool
	// Reports is the name under which it reports to the table of Description.Reports; empty: it does not.
	Reports string
	// ReportsAs is the host that it reports, the same on whichever node it runs: one report for the cluster. Empty: the node's name.
	ReportsAs string
	// Uses are units of the node that are started before it.
	Uses []string
	// Prepare is a command that root runs before each start; empty: none.
	Prepare []string
	// Exclusive: one node at a time runs it, the others stand by.
	Exclusive bool
	// Needs is a file without which a node does not stand by; empty: none.
	Needs string
}

// on reports whether the daemon runs on the node.
func (d Daemon) on(n model.Node) bool { return d.Role == "" || n.Has(d.Role) }

// behind reports whether it works behind the APIs of a controller, and nothing that it starts or that others use of it is in a hurry.
func (d Daemon) behind() bool { return d.Role == model.RoleController && len(d.Uses) == 0 }

// daemons are those that run in the cluster.
func (s *Service) daemons(c *model.Cluster) []Daemon {
	var out []Daemon
	for _, d := range s.Desc.Daemons {
		if d.In == nil || d.In(c) {
			out = append(out, d)
		}
	}
	return out
}

// command is the command line of the unit on a node.
func (d Daemon) command(c *model.Cluster, n model.Node) string {
	args := d.Command
	if d.Exclusive {
		args = []string{model.PathBinary, "exclusive", "--lease", strings.TrimSuffix(d.Unit, ".service"), "--holder", n.Name}
		for _, m := range c.Controllers() {
			args = append(args, "--member", HostPort(m.Address(), model.PortEtcdClient))
		}
		if d.Needs != "" {
			args = append(args, "--needs", d.Needs)
		}
		args = append(append(args, "--"), d.Command...)
	}
	return strings.Join(args, " ")
}

// await is what it waits for before it starts. On computes nothing uses the database.
func (d Daemon) await(c *model.Cluster, n model.Node, broker bool) string {
	if d.Role != model.RoleController {
		return ""
	}
	return await(c, n, broker)
}

// File is the systemd unit on a node. broker: its service uses the broker.
func (d Daemon) File(c *model.Cluster, n model.Node, broker bool) (plan.File, error) {
	unit, err := Render(templates, "daemon.service.tmpl", struct {
		Daemon
		Behind                        bool
		Command, Uses, Prepare, Await string
	}{d, d.behind(), d.command(c, n), strings.Join(d.Uses, " "), strings.Join(d.Prepare, " "), d.await(c, n, broker)})
	if err != nil {
		return plan.File{}, fmt.Errorf("%s: %w", d.Unit, err)
	}
	return rootFile(unitPath(d.Unit), unit), nil
}

func unitPath(unit string) string { return "/etc/systemd/system/" + unit }

func rootFile(path string, content []byte) plan.File {
	return plan.File{Path: path, Mode: 0o644, Owner: "root", Group: "root", Content: content}
}

// Faults are what a drill may do to each of the units.
func Faults(units ...string) []service.Fault {
	const sigkill, sigstop, sigcont = 9, 19, 18
	var out []service.Fault
	for _, u := range units {
		out = append(out, service.Fault{Name: "kill", Unit: u, Signal: sigkill},
			service.Fault{Name: "freeze", Unit: u, Signal: sigstop, Heal: sigcont, Mended: true})
	}
	return out
}
