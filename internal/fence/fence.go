// Package fence switches the power of machines through their baseboard management controllers (BMCs), over Redfish
// or IPMI, and says what is wrong with a BMC before it is needed.
//
// Invariants: Switch returns without an error only after the BMC itself has said that the power is as it was wanted; a
// password goes to nobody who shows another certificate than the one that was kept; no error holds a password. It
// must never decide whose power is switched.
package fence

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"nines/internal/model"
)

// Power is the state of a machine's power.
type Power string

// The states of power.
const (
	On  Power = "on"
	Off Power = "off"
)

// Device is a machine's BMC, with what it takes to be let in.
type Device struct {
	model.Level
	Password string
	// Certificate is the one the BMC must show, as PEM. Empty: the first one is taken, see Result.Certificate. IPMI has none.
	Certificate string
}

// Trouble is a kind of thing that is wrong with a BMC.
type Trouble string

// The kinds of trouble. They are the ends of the conditions' codes.
const (
	Unreachable Trouble = "unreachable" // it does not answer, or not as its protocol says
	Credentials Trouble = "credentials" // it refuses user or password
	Certificate Trouble = "certificate" // it shows another certificate than the one that was kept
	Slow        Trouble = "slow"        // it answers, later than slowAfter
	// OtherMachine: what it says of the power cannot be true of this machine.
	OtherMachine Trouble = "other-machine"
)

// Error says why a BMC could not be used.
type Error struct {
	Level   model.Level
	Trouble Trouble
	Err     error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Level, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says what to do now.
func (e *Error) Hint() string { return Hint(e.Trouble, e.Level) }

// Hint says what to do about a trouble.
func Hint(t Trouble, l model.Level) string {
	node, key, password := l.Node, l.Field(), l.HandOver()
	switch t {
	case Credentials:
		return "hand over the right password with '" + password + "', or set the account right on the BMC"
	case Certificate:
		return "was it replaced? compare the fingerprint on the BMC itself, then '" + password + " --new-certificate'"
	case OtherMachine:
		return "is " + key + ".address of " + node + " in cluster.yaml that of another machine? Until it is right, nothing may be switched through it"
	case Slow:
		return "look at the BMC's load and sessions; many recover by a reset of the BMC itself ('nines fence test " + node + "' measures again)"
	}
	return "is its network up, is the address in cluster.yaml right? many hung BMCs recover by a reset of the BMC itself, or by pulling the machine's power cords"
}

// Limits of time. A BMC is a small computer: seconds are usual.
const (
	dialLimit   = 3 * time.Second
	testLimit   = 20 * time.Second
	switchLimit = 60 * time.Second
	levelLimit  = 20 * time.Second // as pcmk_off_timeout, before Pacemaker's next level
	slowAfter   = 5 * time.Second
	askAgain    = 500 * time.Millisecond
)

// session is a BMC that has let us in.
type session interface {
	power(ctx context.Context) (Power, error)
	set(ctx context.Context, want Power) error
	close()
}

// Result is what a test of a BMC showed.
type Result struct {
	Node string `json:"node"`
	// Level is 2 for a second BMC; 0, in what was written before there was this key, is 1.
	Level    int               `json:"level"`
	Address  string            `json:"address"`
	Protocol model.BMCProtocol `json:"protocol"`
	At       time.Time         `json:"at"`
	Took     time.Duration     `json:"took"`
	// Trouble is empty when all is well; Text says what was seen.
	Trouble Trouble `json:"trouble,omitempty"`
	Text    string  `json:"text,omitempty"`
	Power   Power   `json:"power,omitempty"`
	// Fingerprint is the SHA-256 of the certificate the BMC showed.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Certificate is that certificate, as PEM, if the BMC was let in by it for the first time: to be kept.
	Certificate string `json:"-"`
}

// Of is the BMC that was tested, as far as names go by it.
func (r Result) Of() model.Level { return model.Level{Node: r.Node, Number: r.Level} }

// Test proves that the BMC answers, lets us in and knows the power's state. It changes nothing.
func Test(ctx context.Context, d Device) Result {
	began := time.Now()
	r := Result{Node: d.Node, Level: d.Number, Address: d.BMC.Address, Protocol: d.BMC.Protocol, At: began.UTC()}
	ctx, cancel := context.WithTimeout(ctx, testLimit)
	defer cancel()
	shown := &shown{}
	err := with(ctx, d, shown, func(s session) (err error) {
		r.Power, err = s.power(ctx)
		return err
	})
	r.Took = time.Since(began).Round(time.Millisecond)
	if shown.leaf != nil {
		r.Fingerprint = Fingerprint(shown.leaf.Raw)
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		r.Trouble, r.Text = e.Trouble, e.Err.Error()
	case r.Took > slowAfter:
		r.Trouble, r.Text = Slow, fmt.Sprintf("it took %s to say that the power is %s", r.Took.Round(100*time.Millisecond), r.Power)
	}
	if err == nil && d.Certificate == "" && shown.leaf != nil {
		r.Certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: shown.leaf.Raw}))
	}
	return r
}

