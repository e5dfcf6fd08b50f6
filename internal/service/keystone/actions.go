package keystone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"nines/internal/host"
	"nines/internal/openstack"
	"nines/internal/service"
)

// The actions of the service.
const (
	actionKeys      = "fernet-ring"
	actionBootstrap = "bootstrap"
	actionToken     = "issue-token"
	actionServes    = "serves"
)

// Actions implements service.Actor.
func (s *Service) Actions() map[string]service.Action {
	return map[string]service.Action{
		actionKeys:      {Check: checkKeys, Run: runKeys},
		actionBootstrap: {Check: s.checkBootstrap, Run: s.runBootstrap},
		actionToken:     {Check: s.checkToken, Run: s.runToken},
		actionServes:    {Check: s.checkServes},

		openstack.ActionSchema:    openstack.SchemaAction([]openstack.Schema{schema}, SecretDatabase),
		service.ActionCertificate: service.Certificate(shown, loadCertificate),
	}
}

// checkKeys compares a key repository with the ring. args: dir, secret, ring (mark of the wanted ring).
func checkKeys(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
	ring, err := wantedRing(env, args)
	if err != nil {
		return false, "", err
	}
	have, err := readKeys(ctx, env.Host, args["dir"])
	if err != nil {
		return false, "", err
	}
	switch steps := ring.steps(have); {
	case len(steps) == 0:
		return true, "", nil
	case len(have) == 0:
		return false, "no keys in " + args["dir"], nil
	default:
		return false, fmt.Sprintf("keys %s, want %s", (Ring{Keys: have}).Hash(), ring.Hash()), nil
	}
}

// runKeys brings a key repository into the state of the ring, step by step.
func runKeys(ctx context.Context, env service.Env, args map[string]string) error {
	ring, err := wantedRing(env, args)
	if err != nil {
		return err
	}
	dir := args["dir"]
	_, err = env.Host.Run(ctx, host.Cmd{Args: []string{"install", "-d", "-m", "0750", "-o", "root", "-g", "keystone", dir}})
	if err != nil {
		return fmt.Errorf("make the key repository %s: %w", dir, err)
	}
	have, err := readKeys(ctx, env.Host, dir)
	if err != nil {
		return err
	}
	for _, step := range ring.steps(have) {
		name := path.Join(dir, strconv.Itoa(step.index))
		if step.remove {
			err = env.Host.RemoveFile(name)
		} else {
			err = env.Host.WriteFile(ctx, host.File{Path: name, Mode: 0o640, Owner: "root", Group: "keystone", Content: []byte(step.key)}, nil)
		}
		if err != nil {
			return fmt.Errorf("key %d of %s: %w", step.index, dir, err)
		}
	}
	return nil
}

func wantedRing(env service.Env, args map[string]string) (Ring, error) {
	text, err := env.Secrets.Get(args["secret"])
	if err != nil {
		return Ring{}, err
	}
	ring, err := ParseRing(text)
	if err != nil {
		return Ring{}, fmt.Errorf("secret %s: %w", args["secret"], err)
	}
	return ring, nil
}

// readKeys reads a key repository. A missing directory holds no keys.
func readKeys(ctx context.Context, h host.Host, dir string) (map[int]string, error) {
	out, err := h.Run(ctx, host.Cmd{Args: []string{"ls", "-1", dir}, Env: []string{"LC_ALL=C"}})
	var exit *host.ExitError
	if errors.As(err, &exit) && strings.Contains(exit.Stderr, "No such file") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	keys := map[int]string{}
	for _, name := range strings.Fields(string(out.Stdout)) {
		i, ok := index(name)
		if !ok {
			continue
		}
		f, err := h.ReadFile(path.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("read key %d of %s: %w", i, dir, err)
		}
		keys[i] = string(bytes.TrimSpace(f.Content))
	}
	return keys, nil
}

