package nova

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/openstack"
	"nines/internal/plan"
	"nines/internal/service"
)

// The actions of the service.
const (
	// actionCells maps cell0 and the cell. Args: cell0, cell1, transport (templates of URLs).
	actionCells = "map-cells"
	// actionMapCompute lets the schedulers know a compute. Args: host.
	actionMapCompute = "map-compute"
)

// cell0UUID is the same in every Nova; its transport leads nowhere.
const (
	cell0UUID      = "00000000-0000-0000-0000-000000000000"
	cell0Transport = "none:///"
	cell1Name      = "cell1"
)

// computeTimeout bounds the wait for a compute that has just been started to report.
const computeTimeout = 10 * time.Minute

// Templates of the cells' databases: each process fills in the values of its own configuration, so no
// password stands in the mapping, and a new one needs no change there.
const (
	cell0Database = "{scheme}://" + databaseCell0 + ":{password}@{hostname}:{port}/" + databaseCell0 + "?{query}"
	cell1Database = "{scheme}://{username}:{password}@{hostname}:{port}/{path}?{query}"
)

// transport is the template of the way to the broker, for that many members.
func transport(members int) string {
	if members == 1 {
		return "{scheme}://{username}:{password}@{hostname}:{port}/{path}"
	}
	var hosts []string
	for i := range members {
		hosts = append(hosts, fmt.Sprintf("{username%[1]d}:{password%[1]d}@{hostname%[1]d}:{port%[1]d}", i+1))
	}
	return "{scheme}://" + strings.Join(hosts, ",") + "/{path}"
}

// cells reads and writes the mappings. The zero value is ready to use.
type cells struct {
	// Tests replace what reads the database.
	readMappings func(context.Context) ([]mapping, error)
	readHosts    func(ctx context.Context, query, host string) (bool, error)
}

// mapping is a row of nova_api.cell_mappings.
type mapping struct {
	UUID, Name, Transport, Database string
	Disabled                        bool
}

// cellsResource is the step, done once for the cluster.
func (s *Service) cellsResource(c *model.Cluster) plan.Resource {
	first := c.Controllers()[0]
	return plan.Resource{ID: s.ID(first.Name, "action", actionCells), Service: Name, Node: first.Name,
		After: []plan.ID{s.SchemaID(c, databaseAPI)},
		Needs: []string{service.CapSQL},
		Action: &plan.Action{Name: actionCells, Args: map[string]string{
			"cell0": cell0Database, "cell1": cell1Database, "transport": transport(len(c.Controllers()))}}}
}

// computeResources are the steps that let the schedulers know the computes. One after the other: they
// would map the same compute at once.
func (s *Service) computeResources(c *model.Cluster) []plan.Resource {
	first := c.Controllers()[0]
	var out []plan.Resource
	for _, n := range c.With(model.RoleCompute) {
		r := plan.Resource{ID: s.ID(first.Name, "action", actionMapCompute+"-"+n.Name), Service: Name, Node: first.Name,
			After:  []plan.ID{s.ID(n.Name, "unit", unitCompute)},
			Needs:  []string{service.CapIdentity}, // a compute reports when it has told Placement of itself
			Action: &plan.Action{Name: actionMapCompute, Args: map[string]string{"host": n.Name}, Timeout: computeTimeout}}
		if len(out) > 0 {
			r.After = append(r.After, out[len(out)-1].ID)
		}
		out = append(out, r)
	}
	return out
}

// wanted are the mappings that the args describe.
func wanted(args map[string]string) []mapping {
	return []mapping{
		{UUID: cell0UUID, Name: "cell0", Transport: cell0Transport, Database: args["cell0"]},
		{Name: cell1Name, Transport: args["transport"], Database: args["cell1"]},
	}
}

// difference is a mapping to make or to put right.
type difference struct {
	want   mapping
	have   *mapping // nil: there is none
	reason string
}

// differences compares the mappings. Other cells than the two are somebody else's.
func differences(want, have []mapping) []difference {
	var out []difference
	for _, w := range want {
		d := difference{want: w, reason: w.Name + " is not mapped"}
		for _, h := range have {
			if h.UUID == w.UUID || w.UUID == "" && h.Name == w.Name && h.UUID != cell0UUID {
				d.have = &h
				break
			}
		}
		if d.have != nil {
			w.UUID = d.have.UUID
			if *d.have == w {
				continue
			}
			d.reason = w.Name + " is mapped with other values"
		}
		out = append(out, d)
	}
	return out
}

