package openstack

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	gopher "github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/endpoints"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/roles"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/services"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/users"
	"github.com/gophercloud/gophercloud/v2/pagination"
	"golang.org/x/sync/semaphore"

	"nines/internal/model"
	"nines/internal/plan"
	"nines/internal/service"
)

// ActionRegister enters a service into Keystone.
const ActionRegister = "register"

// defaultDomain is Keystone's own domain, where the services' users are.
const defaultDomain = "default"

// Registration is what Keystone must know of a service: its user, and where it is.
type Registration struct {
	Name   string   // of the service in the catalogue
	Type   string   // "image"
	URL    string   // of the interfaces internal and admin; those of the nodes would bypass HAProxy
	Public string   // of the interface public
	User   string   // in the project Project
	Secret string   // name of the user's password
	Roles  []string // "service" tells other services from users; "admin" is what most APIs ask of them
}

// endpoints are what the catalogue should hold, as in registered.
func (w Registration) endpoints() []string {
	var out []string
	for _, i := range interfaces {
		out = append(out, string(i)+" "+w.at(i))
	}
	return out
}

// at is the URL of an interface.
func (w Registration) at(i gophercloud.Availability) string {
	if i == gophercloud.AvailabilityPublic {
		return w.Public
	}
	return w.URL
}

// interfaces of an endpoint, sorted.
var interfaces = []gophercloud.Availability{gophercloud.AvailabilityAdmin, gophercloud.AvailabilityInternal, gophercloud.AvailabilityPublic}

// Registrar enters services into Keystone. The zero value is ready to use; it must not be copied.
type Registrar struct {
	Client    *Client // nil: one of its own
	catalogue func(ctx context.Context, w Registration) (registered, error)
	pause     time.Duration // between tries; zero: registerPause

	mu     sync.Mutex
	own    Client
	proven map[string]bool // logins that worked since this process started, by mark
}

// Resource is the step for a service, done once for the cluster on a node.
func (w Registration) Resource(name string, n model.Node) plan.Resource {
	return plan.Resource{ID: plan.Make(name, n.Name, "action", ActionRegister), Service: name, Node: n.Name,
		Needs: []string{service.CapIdentity, service.CapSQL},
		Action: &plan.Action{Name: ActionRegister, Args: map[string]string{
			"name": w.Name, "type": w.Type, "url": w.URL, "public": w.Public, "user": w.User, "secret": w.Secret, "roles": strings.Join(w.Roles, " "),
		}}}
}

func registrationOf(args map[string]string) Registration {
	return Registration{Name: args["name"], Type: args["type"], URL: args["url"], Public: args["public"],
		User: args["user"], Secret: args["secret"], Roles: strings.Fields(args["roles"])}
}

// Action checks and registers.
func (r *Registrar) Action() service.Action {
	return service.Action{Check: r.check, Run: r.run}
}

// check reads the catalogue in the database, which is cheap, and once in the life of the process
// logs in as the service's user, which costs Keystone a tenth of a second of CPU.
func (r *Registrar) check(ctx context.Context, env service.Env, args map[string]string) (bool, string, error) {
	w := registrationOf(args)
	read := r.catalogue
	if read == nil {
		read = localCatalogue
	}
	have, err := read(ctx, w)
	if err != nil {
		return false, "catalogue unknown: " + oneLine(err), nil
	}
	if !slices.Equal(have.endpoints, w.endpoints()) {
		return false, fmt.Sprintf("endpoints in Keystone: %v, want %v", have.endpoints, w.endpoints()), nil
	}
	for _, role := range w.Roles {
		if !slices.Contains(have.roles, role) {
			return false, fmt.Sprintf("the user %s has not the role %s", w.User, role), nil
		}
	}
	if err := r.prove(ctx, env, w, checkedLogin); err != nil {
		return false, fmt.Sprintf("the user %s cannot log in: %s", w.User, oneLine(err)), nil
	}
	return true, "", nil
}

// logins keeps those that only prove something from being ten at once, after a start of the agent: on two busy processors none of ten ended
// within its time, nor did any the next time.
var logins = semaphore.NewWeighted(1)

// checkedLogin is how long a login may take that a check waits for, madeLogin one that ends a registration: ten APIs may be starting meanwhile.
const (
	checkedLogin = 2 * time.Second
	madeLogin    = 30 * time.Second
)

// prove logs in as the service's user within the limit, unless that worked before.
func (r *Registrar) prove(ctx context.Context, env service.Env, w Registration, limit time.Duration) error {
	password, err := env.Secrets.Get(w.Secret)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(w.User + "\x00" + password))
	mark := hex.EncodeToString(sum[:])
	r.mu.Lock()
	proven := r.proven[mark]
	r.mu.Unlock()
	if proven {
		return nil
	}
	if err := logins.Acquire(ctx, 1); err != nil {
		return err
	}
	defer logins.Release(1)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := r.login(ctx, env, w.User, password, Project); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proven == nil {
		r.proven = map[string]bool{}
	}
	r.proven[mark] = true
	return nil
}

