package openstack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"time"

	"nines/internal/health"
	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/secret"
	"nines/internal/service"
)

// SharedDirectory is a place of a service that several nodes see: the same file system mounted on all of them.
// nines does not mount it, but proves that it is the same: the first node leaves a mark, the others look
// for it. A directory with another cluster's mark is left alone.
type SharedDirectory struct {
	Service string // whose it is
	Content string // what is in it: "image". It names the mark, the step and the store in texts
	Option  string // the key of cluster.yaml: "images.directory"
	User    string // system user that writes there on controllers
	Folders []string
	Path    func(*model.Cluster) string
}

// sharedTimeout bounds the wait for the mark on the other nodes: file servers show a new file within
// their attributes' cache time, which is seconds (NFS: up to 30 for a directory).
const sharedTimeout = time.Minute

// Mark is the name of the file that tells the directory from any other.
func (d SharedDirectory) Mark() string { return ".nines-" + d.Content + "-store" }

// ActionName is the name of the step.
func (d SharedDirectory) ActionName() string { return "shared-" + d.Content + "-store" }

// Secret is what the mark is made of: all agents know it, no other cluster has it.
func (d SharedDirectory) Secret() secret.Spec {
	return secret.Spec{Name: d.Service + "/store-mark", Kind: secret.Password}
}

// ID is the step's on a node.
func (d SharedDirectory) ID(n model.Node) plan.ID {
	return plan.Make(d.Service, n.Name, "action", d.ActionName())
}

// Resources are the steps: the first controller marks the directory, the other nodes look for the mark. On controllers the
// service's packages come before, because they bring the user that owns what is in it.
func (d SharedDirectory) Resources(c *model.Cluster, nodes []model.Node, secrets secret.Source) ([]plan.Resource, error) {
	text, err := d.text(secrets)
	if err != nil {
		return nil, err
	}
	first := c.Controllers()[0]
	var out []plan.Resource
	for _, n := range nodes {
		r := plan.Resource{ID: d.ID(n), Service: d.Service, Node: n.Name,
			Action: &plan.Action{Name: d.ActionName(), Timeout: sharedTimeout, Args: map[string]string{"directory": d.Path(c), "mark": text}}}
		if n.Has(model.RoleController) {
			r.After = append(r.After, plan.Make(d.Service, n.Name, "packages", d.Service))
			r.Action.Args["user"] = d.User
		}
		if n.Name == first.Name {
			r.Action.Args["first"] = n.Name
		} else {
			r.After = append(r.After, d.ID(first))
		}
		out = append(out, r)
	}
	return out, nil
}

// text is the content of the mark: it gives nothing of the secret away.
func (d SharedDirectory) text(secrets secret.Source) (string, error) {
	text, err := secrets.Get(d.Secret().Name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16]), nil
}

// The states of a directory.
var (
	errUnmarked = errors.New("it has no mark")
	errForeign  = errors.New("it has the mark of another cluster")
)

// look compares the mark in the directory with the wanted one.
func (d SharedDirectory) look(h host.Host, directory, want string) error {
	f, err := h.ReadFile(path.Join(directory, d.Mark()))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errUnmarked
	case err != nil:
		return err
	case string(f.Content) != want+"\n":
		return errForeign
	}
	return nil
}

// Action checks the directory and makes it fit.
func (d SharedDirectory) Action() service.Action { return service.Action{Check: d.check, Run: d.run} }

// check wants the mark, and that the user may write. args: directory, mark, first (where it is made), user (none: nobody writes).
func (d SharedDirectory) check(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
	directory, user := args["directory"], args["user"]
	if err := d.look(env.Host, directory, args["mark"]); err != nil {
		return false, directory + ": " + err.Error(), nil
	}
	if user == "" {
		return true, "", nil
	}
	for _, folder := range d.Folders {
		_, err := env.Host.Run(ctx, host.Cmd{Args: []string{"test", "-w", path.Join(directory, folder)}, User: user})
		var exit *host.ExitError
		if errors.As(err, &exit) {
			return false, fmt.Sprintf("the user %s cannot write to %s", user, path.Join(directory, folder)), nil
		}
		if err != nil {
			return false, "", err
		}
	}
	return true, "", nil
}

// run makes the folders and, on the first controller, the mark; elsewhere it waits for the mark.
func (d SharedDirectory) run(ctx context.Context, env service.Env, args map[string]string) error {
	directory, user := args["directory"], args["user"]
	err := d.look(env.Host, directory, args["mark"])
	if errors.Is(err, errForeign) {
		return fmt.Errorf("%s: %w: name another directory in %s, or remove %s if nothing else uses it", directory, err, d.Option, d.Mark())
	}
	if args["first"] == "" {
		return d.await(ctx, env, args)
	}
	for _, folder := range d.Folders {
		cmd := []string{"install", "-d", "-m", "0750", "-o", user, "-g", user, path.Join(directory, folder)}
		if _, err := env.Host.Run(ctx, host.Cmd{Args: cmd}); err != nil {
			return fmt.Errorf("make the folders of the %s store (does the file server let root? else make them beforehand for the user %s): %w", d.Content, user, err)
		}
	}
	err = env.Host.WriteFile(ctx, host.File{Path: path.Join(directory, d.Mark()), Mode: 0o644, Owner: user, Group: user, Content: []byte(args["mark"] + "\n")}, nil)
	if err != nil {
		return fmt.Errorf("mark the %s store: %w", d.Content, err)
	}
	return nil
}

func (d SharedDirectory) await(ctx context.Context, env service.Env, args map[string]string) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		done, reason, err := d.check(ctx, env, args)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s on %s is not what %s has there (%s): mount the same file system on all nodes that use it: %w",
				args["directory"], env.Node.Name, env.Cluster.Controllers()[0].Name, reason, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Missing says what keeps the node from seeing the directory, as a condition without code; Text is empty while it sees it. sight
// remembers between the calls, so that a file server that hangs keeps nobody waiting.
func (d SharedDirectory) Missing(env service.Env, s *Sight) health.Condition {
	want, err := d.text(env.Secrets)
	directory := d.Path(env.Cluster)
	if err == nil {
		err = s.ask(time.Now(), func() error { return d.look(env.Host, directory, want) })
	}
	if err == nil {
		return health.Condition{}
	}
	return health.Condition{Severity: health.Warning, Text: fmt.Sprintf("%s is not the cluster's %s store: %v", directory, d.Content, err),
		Hint: "mount it ('findmnt " + directory + "', 'systemctl list-units --type=mount')"}
}

// sightAge is how often the mark is looked for, sightPatience how long a look may take: a file server that is
// gone keeps its readers waiting for ever.
const (
	sightAge      = 5 * time.Second
	sightPatience = 3 * time.Second
)

// Sight remembers how the latest look at something slow ended. One look is under way at most. The zero value is ready to use.
type Sight struct {
	mu      sync.Mutex
	begun   time.Time
	looking bool
	problem error
}

// errHangs says that a look does not end.
var errHangs = errors.New("the file system does not answer")

// ask begins a look when the last is old, and returns the latest answer.
func (s *Sight) ask(now time.Time, look func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looking {
		if now.Sub(s.begun) > sightPatience {
			return errHangs
		}
		return s.problem
	}
	if now.Sub(s.begun) >= sightAge {
		s.begun, s.looking = now, true
		go func() {
			problem := look()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.problem, s.looking = problem, false
		}()
	}
	return s.problem
}
