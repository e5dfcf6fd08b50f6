package drill

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"nines/internal/model"
)

// The probes' own accounts, as the database's and the broker's services make them.
const (
	probeUser     = "nines_probe"
	probeDatabase = "nines_probe"
	probeVHost    = "nines-probe"

	secretDatabase    = "galera/probe"
	secretBroker      = "rabbitmq/probe"
	secretBrokerAdmin = "rabbitmq/admin" // asks which node leads the queue
	brokerAdmin       = "nines"
	secretKeystone    = "keystone/admin"
)

// Network is the real workload: clients of a cluster over its network.
type Network struct {
	Cluster *model.Cluster
	// CA is the cluster's certificate authority, PEM.
	CA          []byte
	Credentials Credentials
	// APIs are asked beside Keystone. Hurt is the service that the drill is about, if it is about one.
	APIs []API
	Hurt string
	// Instance, if set, makes an instance that is probed too.
	Instance func(ctx context.Context) (Instance, error)
	// Run names the rows and the queue of this run, unique.
	Run string

	tls      *tls.Config
	ledger   *Ledger
	rows     *rows
	broker   *broker
	instance Instance
	closes   []func()
}

func hostPort(a netip.Addr, port int) string { return net.JoinHostPort(a.String(), strconv.Itoa(port)) }

func (w *Network) vip(port int) string { return hostPort(w.Cluster.VIP.Address.Addr(), port) }

// Open implements Workload.
func (w *Network) Open(ctx context.Context, ledger *Ledger) ([]Probe, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(w.CA) {
		return nil, errors.New("the cluster's certificate authority is not readable")
	}
	w.tls, w.ledger = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ledger
	probes := []Probe{}
	for _, open := range []func(context.Context) ([]Probe, error){w.openInstance, w.openAPI, w.openAPIs, w.openRows, w.openBroker} {
		add, err := open(ctx)
		if err != nil {
			return nil, err
		}
		probes = append(probes, add...)
	}
	return probes, nil
}

func (w *Network) openInstance(ctx context.Context) (_ []Probe, err error) {
	if w.Instance == nil {
		return nil, nil
	}
	if w.instance, err = w.Instance(ctx); err != nil {
		return nil, fmt.Errorf("make an instance: %w", err)
	}
	return []Probe{{Name: ProbeInstance, Every: time.Second / 20, Timeout: time.Second, Late: time.Second / 2,
		Send: tcpProbe(w.instance.Address().String())}}, nil
}

func (w *Network) openAPI(ctx context.Context) ([]Probe, error) {
	if !w.Cluster.Runs("keystone") {
		return nil, nil
	}
	password, err := w.Credentials.Secret(ctx, secretKeystone)
	if err != nil {
		return nil, fmt.Errorf("password of the keystone probe: %w", err)
	}
	address := w.vip(model.PortKeystone)
	api := "https://" + address + "/v3"
	fresh, kept := httpClient(w.tls, false), httpClient(w.tls, true)
	w.closes = append(w.closes, fresh.CloseIdleConnections, kept.CloseIdleConnections)
	const second = time.Second
	return []Probe{
		{Name: ProbeTCP, Every: second / 100, Timeout: second, Late: second / 10, Send: tcpProbe(address)},
		{Name: ProbeAPI, Every: second / 20, Timeout: 3 * second, Late: second / 2, Send: getProbe(fresh, api)},
		{Name: ProbeKeepalive, Every: second / 10, Timeout: 3 * second, Late: second / 2, Send: getProbe(kept, api)},
		{Name: ProbeToken, Every: second / 2, Timeout: 5 * second, Late: second, Send: tokenProbe(kept, api, password)},
	}, nil
}

func (w *Network) openRows(ctx context.Context) ([]Probe, error) {
	if !w.Cluster.Runs("galera") {
		return nil, nil
	}
	password, err := w.Credentials.Secret(ctx, secretDatabase)
	if err != nil {
		return nil, fmt.Errorf("password of the database probe: %w", err)
	}
	w.rows, err = openRows(ctx, rowsConfig{address: w.vip(model.PortMariaDB), password: password, tls: w.tls, run: w.Run})
	if err != nil {
		return nil, err
	}
	return w.rows.probes(w.ledger), nil
}