// login returns a client of Keystone.
func (r *Registrar) login(ctx context.Context, env service.Env, user, password, project string) (*gophercloud.ServiceClient, error) {
	client := r.Client
	if client == nil {
		client = &r.own
	}
	web, err := client.HTTP(env.Host)
	if err != nil {
		return nil, err
	}
	url := IdentityURL(env.Cluster)
	provider, err := gopher.NewClient(url)
	if err != nil {
		return nil, err
	}
	provider.HTTPClient = *web
	err = gopher.Authenticate(ctx, provider, gophercloud.AuthOptions{IdentityEndpoint: url, Username: user, Password: password,
		DomainID: defaultDomain, Scope: &gophercloud.AuthScope{ProjectName: project, DomainID: defaultDomain}})
	if err != nil {
		return nil, fmt.Errorf("log in to %s as %s: %w", url, user, err)
	}
	// Not from the catalogue: it might name an address from before.
	return &gophercloud.ServiceClient{ProviderClient: provider, Endpoint: url + "/", Type: "identity"}, nil
}

// registerTries is how often a registration is begun, registerPause what lies between: while the database's writer
// moves, Keystone answers 500 or nothing for some seconds.
const (
	registerTries = 5
	registerPause = 3 * time.Second
)

// run registers; it tries again what may pass by itself.
func (r *Registrar) run(ctx context.Context, env service.Env, args map[string]string) error {
	for try := 1; ; try++ {
		err := r.register(ctx, env, registrationOf(args))
		if err == nil || !passes(err) || try == registerTries {
			return err
		}
		env.Log.Warn("Keystone did not take the registration; trying again", "service", args["name"], "try", try, "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(cmp.Or(r.pause, registerPause)):
		}
	}
}

// passes reports whether the error may be gone in a moment: no answer, or one that says that Keystone itself failed.
func passes(err error) bool {
	var answer gophercloud.ErrUnexpectedResponseCode
	if errors.As(err, &answer) {
		return answer.Actual >= 500
	}
	var unanswered *url.Error
	return errors.As(err, &unanswered)
}

// register makes what is missing and corrects what differs. It can be repeated, and several may run at once.
func (r *Registrar) register(ctx context.Context, env service.Env, w Registration) error {
	admin, err := env.Secrets.Get(SecretAdmin)
	if err != nil {
		return err
	}
	keystone, err := r.login(ctx, env, "admin", admin, "admin")
	if err != nil {
		return err
	}
	project, err := ensureProject(ctx, keystone)
	if err != nil {
		return err
	}
	user, err := r.ensureUser(ctx, env, keystone, w)
	if err != nil {
		return err
	}
	for _, role := range w.Roles {
		if err := assign(ctx, keystone, role, user, project); err != nil {
			return err
		}
	}
	id, err := ensureService(ctx, keystone, w)
	if err != nil {
		return err
	}
	if err := ensureEndpoints(ctx, keystone, id, w); err != nil {
		return err
	}
	return r.ensurePassword(ctx, env, keystone, user, w)
}

// lookup returns the one thing that a list holds; found is false when it is empty.
func lookup[T any](ctx context.Context, pager pagination.Pager, extract func(pagination.Page) ([]T, error)) (one T, found bool, err error) {
	all, err := list(ctx, pager, extract)
	if err != nil || len(all) == 0 {
		return one, false, err
	}
	return all[0], true, nil
}

func list[T any](ctx context.Context, pager pagination.Pager, extract func(pagination.Page) ([]T, error)) ([]T, error) {
	page, err := pager.AllPages(ctx)
	if err != nil {
		return nil, err
	}
	return extract(page)
}

// conflict says that somebody else has made it meanwhile.
func conflict(err error) bool { return gophercloud.ResponseCodeIs(err, 409) }

func ensureProject(ctx context.Context, keystone *gophercloud.ServiceClient) (id string, err error) {
	find := func() (projects.Project, bool, error) {
		return lookup(ctx, projects.List(keystone, projects.ListOpts{Name: Project, DomainID: defaultDomain}), projects.ExtractProjects)
	}
	p, found, err := find()
	if err == nil && !found {
		_, err = projects.Create(ctx, keystone, projects.CreateOpts{Name: Project, DomainID: defaultDomain, Description: "users of the services"}).Extract()
		if err == nil || conflict(err) {
			p, found, err = find()
		}
	}
	if err != nil || !found {
		return "", fmt.Errorf("project %s: %w", Project, orMissing(err))
	}
	return p.ID, nil
}

// orMissing is the error, or that what was just made is not there.
func orMissing(err error) error {
	if err == nil {
		return errors.New("it was made and is not shown: run 'nines apply' again")
	}
	return err
}