// schema is Keystone's database.
var schema = openstack.Schema{
	Database: Name,
	Scripts:  "/usr/lib/python3/dist-packages/keystone/common/sql/migrations/versions",
	Command:  []string{"keystone-manage", "db_sync"},
	Sections: map[string]string{"database": Name},
}

// manage is how keystone-manage is run: as root, because only the unit's process is in the
// group that may pass /etc/nines. It logs to stderr and leaves no file behind.
func manage(ctx context.Context, h host.Host, env []string, args ...string) error {
	_, err := h.Run(ctx, host.Cmd{Args: append([]string{"keystone-manage"}, args...), Env: env})
	if err != nil {
		return fmt.Errorf("keystone-manage %s: %w", args[0], err)
	}
	return nil
}

// checkBootstrap looks for the three endpoints, which keystone-manage bootstrap makes last. args: region, url, public.
func (s *Service) checkBootstrap(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
	n, err := withSQL(ctx, s.openSQL, func(c catalogue, ctx context.Context) (int, error) {
		return c.IdentityEndpoints(ctx, args["region"], args["url"], args["public"])
	})
	if err != nil {
		return false, "catalogue unknown: " + oneLine(err), nil
	}
	if n < 3 {
		return false, fmt.Sprintf("%d of 3 identity endpoints lead to %s, that of users to %s", n, args["url"], args["public"]), nil
	}
	return true, "", nil
}

// runBootstrap makes the first user, project, roles, region and endpoints. It
// can be repeated: what exists is kept, endpoints are corrected.
func (s *Service) runBootstrap(ctx context.Context, env service.Env, args map[string]string) error {
	password, err := env.Secrets.Get(SecretAdmin)
	if err != nil {
		return err
	}
	database, err := env.Secrets.Get(SecretDatabase)
	if err != nil {
		return err
	}
	return manage(ctx, env.Host, append(openstack.OwnMember(env, database, schema.Sections),
		"OS_BOOTSTRAP_PASSWORD="+password,
		"OS_BOOTSTRAP_USERNAME=admin",
		"OS_BOOTSTRAP_PROJECT_NAME=admin",
		"OS_BOOTSTRAP_ROLE_NAME=admin",
		"OS_BOOTSTRAP_SERVICE_NAME=keystone",
		"OS_BOOTSTRAP_REGION_ID="+args["region"],
		"OS_BOOTSTRAP_ADMIN_URL="+args["url"],
		"OS_BOOTSTRAP_INTERNAL_URL="+args["url"],
		"OS_BOOTSTRAP_PUBLIC_URL="+args["public"],
	), "bootstrap")
}

// checkServes says whether this node's Keystone answers.
func (s *Service) checkServes(ctx context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	if err := s.ask(ctx, env); err != nil {
		return false, oneLine(err), nil
	}
	return true, "", nil
}

// checkToken says whether tokens are issued through the VIP. A password costs a tenth of a second of
// CPU, so it is spent once in the life of the process for each address and password;
// afterwards an answer of the API is enough. args: url.
func (s *Service) checkToken(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
	password, err := env.Secrets.Get(SecretAdmin)
	if err != nil {
		return false, "", err
	}
	proof := ringMark(args["url"] + "\x00" + password)
	s.mu.Lock()
	proven := s.proven == proof
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if proven {
		err = s.client.Get(ctx, env.Host, args["url"])
	} else {
		err = s.issueToken(ctx, env, args["url"], password)
	}
	if err != nil {
		return false, oneLine(err), nil
	}
	s.mu.Lock()
	s.proven = proof
	s.mu.Unlock()
	return true, "", nil
}

// runToken waits until a token is issued through the VIP.
func (s *Service) runToken(ctx context.Context, env service.Env, args map[string]string) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		done, reason, err := s.checkToken(ctx, env, args)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no token from %s: %s (look at 'journalctl -u keystone' on the controllers): %w", args["url"], reason, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func oneLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}