func (w *Network) openBroker(ctx context.Context) ([]Probe, error) {
	if !w.Cluster.Runs("rabbitmq") {
		return nil, nil
	}
	password, err := w.Credentials.Secret(ctx, secretBroker)
	if err != nil {
		return nil, fmt.Errorf("password of the broker probe: %w", err)
	}
	conf := brokerConfig{vhost: probeVHost, user: probeUser, password: password, tls: w.tls, queue: "drill-" + w.Run}
	for _, n := range w.Cluster.Controllers() {
		conf.hosts = append(conf.hosts, hostPort(n.Address(), model.PortAMQP))
	}
	w.broker, err = openBroker(ctx, conf)
	if err != nil {
		return nil, err
	}
	return []Probe{w.broker.probe(w.ledger)}, nil
}

// Locate implements Workload.
func (w *Network) Locate(ctx context.Context, t Target) (string, error) {
	var name string
	var err error
	switch {
	case t == Writer && w.rows != nil:
		name, err = w.rows.writer(ctx)
	case t == QueueLeader && w.broker != nil:
		name, err = w.queueLeader(ctx)
	case t == Gateway && w.instance != nil:
		name, err = w.instance.Gateway(ctx)
	default:
		err = errors.New("no probe knows it")
	}
	if err != nil {
		return "", fmt.Errorf("find %s: %w", t, err)
	}
	if n, ok := w.Cluster.Node(name); ok {
		return n.Name, nil
	}
	return "", fmt.Errorf("find %s: %q is no node of the cluster", t, name)
}

// queueLeader asks the brokers' management API, one after the other.
func (w *Network) queueLeader(ctx context.Context) (string, error) {
	password, err := w.Credentials.Secret(ctx, secretBrokerAdmin)
	if err != nil {
		return "", err
	}
	client := httpClient(w.tls, false)
	var errs []error
	for _, n := range w.Cluster.Controllers() {
		u := "https://" + hostPort(n.Address(), model.PortRabbitMQAdmin) + "/api/queues/" + probeVHost + "/" + url.PathEscape(w.broker.conf.queue)
		leader, err := askLeader(ctx, client, u, password)
		if err == nil {
			return leader, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

func askLeader(ctx context.Context, client *http.Client, u, password string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(brokerAdmin, password)
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var queue struct {
		Leader string `json:"leader"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&queue); err != nil {
		return "", fmt.Errorf("%s: HTTP %d: %w", req.URL.Host, resp.StatusCode, err)
	}
	_, name, ok := strings.Cut(queue.Leader, "@") // rabbit@ctl1
	if !ok {
		return "", fmt.Errorf("%s: HTTP %d, the queue has no leader", req.URL.Host, resp.StatusCode)
	}
	name, _, _ = strings.Cut(name, ".")
	return name, nil
}

// Verify implements Workload.
func (w *Network) Verify(ctx context.Context) (Acks, error) {
	var acks Acks
	if w.rows != nil {
		acked, err := w.ledger.Acked(KindRow)
		if err != nil {
			return acks, err
		}
		acks.Written += len(acked)
		lost := map[int]bool{}
		for _, n := range w.Cluster.Controllers() {
			have, err := w.rows.on(ctx, hostPort(n.Address(), model.PortMariaDB))
			if err != nil {
				return acks, fmt.Errorf("rows on %s: %w", n.Name, err)
			}
			for _, a := range acked {
				if have[a] == 0 {
					lost[a] = true
				}
			}
		}
		acks.Lost += len(lost)
	}
	if w.broker == nil {
		return acks, nil
	}
	acked, err := w.ledger.Acked(KindMessage)
	if err != nil {
		return acks, err
	}
	have := w.broker.drain(ctx, acked)
	acks.Written += len(acked)
	acks.Lost += missing(acked, have)
	for _, times := range have {
		if times > 1 {
			acks.Repeated++
		}
	}
	return acks, nil
}

// Close implements Workload. It may be called after a failed Open.
func (w *Network) Close(ctx context.Context) error {
	var errs []error
	if w.instance != nil {
		errs = append(errs, w.instance.Remove(ctx))
	}
	if w.broker != nil {
		errs = append(errs, w.broker.close(ctx))
	}
	if w.rows != nil {
		errs = append(errs, w.rows.close(ctx))
	}
	for _, c := range w.closes {
		c()
	}
	return errors.Join(errs...)
}