func (r *Registrar) ensureUser(ctx context.Context, env service.Env, keystone *gophercloud.ServiceClient, w Registration) (id string, err error) {
	password, err := env.Secrets.Get(w.Secret)
	if err != nil {
		return "", err
	}
	find := func() (users.User, bool, error) {
		return lookup(ctx, users.List(keystone, users.ListOpts{Name: w.User, DomainID: defaultDomain}), users.ExtractUsers)
	}
	u, found, err := find()
	if err == nil && !found {
		// A service does not change its password because it was wrong a few times: nobody could lock it out.
		_, err = users.Create(ctx, keystone, users.CreateOpts{Name: w.User, DomainID: defaultDomain, Password: password,
			Options: map[users.Option]any{users.IgnoreLockoutFailureAttempts: true, users.IgnorePasswordExpiry: true}}).Extract()
		if err == nil || conflict(err) {
			u, found, err = find()
		}
	}
	if err != nil || !found {
		return "", fmt.Errorf("user %s: %w", w.User, orMissing(err))
	}
	return u.ID, nil
}

// ensurePassword sets the password of a user who cannot log in with it. Setting it always would
// make the tokens invalid that the service has.
func (r *Registrar) ensurePassword(ctx context.Context, env service.Env, keystone *gophercloud.ServiceClient, id string, w Registration) error {
	err := r.prove(ctx, env, w, madeLogin)
	if err == nil || !gophercloud.ResponseCodeIs(err, 401) {
		return err
	}
	password, err := env.Secrets.Get(w.Secret)
	if err != nil {
		return err
	}
	enabled := true
	if _, err := users.Update(ctx, keystone, id, users.UpdateOpts{Password: password, Enabled: &enabled}).Extract(); err != nil {
		return fmt.Errorf("set the password of %s: %w", w.User, err)
	}
	return r.prove(ctx, env, w, madeLogin)
}

func assign(ctx context.Context, keystone *gophercloud.ServiceClient, role, user, project string) error {
	r, found, err := lookup(ctx, roles.List(keystone, roles.ListOpts{Name: role}), roles.ExtractRoles)
	if err == nil && !found {
		err = errors.New("it does not exist: keystone-manage bootstrap makes it; run 'nines apply' again")
	}
	if err == nil {
		err = roles.Assign(ctx, keystone, r.ID, roles.AssignOpts{UserID: user, ProjectID: project}).ExtractErr()
	}
	if err != nil {
		return fmt.Errorf("role %s: %w", role, err)
	}
	return nil
}

func ensureService(ctx context.Context, keystone *gophercloud.ServiceClient, w Registration) (id string, err error) {
	s, found, err := lookup(ctx, services.List(keystone, services.ListOpts{ServiceType: w.Type}), services.ExtractServices)
	enabled := true
	switch {
	case err != nil:
	case !found:
		var made *services.Service
		if made, err = services.Create(ctx, keystone, services.CreateOpts{Type: w.Type, Name: w.Name}).Extract(); err == nil {
			return made.ID, nil
		}
	case !s.Enabled:
		_, err = services.Update(ctx, keystone, s.ID, services.UpdateOpts{Enabled: &enabled}).Extract()
	}
	if err != nil {
		return "", fmt.Errorf("service %s of type %s: %w", w.Name, w.Type, err)
	}
	return s.ID, nil
}

// ensureEndpoints leaves one endpoint of each interface in the region. Others would be handed to clients at random.
func ensureEndpoints(ctx context.Context, keystone *gophercloud.ServiceClient, id string, w Registration) error {
	have, err := list(ctx, endpoints.List(keystone, endpoints.ListOpts{ServiceID: id, RegionID: Region}), endpoints.ExtractEndpoints)
	if err != nil {
		return fmt.Errorf("endpoints: %w", err)
	}
	for _, i := range interfaces {
		if err := ensureEndpoint(ctx, keystone, id, w.at(i), i, have); err != nil {
			return fmt.Errorf("%s endpoint %s: %w", i, w.at(i), err)
		}
	}
	return nil
}

func ensureEndpoint(ctx context.Context, keystone *gophercloud.ServiceClient, id, url string, i gophercloud.Availability, have []endpoints.Endpoint) error {
	enabled, first := true, true
	for _, e := range have {
		var err error
		switch {
		case e.Availability != i:
			continue
		case !first:
			err = endpoints.Delete(ctx, keystone, e.ID).ExtractErr()
		case e.URL != url || !e.Enabled:
			_, err = endpoints.Update(ctx, keystone, e.ID, endpoints.UpdateOpts{URL: url, Enabled: &enabled}).Extract()
		}
		first = false
		if err != nil {
			return err
		}
	}
	if !first {
		return nil
	}
	_, err := endpoints.Create(ctx, keystone, endpoints.CreateOpts{Availability: i, Region: Region, URL: url, ServiceID: id}).Extract()
	return err
}
