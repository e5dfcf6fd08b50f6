package app

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"nines/internal/check"
	"nines/internal/health"
	"nines/internal/measure"
	"nines/internal/model"
	"nines/internal/progress"
	"nines/internal/ssh"
)

// measureOn is where this executable is put on a node for the time of a measurement.
const measureOn = "/run/nines-measure"

// Check measures every node over SSH, agents or not, and judges what was found. It leaves nothing on
// the nodes.
func (s *Session) Check(ctx context.Context, emit progress.Emit) ([]check.Measured, []health.Condition, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("check: %w", err)
	}
	sum, err := fileHash(path)
	if err != nil {
		return nil, nil, fmt.Errorf("check: %w", err)
	}
	binary, err := compress(path)
	if err != nil {
		return nil, nil, fmt.Errorf("check: %w", err)
	}
	id, _ := os.ReadFile(s.Path("cluster-id")) // none yet: the nodes must belong to no cluster
	out := make([]check.Measured, len(s.Cluster.Nodes))
	var wg sync.WaitGroup
	for i, n := range s.Cluster.Nodes {
		wg.Go(func() {
			_ = progress.Step(emit, "check/"+n.Name, n.Name+": measure", func() error { // Rules says what failed
				m, err := s.measure(ctx, n, upload{binary, sum}, strings.TrimSpace(string(id)))
				if err != nil {
					m = check.Measured{Node: n.Name, Failed: err.Error()}
					var h interface{ Hint() string }
					if errors.As(err, &h) {
						m.Hint = h.Hint()
					}
				}
				out[i] = m
				return err
			})
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	return out, check.Rules(s.Cluster, out), nil
}

func compress(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(z, f); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// upload is an executable on its way: compressed, and the hash it must arrive with.
type upload struct {
	gzipped []byte
	sha256  string
}

// measure runs this executable on the node for a moment.
func (s *Session) measure(ctx context.Context, n model.Node, u upload, clusterID string) (check.Measured, error) {
	c := s.Cluster
	remote, err := ssh.Dial(ctx, ssh.Config{Addr: net.JoinHostPort(n.Address().String(), strconv.Itoa(c.SSH.Port)), Name: n.Name,
		User: c.SSH.User, Identity: c.SSH.Identity, KnownHosts: c.SSH.KnownHosts})
	if err != nil {
		return check.Measured{}, err
	}
	defer remote.Close()
	if err := remote.BecomeRoot(ctx); err != nil {
		return check.Measured{}, err
	}
	if err := remote.Upload(ctx, ssh.File{Path: measureOn, Mode: 0o700, Decompress: "gzip -dc", SHA256: u.sha256}, bytes.NewReader(u.gzipped)); err != nil {
		return check.Measured{}, err
	}
	request, err := json.Marshal(measure.For(c, n, clusterID))
	if err != nil {
		return check.Measured{}, err
	}
	out, err := remote.Run(ctx, measureOn+" measure; code=$?; rm -f "+measureOn+"; exit $code", bytes.NewReader(request))
	if err != nil {
		return check.Measured{}, err
	}
	arrived := time.Now().Add(-remote.RTT() / 2)
	var reply measure.Reply
	if err := json.Unmarshal(out.Stdout, &reply); err != nil {
		return check.Measured{}, fmt.Errorf("measurement of %s: %w", n.Name, err)
	}
	reply.ClockOffset, reply.ClockMeasured = reply.Now.Sub(arrived), true
	return reply.Measured, nil
}
