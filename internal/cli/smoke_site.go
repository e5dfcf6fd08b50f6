package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"nines/internal/app"
	"nines/internal/config"
	"nines/internal/lab"
	"nines/internal/progress"
	"nines/internal/smoke"
	"nines/internal/smoke/guest"
)

// clusterSmoke is the real smokeSite: the cluster the command line means.
type clusterSmoke struct {
	g       *globals
	session *app.Session
	cloud   smoke.Cloud
}

// smokeHere is newSmokeCommand's site for real clusters and labs.
func (g *globals) smokeHere() smokeSite { return &clusterSmoke{g: g} }

// Check implements smokeSite.
func (s *clusterSmoke) Check() error {
	file, err := s.g.clusterFile()
	if err != nil {
		return err
	}
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	return smoke.Possible(c)
}

// Guest implements smokeSite.
func (s *clusterSmoke) Guest(ctx context.Context, given guest.Image) (guest.Image, error) {
	if given == (guest.Image{}) {
		return guest.Ensure(ctx, "", func() {
			fmt.Fprintln(s.g.err, "Making the image of the guest from Debian packages. It is kept for the next time.")
		})
	}
	for _, path := range []string{given.Kernel, given.Ramdisk} {
		if _, err := os.Stat(path); err != nil {
			return guest.Image{}, err
		}
	}
	return given, nil
}

// Open implements smokeSite.
func (s *clusterSmoke) Open(ctx context.Context) (err error) {
	if s.session, err = s.g.open(); err != nil {
		return err
	}
	s.cloud, err = logIn(ctx, s.session)
	return err
}

// logIn logs in to the session's cloud, as the admin of its clouds.yaml.
func logIn(ctx context.Context, session *app.Session) (smoke.Cloud, error) {
	clouds := filepath.Join(filepath.Dir(session.File), "clouds.yaml")
	if _, err := os.Stat(clouds); errors.Is(err, fs.ErrNotExist) {
		return nil, &hinted{"there is no " + clouds, "'nines apply' writes it, on the machine that deployed the cluster"}
	}
	return smoke.Login(ctx, smoke.Credentials{File: clouds, Cloud: session.Cluster.Name, CA: session.Path("ca.pem")})
}

// Close implements smokeSite.
func (s *clusterSmoke) Close() {
	if s.session != nil {
		s.session.Close()
	}
}

// runner is a new run that is at work until end is called.
func (s *clusterSmoke) runner(image guest.Image, emit progress.Emit) (r *smoke.Runner, end func(), err error) {
	runs := smoke.Runs{Dir: s.session.Path("smoke")}
	id := smoke.NewID()
	if end, err = runs.Begin(id); err != nil {
		return nil, nil, err
	}
	return &smoke.Runner{ID: id, Cluster: s.session.Cluster, Cloud: s.cloud, Guest: image, Visit: smoke.HTTPVisit, Alive: runs.Alive, Emit: emit, Log: s.g.log}, end, nil
}

// Run implements smokeSite.
func (s *clusterSmoke) Run(ctx context.Context, image guest.Image, keep bool, emit progress.Emit) (smoke.Report, error) {
	r, end, err := s.runner(image, emit)
	if err != nil {
		return smoke.Report{}, err
	}
	defer end()
	return r.Run(ctx, keep), nil
}

// Clean implements smokeSite.
func (s *clusterSmoke) Clean(ctx context.Context, emit progress.Emit) (smoke.Report, error) {
	r, end, err := s.runner(guest.Image{}, emit)
	if err != nil {
		return smoke.Report{}, err
	}
	defer end()
	return r.Clean(ctx), nil
}

// Loop implements smokeSite.
func (s *clusterSmoke) Loop(ctx context.Context, image guest.Image, how smoke.Loop, emit progress.Emit) (smoke.LoopReport, error) {
	r, end, err := s.runner(image, emit)
	if err != nil {
		return smoke.LoopReport{}, err
	}
	defer end()
	return r.Loop(ctx, how), nil
}

// Inside implements smokeSite.
func (s *clusterSmoke) Inside() string {
	l, ok := labOf(s.session.File)
	switch {
	case !ok:
		return ""
	case l.Name() == lab.DefaultName:
		return "nines lab exec --host -- "
	}
	return "nines lab exec --name " + l.Name() + " --host -- "
}
