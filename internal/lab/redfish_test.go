package lab

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stmcginnis/gofish"

	"nines/internal/fence"
	"nines/internal/model"
)

// toy is a machine that does at once what its BMC says.
type toy struct {
	mu    sync.Mutex
	power bool
	did   []resetType
}

func (m *toy) on() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.power, nil
}

func (m *toy) reset(ctx context.Context, kind resetType) error {
	if kind == resetShutdown { // hangs
		<-ctx.Done()
		return ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.did, m.power = append(m.did, kind), kind != resetForceOff
	return nil
}

// bmc is a BMC of the lab with a machine that is on.
type bmc struct {
	toy    toy
	mode   BMCMode
	device fence.Device
	url    string
}

func newBMC(t *testing.T) *bmc {
	t.Helper()
	b := &bmc{mode: BMCOK, toy: toy{power: true}}
	r := &redfish{node: "ctl1", user: "nines", password: "right-password", machine: &b.toy, mode: func() BMCMode { return b.mode }, log: slog.New(slog.DiscardHandler)}
	server := httptest.NewTLSServer(r.handler())
	t.Cleanup(server.Close)
	b.url = server.URL
	b.device = fence.Device{Password: "right-password",
		Level: model.Level{Node: "ctl1", Number: 1, BMC: model.BMC{Protocol: model.Redfish, Address: strings.TrimPrefix(server.URL, "https://"), User: "nines"}}}
	return b
}

func TestBMCSwitches(t *testing.T) {
	b := newBMC(t)
	ctx := t.Context()
	first := fence.Test(ctx, b.device)
	if first.Trouble != "" || first.Power != fence.On || first.Certificate == "" || len(first.Fingerprint) != 64 {
		t.Fatalf("%+v", first)
	}
	if err := fence.Switch(ctx, b.device, fence.Off); err == nil {
		t.Error("a BMC whose certificate nobody knows was used")
	}
	b.device.Certificate = first.Certificate
	for _, want := range []fence.Power{fence.Off, fence.Off, fence.On} {
		if err := fence.Switch(ctx, b.device, want); err != nil {
			t.Fatal(err)
		}
		if r := fence.Test(ctx, b.device); r.Power != want || r.Trouble != "" || r.Certificate != "" {
			t.Errorf("%+v, want %s", r, want)
		}
	}
	if len(b.toy.did) != 2 {
		t.Errorf("%v: what is so already was done again", b.toy.did)
	}
}

func TestBMCTroubles(t *testing.T) {
	b := newBMC(t)
	b.device.Certificate = fence.Test(t.Context(), b.device).Certificate
	other, _, err := bmcCertificate(nodeSpec{Name: "ctl1", BMC: "198.18.0.111"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(d *fence.Device)
		mode   BMCMode
		want   fence.Trouble
	}{
		"well":                {func(*fence.Device) {}, BMCOK, ""},
		"wrong password":      {func(d *fence.Device) { d.Password = "wrong-password" }, BMCOK, fence.Credentials},
		"password changed":    {func(*fence.Device) {}, BMCPassword, fence.Credentials},
		"another certificate": {func(d *fence.Device) { d.Certificate = string(other) }, BMCOK, fence.Certificate},
		"nobody there":        {func(d *fence.Device) { d.BMC.Address = "127.0.0.1:1" }, BMCOK, fence.Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			d := b.device
			tc.change(&d)
			b.mode = tc.mode
			r := fence.Test(t.Context(), d)
			if r.Trouble != tc.want || (r.Text == "") != (tc.want == "") {
				t.Errorf("%+v, want %q", r, tc.want)
			}
			if strings.Contains(r.Text, d.Password) {
				t.Errorf("the password is in %q", r.Text)
			}
			var e *fence.Error
			if err := fence.Switch(t.Context(), d, fence.On); tc.want != "" && (!errors.As(err, &e) || e.Trouble != tc.want || e.Hint() == "") {
				t.Errorf("switch: %v", err)
			}
		})
	}
}

// Where the first way to the power does not lead there the second one is gone; the first that does is enough.
func TestSwitchByTheSecond(t *testing.T) {
	b := newBMC(t)
	b.device.Certificate = fence.Test(t.Context(), b.device).Certificate
	dead := b.device
	dead.BMC.Address = "127.0.0.1:1"
	second := b.device
	second.Number = 2
	by := func(want fence.Power, ds ...fence.Device) error {
		var levels []model.Level
		for _, d := range ds {
			levels = append(levels, d.Level)
		}
		return fence.SwitchBy(t.Context(), levels, func(l model.Level) (fence.Device, error) {
			d := ds[slices.Index(levels, l)]
			if d.Password == "" {
				return d, errors.New("its password was never handed over")
			}
			return d, nil
		}, want)
	}
	for _, tc := range []struct {
		by   []fence.Device
		want fence.Power
	}{{[]fence.Device{dead, second}, fence.Off}, {[]fence.Device{b.device, dead}, fence.On}, {[]fence.Device{b.device}, fence.Off}} {
		if err := by(tc.want, tc.by...); err != nil {
			t.Fatal(err)
		}
		if r := fence.Test(t.Context(), b.device); r.Power != tc.want {
			t.Errorf("%+v, want %s", r, tc.want)
		}
	}
	dead2 := second
	dead2.BMC.Address = "127.0.0.1:2"
	err := by(fence.On, dead, dead2)
	if err == nil || !strings.Contains(err.Error(), "BMC of ctl1:") || !strings.Contains(err.Error(), "second BMC of ctl1:") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v: both should be named, in one line", err)
	}
	if h, ok := err.(interface{ Hint() string }); !ok || h.Hint() == "" {
		t.Error("no hint")
	}
	unknown := dead
	unknown.Password = ""
	if err := by(fence.On, unknown, second); err != nil {
		t.Errorf("a first one without a password kept the second from being used: %v", err)
	}
}

// A shutdown that hangs must not keep the power from being taken away.
func TestBMCForceOverShutdown(t *testing.T) {
	b := newBMC(t)
	b.device.Certificate = fence.Test(t.Context(), b.device).Certificate
	c, err := gofish.Connect(gofish.ClientConfig{Endpoint: b.url, Username: "nines", Password: "right-password", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	systems, err := c.Service.Systems()
	if err != nil || len(systems) != 1 {
		t.Fatal(systems, err)
	}
	if _, err := systems[0].Reset("GracefulShutdown"); err != nil {
		t.Fatal(err)
	}
	if err := fence.Switch(t.Context(), b.device, fence.Off); err != nil {
		t.Fatal(err)
	}
	c.Logout()
	if _, err := c.Service.Systems(); err == nil {
		t.Error("a session that ended still opens")
	}
}