// command makes or corrects the mapping. The URLs are templates: no secret is among the arguments.
func (d difference) command() []string {
	values := []string{"--database_connection", d.want.Database}
	switch {
	case d.have == nil && d.want.UUID == cell0UUID:
		return manage(append([]string{"cell_v2", "map_cell0"}, values...)...)
	case d.have == nil:
		return manage(append([]string{"cell_v2", "create_cell", "--name", d.want.Name, "--transport-url", d.want.Transport}, values...)...)
	}
	update := append([]string{"cell_v2", "update_cell", "--cell_uuid", d.have.UUID, "--name", d.want.Name, "--transport-url", d.want.Transport}, values...)
	if d.have.Disabled {
		update = append(update, "--enable")
	}
	return manage(update...)
}

// check compares the mappings in the database with the wanted ones.
func (c *cells) check(ctx context.Context, _ service.Env, args map[string]string) (bool, string, error) {
	have, err := c.mappings(ctx)
	if err != nil {
		return false, "the mappings are not known: " + err.Error(), nil
	}
	if d := differences(wanted(args), have); len(d) > 0 {
		return false, d[0].reason, nil
	}
	return true, "", nil
}

// run makes and corrects mappings. What is right stays, so it goes on where it was interrupted.
func (c *cells) run(ctx context.Context, env service.Env, args map[string]string) error {
	have, err := c.mappings(ctx)
	if err != nil {
		return fmt.Errorf("read the mappings of cells (does MariaDB on %s serve?): %w", env.Node.Name, err)
	}
	own, err := ownMember(env)
	if err != nil {
		return err
	}
	for _, d := range differences(wanted(args), have) {
		if _, err := env.Host.Run(ctx, host.Cmd{Args: d.command(), Env: own}); err != nil {
			return fmt.Errorf("map %s (look at the output of nova-manage; does MariaDB on %s serve?): %w", d.want.Name, env.Node.Name, err)
		}
	}
	return nil
}

// ownMember is the environment in which nova-manage uses this node's member of the database.
func ownMember(env service.Env) ([]string, error) {
	password, err := env.Secrets.Get(openstack.DatabaseSecret(Name))
	if err != nil {
		return nil, err
	}
	return openstack.OwnMember(env, password, sections(databaseCell1)), nil
}

func (c *cells) mappings(ctx context.Context) ([]mapping, error) {
	if c.readMappings != nil {
		return c.readMappings(ctx)
	}
	db, err := openstack.OpenLocal(databaseAPI)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT uuid, COALESCE(name, ''), transport_url, database_connection, COALESCE(disabled, 0) FROM cell_mappings ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []mapping
	for rows.Next() {
		var m mapping
		if err := rows.Scan(&m.UUID, &m.Name, &m.Transport, &m.Database, &m.Disabled); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// The questions about a compute.
const (
	queryMapped   = "SELECT COUNT(*) FROM " + databaseAPI + ".host_mappings WHERE host = ?"
	queryReported = "SELECT COUNT(*) FROM " + databaseCell1 + ".compute_nodes WHERE host = ? AND deleted = 0"
)

// checkCompute looks for the compute among those that the schedulers know.
func (c *cells) checkCompute(ctx context.Context, _ service.Env, args map[string]string) (bool, string, error) {
	known, err := c.ask(ctx, queryMapped, args["host"])
	if err != nil {
		return false, "not known: " + err.Error(), nil
	}
	if !known {
		return false, "the schedulers do not know " + args["host"], nil
	}
	return true, "", nil
}

// mapCompute waits until the compute has reported and lets the schedulers know it. They find it by themselves
// too, some time later.
func (c *cells) mapCompute(ctx context.Context, env service.Env, args map[string]string) error {
	own, err := ownMember(env)
	if err != nil {
		return err
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		known, err := c.ask(ctx, queryMapped, args["host"])
		if err == nil && known {
			return nil
		}
		reported := false
		if err == nil {
			reported, err = c.ask(ctx, queryReported, args["host"])
		}
		if err == nil && reported {
			// It fails when the schedulers found the compute in the same moment: look again.
			if _, err = env.Host.Run(ctx, host.Cmd{Args: manage("cell_v2", "discover_hosts"), Env: own}); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s has not reported, or cannot be mapped (see 'journalctl -u %s' there): %w", args["host"], unitCompute, errors.Join(context.Cause(ctx), err))
		case <-tick.C:
		}
	}
}

// ask asks the database whether a query counts something.
func (c *cells) ask(ctx context.Context, query, name string) (bool, error) {
	if c.readHosts != nil {
		return c.readHosts(ctx, query, name)
	}
	db, err := openstack.OpenLocal(databaseAPI)
	if err != nil {
		return false, err
	}
	defer db.Close()
	var n int
	err = db.QueryRowContext(ctx, query, name).Scan(&n)
	return n > 0, err
}
