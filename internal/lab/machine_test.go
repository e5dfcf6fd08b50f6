package lab

import "testing"

func TestLastWords(t *testing.T) {
	const text = "one\r\r\n\x1b[K[\x1b[0;31m*\x1b[0;1;31m*\x1b[0m] A stop job is running for rabbitmq-server.service (1min 3s / 1min 30s)\r\r\n" +
		"\r\x1b[K[\x1b[0;32m  OK  \x1b[0m] Stopped \x1b[0;1;39mdbus.service\x1b[0m.\r\r\n"
	if got, want := lastLines(controls.ReplaceAll([]byte(text), nil), 2), "[**] A stop job is running for rabbitmq-server.service (1min 3s / 1min 30s)\n[  OK  ] Stopped dbus.service."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := lastLines(controls.ReplaceAll(nil, nil), 3); got != "" {
		t.Errorf("of an empty console: %q", got)
	}
}