// Switch switches the machine's power and returns when the BMC says that it is so.
func Switch(ctx context.Context, d Device, want Power) error {
	if d.BMC.Protocol == model.Redfish && d.Certificate == "" {
		return &Error{d.Level, Certificate, errors.New("it was never tested: nobody knows the certificate it must show")}
	}
	ctx, cancel := context.WithTimeout(ctx, switchLimit)
	defer cancel()
	return with(ctx, d, &shown{}, func(s session) error {
		have, err := s.power(ctx)
		if err != nil || have == want {
			return err
		}
		if err := s.set(ctx, want); err != nil {
			return err
		}
		for {
			select {
			case <-ctx.Done():
				return &Error{d.Level, Unreachable, fmt.Errorf("it took the order to switch the power %s, but did not say that it is so within %s", want, switchLimit)}
			case <-time.After(askAgain):
			}
			if have, err = s.power(ctx); err == nil && have == want {
				return nil
			}
		}
	})
}

// SwitchBy switches the machine's power by the first of the levels that does it. One that has others behind it gets levelLimit.
func SwitchBy(ctx context.Context, levels []model.Level, device func(model.Level) (Device, error), want Power) error {
	var failed []error
	for i, l := range levels {
		d, err := device(l)
		if err == nil {
			err = switchWithin(ctx, d, want, i == len(levels)-1)
		}
		if err == nil {
			return nil
		}
		failed = append(failed, err)
	}
	if len(failed) == 1 {
		return failed[0]
	}
	return &noWayError{failed}
}

// noWayError says that no way led to the machine's power.
type noWayError struct{ failed []error }

func (e *noWayError) Error() string {
	var texts []string
	for _, err := range e.failed {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns what each way failed for.
func (e *noWayError) Unwrap() []error { return e.failed }

// Hint says what to do about the first: it is the one that should have done it.
func (e *noWayError) Hint() string {
	var first *Error
	if errors.As(e, &first) {
		return first.Hint()
	}
	return ""
}

func switchWithin(ctx context.Context, d Device, want Power, last bool) error {
	if !last {
		limited, cancel := context.WithTimeout(ctx, levelLimit)
		defer cancel()
		ctx = limited
	}
	return Switch(ctx, d, want)
}

// with opens a session, has f use it and closes it. Its errors are *Error.
func with(ctx context.Context, d Device, seen *shown, f func(session) error) error {
	s, err := open(ctx, d, seen)
	if err == nil {
		defer s.close()
		err = f(s)
	}
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if ctx.Err() != nil && !errors.Is(err, errOtherCertificate) {
		return &Error{d.Level, Unreachable, oneLine(fmt.Errorf("no answer in time: %w", withoutPassword(err, d.Password)))}
	}
	trouble := troubleOf(err)
	if trouble == Credentials {
		err = &plain{"it refuses the user " + d.BMC.User + ": the password is wrong, or the account may not do this", err}
	}
	return &Error{d.Level, trouble, oneLine(withoutPassword(err, d.Password))}
}

// longestText is as much of an error as anybody reads; BMCs answer whole pages.
const longestText = 240

// oneLine keeps the cause of an error and takes the request from before it and the lines from its text.
func oneLine(err error) error {
	var u *url.Error
	if errors.As(err, &u) && err == error(u) {
		err = u.Err
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if r := []rune(text); len(r) > longestText {
		text = string(r[:longestText]) + " ..."
	}
	return &plain{text, err}
}

// plain is an error with a shorter text.
type plain struct {
	text string
	err  error
}

func (e *plain) Error() string { return e.text }
func (e *plain) Unwrap() error { return e.err }

func open(ctx context.Context, d Device, seen *shown) (session, error) {
	switch {
	case d.BMC.Protocol == model.IPMI:
		return openIPMI(ctx, d)
	case d.BMC.Protocol == model.Redfish:
		return openRedfish(ctx, d, seen)
	}
	return nil, fmt.Errorf("unknown protocol %q", d.BMC.Protocol)
}

func troubleOf(err error) Trouble {
	switch {
	case errors.Is(err, errOtherCertificate):
		return Certificate
	case refusedRedfish(err), refusedIPMI(err):
		return Credentials
	}
	return Unreachable
}

// withoutPassword makes sure of an invariant: the text of an error comes from libraries and from the BMC.
func withoutPassword(err error, password string) error {
	if password == "" || !strings.Contains(err.Error(), password) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), password, "<password>"))
}

// Fingerprint names a certificate as BMCs and 'openssl x509 -fingerprint -sha256' do, without the colons.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// FingerprintPEM is Fingerprint of a certificate that was kept; "" if it is none.
func FingerprintPEM(text string) string {
	if c, err := parseCertificate(text); err == nil {
		return Fingerprint(c.Raw)
	}
	return ""
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the certificate that was kept is not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
