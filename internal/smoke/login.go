package smoke

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	gopher "github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/gophercloud/gophercloud/v2/pagination"
)

// Credentials say where a cloud is and how to log in: an entry in a clouds.yaml.
type Credentials struct {
	File  string // clouds.yaml
	Cloud string // the entry
	CA    string // the authority's certificate, a file
}

// LoginError says that the cloud did not let us in.
type LoginError struct{ Err error }

func (e *LoginError) Error() string { return fmt.Sprintf("log in to the cloud: %v", e.Err) }
func (e *LoginError) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *LoginError) Hint() string {
	return "'nines status' says how the cluster is; 'nines apply' writes clouds.yaml anew"
}

// openStack is a cloud reached through its public endpoints.
type openStack struct {
	project string // of the user; what belongs to others is not even listed

	compute, images, network, volumes *gophercloud.ServiceClient
}

// Login opens the cloud with the ordinary client library and the ordinary client configuration.
func Login(ctx context.Context, c Credentials) (Cloud, error) {
	ctx, cancel := context.WithTimeout(ctx, limitRequest)
	defer cancel()
	cloud, err := login(ctx, c)
	if err != nil {
		return nil, &LoginError{err}
	}
	return cloud, nil
}

func login(ctx context.Context, c Credentials) (*openStack, error) {
	// What the environment says of other clouds does not count.
	auth, endpoint, trust, err := clouds.Parse(clouds.WithLocations(c.File), clouds.WithCloudName(c.Cloud), clouds.WithCACertPath(c.CA),
		clouds.WithRegion(""), clouds.WithEndpointType(""))
	if err != nil {
		return nil, err
	}
	auth.AllowReauth = true // a loop outlives its token
	provider, err := gopher.NewClient(auth.IdentityEndpoint)
	if err != nil {
		return nil, err
	}
	provider.HTTPClient = http.Client{Transport: transport(trust)}
	if err := gopher.Authenticate(ctx, provider, auth); err != nil {
		return nil, err
	}
	o := &openStack{}
	if token, ok := provider.GetAuthResult().(tokens.CreateResult); ok {
		project, err := token.ExtractProject()
		if err != nil {
			return nil, err
		}
		if project != nil {
			o.project = project.ID
		}
	}
	if o.project == "" {
		return nil, fmt.Errorf("the entry %s of %s names no project", c.Cloud, c.File)
	}
	for _, s := range []struct {
		to   **gophercloud.ServiceClient
		open func(*gophercloud.ProviderClient, gophercloud.EndpointOpts) (*gophercloud.ServiceClient, error)
	}{
		{&o.compute, gopher.NewComputeV2}, {&o.images, gopher.NewImageV2},
		{&o.network, gopher.NewNetworkV2}, {&o.volumes, gopher.NewBlockStorageV3},
	} {
		if *s.to, err = s.open(provider, endpoint); err != nil {
			return nil, fmt.Errorf("the catalogue: %w", err)
		}
	}
	return o, nil
}

// transport makes a new connection for each request, as command line clients do. One to a controller that lost its power
// while it worked on the request is found dead within seconds: the machine that took its address over knows nothing of it.
func transport(trust *tls.Config) *http.Transport {
	trust.MinVersion = tls.VersionTLS12
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 3 * time.Second, Interval: time.Second, Count: 5}}
	return &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: trust, DisableKeepAlives: true, TLSHandshakeTimeout: 10 * time.Second}
}

// Make implements Cloud.
func (o *openStack) Make(ctx context.Context, name string, spec Spec) (Thing, error) {
	t := Thing{Kind: spec.Kind(), Name: name}
	var err error
	switch s := spec.(type) {
	case ImageSpec:
		t.ID, err = o.makeImage(ctx, name, s)
	case NetworkSpec:
		t.ID, t.Subnet, err = o.makeNetwork(ctx, name, s)
	case ExternalSpec:
		t.ID, t.Subnet, err = o.makeExternal(ctx, name, s)
	case RouterSpec:
		t.ID, err = o.makeRouter(ctx, name, s)
	case GroupSpec:
		t.ID, err = o.makeGroup(ctx, name, s)
	case PortSpec:
		t.ID, t.Address, err = o.makePort(ctx, name, s)
	case AddressSpec:
		t.ID, t.Address, err = o.makeAddress(ctx, name, s)
	case FlavorSpec:
		t.ID, err = o.makeFlavor(ctx, name, s)
	case KeySpec:
		t.ID, err = o.makeKey(ctx, name, s)
	case ServerSpec:
		t.ID, err = o.makeServer(ctx, name, s)
	case ServerImageSpec:
		t.ID, err = o.makeServerImage(ctx, name, s)
	case VolumeSpec:
		t.ID, err = o.makeVolume(ctx, name, s)
	case SnapshotSpec:
		t.ID, err = o.makeSnapshot(ctx, name, s)
	default:
		err = fmt.Errorf("unknown kind %s", t.Kind)
	}
	return t, meaning(err)
}

// Delete implements Cloud.
func (o *openStack) Delete(ctx context.Context, t Thing) error {
	err := o.remove(ctx, t)
	// Cinder says 400 of a volume that is in use or has snapshots.
	storage := t.Kind == KindVolume || t.Kind == KindSnapshot
	if gophercloud.ResponseCodeIs(err, http.StatusConflict) || storage && gophercloud.ResponseCodeIs(err, http.StatusBadRequest) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return meaning(err)
}

// meaning says what an answer means to whoever asked.
func meaning(err error) error {
	var answer gophercloud.ErrUnexpectedResponseCode
	if err == nil || !errors.As(err, &answer) {
		return err
	}
	switch code := answer.Actual; {
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrGone, err)
	case code == http.StatusUnauthorized, code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return err // may pass by itself
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// named returns what a list holds, as things.
func named[T any](ctx context.Context, pager pagination.Pager, extract func(pagination.Page) ([]T, error), thing func(T) Thing) ([]Thing, error) {
	page, err := pager.AllPages(ctx)
	if err != nil {
		return nil, meaning(err)
	}
	all, err := extract(page)
	if err != nil {
		return nil, err
	}
	var out []Thing
	for _, one := range all {
		out = append(out, thing(one))
	}
	return out, nil
}

// id returns the id of what was made.
func id[T any](made *T, err error, of func(*T) string) (string, error) {
	if err != nil {
		return "", err
	}
	return of(made), nil
}
