// Package galera runs MariaDB with Galera on the controllers: one database, a
// copy on each, every commit on all of them before it is acknowledged.
//
// # Starting
//
// A Galera cluster is founded ("bootstrapped") once in its life. Founding a
// second one beside or instead of the first loses data, so a member is started
// with permission to found only if all of this is shown:
//
//   - it is the first controller (the planner passes Args["bootstrap"]);
//   - InnoDB's own record (mariadbd --wsrep-recover) and grastate.dat both say
//     that this data directory never belonged to a cluster;
//   - this node never founded one: there is no file BootstrappedFile;
//   - every other controller refuses connections on the group port: its machine
//     is up and no server runs there. No answer at all is not good enough.
//
// The permission is a mark (bootstrapMark) that the unit takes away before
// the server starts, so it lasts for one start, whoever dies in between. A restart
// by systemd or at boot never founds.
//
// Between the first start and the moment when all members have joined once (FormedFile), no
// service has a database: what stands in the first controller's directory was made by nines
// alone. If that machine dies in this window, or the first that joins it does and leaves it without
// a majority (one of two), it founds the cluster again, provided that its directory is the one it
// founded (BootstrappedFile) and that no other member has got as far as answering SQL. grastate.dat, which forbids it, and the saved view are moved to
// evidenceDir first, and servers that still wait on other controllers for a state from the attempt before are ended ("release").
//
// A member whose data directory belongs to a cluster is started only if no
// peer runs (then Galera's pc.recovery decides) or a running peer has the same
// cluster UUID. Otherwise the state transfer would overwrite its data.
//
// A member whose machine went down while it was in a Primary without a majority of the members does not
// start by itself at all (asideFile): it may have been founded by hand, and others may have gone on since.
//
// # Recovery
//
// A cluster whose members are all down, or alive without a Primary, is recovered by the leader (service.Healer, heal.go): the decision who
// goes first is the package recovery's, and a founding is a step of an epoch. Start never does it.
//
// # What it must never do
//
// Delete or edit grastate.dat of a cluster that was formed, but in a step of a recovery, which copies it first; found a cluster on a guess;
// restart a member of a formed cluster that is alive but non-Primary while it may have the latest data; put a password into a statement, an argument list or a log
// (accounts get the hash of their password).
package galera

import (
	"context"
	"sync/atomic"
	"syscall"
	"time"

	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service"
)

const (
	unitName   = "mariadb.service"
	socketPath = "/run/mysqld/mysqld.sock"
	dataDir    = "/var/lib/mysql"
	// grastateFile is where Galera saves which cluster the data belongs to, and how far.
	grastateFile = dataDir + "/grastate.dat"
	// sstUser sends state transfers: the operating system's user mysql, on the local socket only.
	sstUser = "nines_sst"

	// bootstrapMark permits one start to found a cluster; bootstrapEnv hands the permission to the server.
	// They are where the server itself cannot write.
	bootstrapMark = model.PathRun + "/galera-bootstrap"
	bootstrapEnv  = model.PathRun + "/galera-new-cluster"
	// viewFile is the group that the member was in when it ran last (Galera's pc.recovery).
	viewFile = dataDir + "/gvwstate.dat"
	// asideFile is one that was not the view of a majority: the first start after a boot takes it out of Galera's reach, and while it is
	// there only a recovery, or a founding, starts the member. startedMark says that this start has been, until the machine's next boot.
	asideFile   = viewFile + ".aside"
	startedMark = model.PathRun + "/galera-started"
	// transferDir is there from before a state transfer clears the data directory until all of it is in place.
	transferDir = dataDir + "/.sst"

	// BootstrappedFile says that this node founds the cluster ("founding"), then which one
	// it has founded (its UUID). It is never removed.
	BootstrappedFile = model.PathState + "/galera-bootstrapped"
	founding         = "founding"
	// FormedFile, on the first controller, says that all members have been Synced once.
	FormedFile = model.PathState + "/galera-formed"
	// evidenceDir keeps what was moved aside.
	evidenceDir = model.PathState + "/galera-evidence"
)

// ProbeDatabase is the schema, and the user, that drills write to. ProbeSecret
// names its password.
const (
	ProbeDatabase = "nines_probe"
	ProbeSecret   = "galera/probe"
)

// Service is MariaDB with Galera.
type Service struct {
	databases func(*model.Cluster) []service.Database
	// server opens the local server; members reaches the others. Tests replace them.
	server  localServer
	members peers
	// shown asks the local server for its certificate.
	shown func(context.Context, service.Env) ([]byte, error)
	// progress tells a member that stands still from one that has nothing to do.
	progress progress
	pauses   pauses
	// flushed has what Galera saved of the present view on the disk.
	flushed flushed
	// yields: this member leaves it to others to suspect anybody.
	yields atomic.Bool
	// healing does the steps of a recovery on this node.
	healing service.Steps
}

// New returns the service. databases lists the schemas other services need.
func New(databases func(*model.Cluster) []service.Database) *Service {
	return &Service{databases: databases, server: openLocal(), members: network{}, shown: shown}
}

// Name is "galera".
func (*Service) Name() string { return "galera" }

// Secrets lists the password of the drills' user. State transfers need none.
func (*Service) Secrets(*model.Cluster) []secret.Spec {
	return []secret.Spec{{Name: ProbeSecret, Kind: secret.Password}}
}

// Listeners publishes MariaDB on the VIP. One member gets all writes: writers on two
// members at once meet certification conflicts, which clients see as deadlocks.
func (*Service) Listeners(*model.Cluster) []service.Listener {
	return []service.Listener{{
		Name: "mariadb", Port: model.PortMariaDB, BackendPort: model.PortMariaDB,
		Health: "galera", SingleWriter: true,
		// Connection pools keep idle connections for long; keepalive finds the dead ones.
		IdleTimeout: time.Hour,
	}}
}

// Faults are what drills may do to a member.
func (*Service) Faults(*model.Cluster) []service.Fault {
	return []service.Fault{
		{Name: "kill", Unit: unitName, Signal: int(syscall.SIGKILL)},
		{Name: "freeze", Unit: unitName, Signal: int(syscall.SIGSTOP), Heal: int(syscall.SIGCONT), Mended: true},
	}
}

// Actions are the steps only this service knows.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		"start":    {Check: s.synced, Run: s.start},
		"release":  {Check: s.notOrphaned, Run: s.release},
		"synced":   {Check: s.synced, Run: s.awaitSynced},
		"formed":   {Check: isFormed, Run: formed},
		"accounts": {Check: s.accountsThere, Run: s.createAccounts},
		"database": {Check: s.databaseThere, Run: s.createDatabase},

		"widen-failure-detector":  {Check: s.detectorWide, Run: s.widenDetector},
		"set-failure-detector":    {Check: s.detectorSet, Run: s.setDetector},
		service.ActionCertificate: service.Certificate(s.shown, s.loadCertificate),
	}
}

// allDatabases is the probe's schema and what the other services asked for.
func (s *Service) allDatabases(c *model.Cluster) []service.Database {
	out := []service.Database{{Name: ProbeDatabase, Secret: ProbeSecret}}
	if s.databases != nil {
		out = append(out, s.databases(c)...)
	}
	return out
}
