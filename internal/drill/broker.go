package drill

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// broker publishes numbered messages with confirms to a quorum queue and consumes them
// over a second connection. It knows all members and goes to the next when one
// does not answer, as OpenStack's services do.
type broker struct {
	conf   brokerConfig
	cancel context.CancelFunc
	wg     sync.WaitGroup

	turn chan struct{} // held by the one that connects

	mu       sync.Mutex
	session  *session    // the publisher's
	consumer *session    // nil: none is connected
	does     string      // what the consumer does
	since    time.Time   // and since when
	next     int         // host to try next
	seen     map[int]int // message -> times consumed
}

type brokerConfig struct {
	hosts                        []string
	vhost, user, password, queue string
	tls                          *tls.Config
}

// session is one connection with one channel.
type session struct {
	conn *amqp.Connection
	ch   *amqp.Channel
	raw  net.Conn
	gone chan *amqp.Error
	asks chan question
	over chan struct{} // closed when nobody answers asks any more
}

// question asks whether a message was put into a queue.
type question struct {
	message string
	answer  chan<- bool
}

// answer knows the messages that came back, until the channel ends. The broker returns a message that no queue takes, and then confirms it
// all the same. The library hands over what came back before it reads the confirm, so a question asked after that is answered right.
func (s *session) answer(back <-chan amqp.Return) {
	defer close(s.over)
	returned := map[string]bool{}
	for {
		select {
		case r, open := <-back:
			if !open {
				return
			}
			returned[r.MessageId] = true
		case q := <-s.asks:
			q.answer <- !returned[q.message]
		}
	}
}

// routed says of a confirmed message whether a queue took it; of one whose channel has ended since nobody knows, so it says no.
func (s *session) routed(message string) bool {
	answer := make(chan bool, 1)
	select {
	case s.asks <- question{message, answer}:
		return <-answer
	case <-s.over:
		return false
	}
}

// drop ends the connection without a goodbye: a dead peer would never answer one.
func (s *session) drop() { _ = s.raw.Close() }

func (s *session) alive() bool {
	select {
	case <-s.gone:
		return false
	default:
		return true
	}
}

const (
	confirmTimeout = 2 * time.Second
	dialTimeout    = time.Second
	// heartbeat lets a silent peer be noticed; requests have their own, shorter time-outs.
	heartbeat = 2 * time.Second
	// deliveryLimit is for how long nothing may come while a message is missing.
	deliveryLimit = 20 * time.Second
	// unusedQueue removes the queue of a drill whose process died.
	unusedQueue = 30 * time.Minute
)

func openBroker(ctx context.Context, conf brokerConfig) (*broker, error) {
	b := &broker{conf: conf, turn: make(chan struct{}, 1), seen: map[int]int{}}
	s, err := b.current(ctx)
	if err != nil {
		return nil, fmt.Errorf("prepare the broker probe: %w", err)
	}
	_, err = s.ch.QueueDeclare(conf.queue, true, false, false, false, amqp.Table{
		"x-queue-type": "quorum", "x-quorum-initial-group-size": int64(len(conf.hosts)), "x-expires": unusedQueue.Milliseconds(),
	})
	if err != nil {
		s.drop()
		return nil, fmt.Errorf("declare the probed queue: %w", err)
	}
	ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	b.wg.Go(func() { b.consume(ctx) })
	return b, nil
}

func (b *broker) probe(l *Ledger) Probe {
	return Probe{Name: ProbeBroker, Every: time.Second / 20, Timeout: confirmTimeout, Late: time.Second / 2,
		Send: func(ctx context.Context, n int) error { return b.publish(ctx, n, l) }}
}

func (b *broker) publish(ctx context.Context, n int, l *Ledger) error {
	s, err := b.current(ctx)
	if err != nil {
		return plain(err)
	}
	message := strconv.Itoa(n)
	confirm, err := s.ch.PublishWithDeferredConfirm("", b.conf.queue, true, false, amqp.Publishing{ // mandatory: a queue must take it
		DeliveryMode: amqp.Persistent, MessageId: message, Body: []byte(message),
	})
	if err != nil {
		s.drop()
		return plain(err)
	}
	ok, err := confirm.WaitContext(ctx)
	switch {
	case err != nil:
		s.drop() // the next one connects to another member
		return errors.New("no confirm in time")
	case !ok:
		return errors.New("not confirmed: refused, or the connection broke")
	case !s.routed(message):
		return errors.New("confirmed, but no queue took it")
	}
	l.Ack(KindMessage, n)
	return nil
}

