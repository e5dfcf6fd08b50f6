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

// public is where users come.
func (w *Network) public(port int) string { return hostPort(w.Cluster.VIP.ForUsers(), port) }

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
	if len(w.APIs) > 0 {
		for i := range probes {
			probes[i].Every *= wholeCloud
		}
	}
	return probes, nil
}

// wholeCloud is how many times less often clients of a whole cloud send: there are a dozen more of them. On a lab whose two processors were slow, clients
// were not served steadily before any fault, three minutes long, for what the clients themselves had them do.
const wholeCloud = 2

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
	address := w.public(model.PortKeystone)
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

// queue is what a broker says of the probed queue.
type queue struct {
	Leader    string   `json:"leader"`
	Members   []string `json:"members"`
	Online    []string `json:"online"`
	Ready     int      `json:"messages_ready"`
	Unacked   int      `json:"messages_unacknowledged"`
	Consumers int      `json:"consumers"`
}

// leader is the node that leads; empty: none.
func (q queue) leader() string {
	_, host, _ := strings.Cut(q.Leader, "@") // rabbit@ctl1
	name, _, _ := strings.Cut(host, ".")
	return name
}

func (q queue) String() string {
	return fmt.Sprintf("led by %s, %d of %d members online, %d messages ready, %d unacknowledged, %d consumers",
		q.Leader, len(q.Online), len(q.Members), q.Ready, q.Unacked, q.Consumers)
}

func (w *Network) queueLeader(ctx context.Context) (string, error) {
	q, err := w.askQueue(ctx)
	if err != nil {
		return "", err
	}
	return q.leader(), nil
}

// askQueue asks the brokers' management API, one after the other, until one knows the queue's leader.
func (w *Network) askQueue(ctx context.Context) (queue, error) {
	password, err := w.Credentials.Secret(ctx, secretBrokerAdmin)
	if err != nil {
		return queue{}, err
	}
	client := httpClient(w.tls, false)
	var errs []error
	for _, n := range w.Cluster.Controllers() {
		u := "https://" + hostPort(n.Address(), model.PortRabbitMQAdmin) + "/api/queues/" + probeVHost + "/" + url.PathEscape(w.broker.conf.queue)
		q, err := askQueue(ctx, client, u, password)
		if err == nil {
			return q, nil
		}
		errs = append(errs, err)
	}
	return queue{}, errors.Join(errs...)
}

func askQueue(ctx context.Context, client *http.Client, u, password string) (queue, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return queue{}, err
	}
	req.SetBasicAuth(brokerAdmin, password)
	resp, err := client.Do(req)
	if err != nil {
		return queue{}, err
	}
	defer resp.Body.Close()
	var q queue
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&q); err != nil {
		return queue{}, fmt.Errorf("%s: HTTP %d: %w", req.URL.Host, resp.StatusCode, err)
	}
	if q.leader() == "" {
		return queue{}, fmt.Errorf("%s: HTTP %d, the queue has no leader", req.URL.Host, resp.StatusCode)
	}
	return q, nil
}

// Verify implements Workload.
func (w *Network) Verify(ctx context.Context) (Acks, error) {
	var acks Acks
	if w.rows != nil {
		if err := w.verifyRows(ctx, &acks); err != nil {
			return acks, err
		}
	}
	if w.broker != nil {
		if err := w.verifyMessages(ctx, &acks); err != nil {
			return acks, err
		}
	}
	return acks, nil
}

// verifyRows: a row that one member lacks is lost.
func (w *Network) verifyRows(ctx context.Context, acks *Acks) error {
	acked, err := w.ledger.Acked(KindRow)
	if err != nil {
		return err
	}
	acks.Written += len(acked)
	lost := map[int]bool{}
	for _, n := range w.Cluster.Controllers() {
		have, err := w.rows.on(ctx, hostPort(n.Address(), model.PortMariaDB))
		if err != nil {
			return fmt.Errorf("rows on %s: %w", n.Name, err)
		}
		lacks := missing(acked, have)
		if len(lacks) > 0 {
			acks.Which = append(acks.Which, fmt.Sprintf("%s lacks the rows %s", n.Name, some(lacks)))
		}
		for _, a := range lacks {
			lost[a] = true
		}
	}
	acks.Lost += len(lost)
	return nil
}

func (w *Network) verifyMessages(ctx context.Context, acks *Acks) error {
	acked, err := w.ledger.Acked(KindMessage)
	if err != nil {
		return err
	}
	acks.Written += len(acked)
	said := "nobody was asked about the queue"
	d := w.broker.drain(ctx, acked, func() {
		does := w.broker.consuming()
		if q, err := w.askQueue(ctx); err != nil {
			said = does + "; the queue does not answer: " + failure(err)
		} else {
			said = does + "; the queue is " + q.String()
		}
	})
	acks.Lost += len(d.missing)
	acks.Stuck, acks.Repeated = len(d.stuck), d.repeated
	if len(d.missing) > 0 {
		acks.Which = append(acks.Which, fmt.Sprintf("confirmed messages that never came: %s; %s", some(d.missing), said))
	}
	if len(d.stuck) > 0 {
		acks.Which = append(acks.Which, fmt.Sprintf("confirmed messages that came only to a consumer that connected anew: %s; %s", some(d.stuck), said))
	}
	return nil
}

// some names the first of many numbers.
func some(numbers []int) string {
	const most = 20
	if len(numbers) <= most {
		return strings.Trim(fmt.Sprint(numbers), "[]")
	}
	return fmt.Sprintf("%s and %d more", some(numbers[:most]), len(numbers)-most)
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
