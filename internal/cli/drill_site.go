package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"nines/internal/app"
	"nines/internal/config"
	"nines/internal/drill"
	"nines/internal/lab"
	"nines/internal/progress"
	"nines/internal/smoke"
	"nines/internal/smoke/guest"
)

// clusterDrills is the real drillSite: the cluster the command line means.
type clusterDrills struct {
	g       *globals
	session *app.Session
	smoke   *clusterSmoke // makes instances for drills that need one
	guest   guest.Image
}

// drillsHere is newDrillCommand's site for real clusters and labs.
func (g *globals) drillsHere() (drillSite, error) { return &clusterDrills{g: g}, nil }

// Drills implements drillSite.
func (s *clusterDrills) Drills() ([]drill.Drill, error) {
	file, err := s.g.clusterFile()
	if err != nil {
		return nil, err
	}
	c, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	return drill.Catalogue(c, app.Services()), nil
}

// Open implements drillSite.
func (s *clusterDrills) Open(ctx context.Context, drills []drill.Drill) (err error) {
	instances := slices.ContainsFunc(drills, drill.Drill.NeedsInstance)
	s.smoke = &clusterSmoke{g: s.g}
	if instances {
		if s.guest, err = s.smoke.Guest(ctx, guest.Image{}); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(drills, func(d drill.Drill) bool { return d.Way == drill.ByClock }) {
		if err := s.fetchFakeTime(ctx); err != nil {
			return err
		}
	}
	if s.session, err = s.g.open(); err != nil || !instances {
		return err
	}
	s.smoke.session = s.session
	s.smoke.cloud, err = logIn(ctx, s.session)
	return err
}

// fetchFakeTime brings what a lab fakes a clock with, from here: the lab's network has no way out.
func (s *clusterDrills) fetchFakeTime(ctx context.Context) error {
	file, err := s.g.clusterFile()
	if err != nil {
		return err
	}
	if _, ok := labOf(file); !ok {
		return nil // there its run says that nobody can do it
	}
	return lab.FetchFakeTime(ctx)
}

// Close implements drillSite.
func (s *clusterDrills) Close() { s.session.Close() }

// Run implements drillSite.
func (s *clusterDrills) Run(ctx context.Context, d drill.Drill, seed uint64, emit progress.Emit) (drill.Report, error) {
	session := s.session
	client, err := session.Agents()
	if err != nil {
		return drill.Report{}, err
	}
	ca, err := os.ReadFile(session.Path("ca.pem"))
	if err != nil {
		return drill.Report{}, fmt.Errorf("the cluster's certificate authority: %w", err)
	}
	agents := drill.Agents{Client: client, Cluster: session.Cluster, Who: "the drill " + d.Name + " of " + whoami()}
	folder := drill.Folder{Dir: session.Path("drills")}
	r := drill.Runner{
		Cluster: session.Cluster, Injector: agents, Observer: agents, Person: agents, Emit: emit,
		Workload: func(run string, d drill.Drill) drill.Workload {
			w := &drill.Network{Cluster: session.Cluster, CA: ca, Credentials: agents, Run: run,
				APIs: drill.APIs(session.Cluster, app.Services()), Hurt: d.Service}
			if d.NeedsInstance() {
				w.Instance = func(ctx context.Context) (drill.Instance, error) { return s.instance(ctx, emit) }
			}
			return w
		},
		Ledger: folder.Ledger, Evidence: folder.Samples,
		Versions: map[string]string{"nines": Version(), "release": string(session.Cluster.Release)},
	}
	if l, ok := labOf(session.File); ok {
		r.Machines, r.Environment = labMachines{l}, "lab"
	}
	report, err := r.Run(ctx, d, seed)
	if err != nil {
		return report, err
	}
	return report, folder.Report(report)
}

// lent is an instance, and what ends the run that made it.
type lent struct {
	*smoke.Lent
	end func()
}

// Remove implements drill.Instance.
func (l lent) Remove(ctx context.Context) error {
	defer l.end()
	return l.Lent.Remove(ctx)
}

func (s *clusterDrills) instance(ctx context.Context, emit progress.Emit) (drill.Instance, error) {
	r, end, err := s.smoke.runner(s.guest, emit)
	if err != nil {
		return nil, err
	}
	l, err := r.Lend(ctx)
	if err != nil {
		end()
		return nil, err
	}
	return lent{l, end}, nil
}

// labMachines implements drill.Machines for a lab.
type labMachines struct{ lab *lab.Lab }

func (m labMachines) Cut(ctx context.Context, node string) error { return m.lab.PowerCut(ctx, node) }
func (m labMachines) On(ctx context.Context, node string) error  { return m.lab.PowerOn(ctx, node) }
func (m labMachines) Stop(ctx context.Context, node string) error {
	return m.lab.PowerStop(ctx, node)
}
func (m labMachines) Lose(_ context.Context, node, path string) error {
	return m.lab.Lose(node, path)
}

func (m labMachines) CableOut(ctx context.Context, node string) error {
	return m.lab.CableOut(ctx, node)
}
func (m labMachines) Isolate(ctx context.Context, node string) error {
	return m.lab.Isolate(ctx, node)
}
func (m labMachines) CutOneWay(ctx context.Context, from, to string) error {
	return m.lab.CutOff(ctx, from, to, true)
}
func (m labMachines) KillBMC(ctx context.Context, node string) error {
	return m.lab.SetBMC(ctx, lab.BMCDead, node)
}
func (m labMachines) Unplug(ctx context.Context, node string) error {
	return m.lab.SetBMC(ctx, lab.BMCUnplugged, node)
}
func (m labMachines) MendBMC(ctx context.Context, node string) error {
	return m.lab.SetBMC(ctx, lab.BMCOK, node)
}
func (m labMachines) Claim(ctx context.Context) error                { return m.lab.Claim(ctx, "") }
func (m labMachines) Mend(ctx context.Context) error                 { return m.lab.Mend(ctx) }
func (m labMachines) CableIn(ctx context.Context, node string) error { return m.lab.CableIn(ctx, node) }

// The disk of a machine is filled from fillLeft at fillRate: much faster than a log that runs away, slowly enough that somebody who looks once
// a second sees it coming.
const (
	fillLeft = 6 << 30
	fillRate = 200 << 20 // bytes a second
)

func (m labMachines) Fill(ctx context.Context, node string) error {
	return m.lab.FillDisk(ctx, node, fillLeft, fillRate)
}
func (m labMachines) Free(_ context.Context, node string) error { return m.lab.FreeDisk(node) }
func (m labMachines) Shell(ctx context.Context, node, script string) (string, error) {
	return m.lab.Shell(ctx, node, script)
}

func (m labMachines) SkewKeystone(ctx context.Context, node string, ahead time.Duration) error {
	return m.lab.SkewKeystone(ctx, node, ahead)
}

func (m labMachines) RightKeystone(ctx context.Context, node string) error {
	return m.lab.RightKeystone(ctx, node)
}