// current returns the publisher's session, connecting if there is none.
func (b *broker) current(ctx context.Context) (*session, error) {
	if s := b.living(); s != nil {
		return s, nil
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s := b.living(); s != nil { // somebody else has connected
		return s, nil
	}
	s, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.ch.Confirm(false); err != nil {
		s.drop()
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session != nil {
		b.session.drop()
	}
	b.session = s
	return s, nil
}

func (b *broker) living() *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session != nil && b.session.alive() {
		return b.session
	}
	return nil
}

// connect tries the members one after the other until ctx ends.
func (b *broker) connect(ctx context.Context) (*session, error) {
	var last error
	for range len(b.conf.hosts) {
		b.mu.Lock()
		host := b.conf.hosts[b.next%len(b.conf.hosts)]
		b.next++
		b.mu.Unlock()
		s, err := b.dial(ctx, host)
		if err == nil {
			return s, nil
		}
		last = fmt.Errorf("%s: %w", host, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

func (b *broker) dial(ctx context.Context, host string) (*session, error) {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return nil, err
	}
	s := &session{gone: make(chan *amqp.Error, 1), asks: make(chan question), over: make(chan struct{})}
	conf := amqp.Config{
		Vhost: b.conf.vhost, Heartbeat: heartbeat, Locale: "en_US",
		SASL:            []amqp.Authentication{&amqp.PlainAuth{Username: b.conf.user, Password: b.conf.password}},
		TLSClientConfig: b.conf.tls.Clone(),
		Dial: func(network, address string) (net.Conn, error) {
			d := net.Dialer{Timeout: dialTimeout}
			conn, err := d.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			s.raw = conn
			// Bounds the handshakes; the library lifts it when the connection is open.
			return conn, conn.SetDeadline(time.Now().Add(2 * dialTimeout))
		},
	}
	conf.TLSClientConfig.ServerName = name
	if s.conn, err = amqp.DialConfig("amqps://"+host+"/", conf); err != nil {
		if s.raw != nil {
			s.drop()
		}
		return nil, err
	}
	if s.ch, err = s.conn.Channel(); err != nil {
		s.drop()
		return nil, err
	}
	s.ch.NotifyClose(s.gone)
	go s.answer(s.ch.NotifyReturn(make(chan amqp.Return)))
	return s, nil
}

// consume takes messages until ctx ends, over a connection of its own.
func (b *broker) consume(ctx context.Context) {
	for ctx.Err() == nil {
		b.consumes(nil, "connects")
		s, err := b.connect(ctx)
		if err != nil {
			if !pause(ctx, 100*time.Millisecond) {
				return
			}
			continue
		}
		b.consumes(s, "subscribes")
		if deliveries, err := subscribe(s, b.conf.queue); err == nil {
			b.consumes(s, "consumes")
			b.take(ctx, deliveries)
		} else {
			pause(ctx, 100*time.Millisecond)
		}
		s.drop()
	}
}

func (b *broker) consumes(s *session, does string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.consumer, b.does, b.since = s, does, time.Now()
}

// consuming says what the consumer does, and for how long it has.
func (b *broker) consuming() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("the consumer %s for %.1f s", b.does, time.Since(b.since).Seconds())
}

// consumeAnew has the consumer connect to another member.
func (b *broker) consumeAnew() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.consumer != nil {
		b.consumer.drop()
	}
}

func subscribe(s *session, queue string) (<-chan amqp.Delivery, error) {
	if err := s.ch.Qos(200, 0, false); err != nil {
		return nil, err
	}
	return s.ch.Consume(queue, "", false, false, false, false, nil)
}

func (b *broker) take(ctx context.Context, deliveries <-chan amqp.Delivery) {
	for {
		select {
		case <-ctx.Done():
			return
		case d, ok := <-deliveries:
			if !ok {
				return
			}
			if n, err := strconv.Atoi(string(d.Body)); err == nil {
				b.mu.Lock()
				b.seen[n]++
				b.mu.Unlock()
			}
			_ = d.Ack(false) // a failed one is delivered again, and counted
		}
	}
}

// delivered is what became of confirmed messages.
type delivered struct {
	missing  []int // never came
	stuck    []int // came only to a consumer that connected anew
	repeated int   // came more than once
}

// drain waits until every confirmed message was consumed, or nothing has come for a while. If some are missing then it looks,
// and waits once more with a new consumer.
func (b *broker) drain(ctx context.Context, acked []int, look func()) delivered {
	seen := b.await(ctx, acked)
	late := missing(acked, seen)
	if len(late) > 0 {
		look()
		b.consumeAnew()
		seen = b.await(ctx, acked)
	}
	d := delivered{missing: missing(acked, seen)}
	for _, n := range late {
		if seen[n] > 0 {
			d.stuck = append(d.stuck, n)
		}
	}
	for _, times := range seen {
		if times > 1 {
			d.repeated++
		}
	}
	return d
}

// await returns what came how often, once all is there or nothing has come for a while.
func (b *broker) await(ctx context.Context, acked []int) map[int]int {
	last, since := -1, time.Now()
	for {
		b.mu.Lock()
		seen := maps.Clone(b.seen)
		b.mu.Unlock()
		if len(seen) != last {
			last, since = len(seen), time.Now()
		}
		if len(missing(acked, seen)) == 0 || time.Since(since) > deliveryLimit || !pause(ctx, 100*time.Millisecond) {
			return seen
		}
	}
}

// close removes the queue.
func (b *broker) close(ctx context.Context) error {
	b.cancel()
	b.wg.Wait()
	s, err := b.current(ctx)
	if err != nil {
		return fmt.Errorf("remove the probed queue: %w", err)
	}
	defer s.drop()
	if _, err := s.ch.QueueDelete(b.conf.queue, false, false, false); err != nil {
		return fmt.Errorf("remove the probed queue: %w", err)
	}
	return nil
}

// pause waits; false: ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
