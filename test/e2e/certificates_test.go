package e2e

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nines/internal/model"
	"nines/internal/secret"
)

// certificates lets the certificates of all nodes come near their end, then pass it.
func certificates(t *testing.T, cluster string) {
	ca := authority(t, cluster)
	nodes := []string{"ctl1", "ctl2", "ctl3"}

	// Due: the leader renews, and has the daemons load, without an outage.
	const day = 24 * time.Hour
	for _, n := range nodes {
		reissue(t, ca, n, -265*day, 100*day)
	}
	clients := startRequests(t)
	for _, n := range nodes {
		must(t, 2*time.Minute, "lab", "ssh", "--name", labName, n, "--", "until openssl x509 -noout -checkend 20000000 -in "+model.PathCert+" >/dev/null; do sleep 0.5; done")
	}
	loaded(t, cluster)
	if n, failed := clients.stop(); len(failed) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed while the leader renewed: %s", len(failed), n, strings.Join(failed, "; "))
	}

	// What follows is the operator's way alone.
	renewedBy(t, cluster, "operator")
	t.Cleanup(func() { renewedBy(t, cluster, "leader") })

	// Near the end: told, and renewed without an outage.
	for _, n := range nodes {
		reissue(t, ca, n, -300*day, 65*day)
	}
	st := decode[status](t, nines(t, time.Minute, "-c", cluster, "status", "--json").stdout)
	told := map[string]bool{}
	for _, c := range st.Conditions {
		if c.Code == "certificate-expires" && strings.Contains(c.Text, "days") {
			told[c.Node] = true
		}
	}
	if st.Healthy || len(told) != len(nodes) {
		t.Errorf("certificates near their end: healthy %v, %+v", st.Healthy, st.Conditions)
	}
	clients = startRequests(t)
	must(t, 2*time.Minute, "-c", cluster, "apply", "--yes")
	if n, failed := clients.stop(); len(failed) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed during the renewal: %s", len(failed), n, strings.Join(failed, "; "))
	}
	healthy(t, cluster)

	// Past the end, and loaded by every daemon: nobody accepts anybody. SSH is the way back.
	for _, n := range nodes {
		reissue(t, ca, n, -365*day, -time.Hour)
		onNode(t, labName, n, "mariadb -e 'flush local ssl'; systemctl reload haproxy keystone")
	}
	for _, n := range nodes { // Keystone is up again, with what it has
		onNode(t, labName, n, "until curl -sk -m 1 -o /dev/null https://"+n+":5000/v3; do sleep 0.2; done")
	}
	for _, command := range []string{"status", "plan"} {
		r := nines(t, time.Minute, "-c", cluster, command)
		if r.code != 1 || !strings.Contains(r.stderr, "its certificate expired on ") || !strings.Contains(r.stderr, "nines apply") {
			t.Errorf("%s with expired certificates: exit %d\n%s", command, r.code, r.stderr)
		}
	}
	must(t, 2*time.Minute, "-c", cluster, "apply", "--yes")
	healthy(t, cluster)
	unchanged(t, cluster)
	out := must(t, time.Minute, "lab", "exec", "--name", labName, "--", "openstack", "token", "issue", "-f", "value", "-c", "id")
	if len(strings.TrimSpace(out)) < 100 {
		t.Errorf("no token after the renewal: %q", out)
	}
}

// loaded waits until the leader has had all daemons load the certificates of their nodes.
func loaded(t *testing.T, cluster string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		last := decode[status](t, nines(t, time.Minute, "-c", cluster, "status", "--json").stdout).Apply
		if last.Who == "certificate renewal" && last.State == "converged" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the leader renewed, and daemons have not loaded it: %+v", last)
		}
	}
	healthy(t, cluster)
	unchanged(t, cluster)
}

// renewedBy says in cluster.yaml who renews, and applies it.
func renewedBy(t *testing.T, cluster, who string) {
	t.Helper()
	text, err := os.ReadFile(cluster)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "certificates:")
	if err := os.WriteFile(cluster, []byte(before+"certificates: {renewed_by: "+who+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, 2*time.Minute, "-c", cluster, "apply", "--yes")
	healthy(t, cluster)
}

func onNode(t *testing.T, lab, node, script string) string {
	t.Helper()
	return must(t, time.Minute, "lab", "ssh", "--name", lab, node, "--", script)
}

// authority opens the cluster's own authority, as an operator's machine holds it.
func authority(t *testing.T, cluster string) tls.Certificate {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(cluster), ".nines", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	m, err := secret.Open(read("secrets.age"), string(read("identity")))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := tls.X509KeyPair([]byte(m["ca/cert"]), []byte(m["ca/key"]))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// reissue replaces the certificate of a node by one for the same key and names, valid from and until
// so long from now.
func reissue(t *testing.T, ca tls.Certificate, node string, from, until time.Duration) {
	t.Helper()
	block, _ := pem.Decode([]byte(onNode(t, labName, node, "cat "+model.PathCert)))
	if block == nil {
		t.Fatalf("no certificate on %s", node)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.NotBefore, c.NotAfter, c.SerialNumber = now.Add(from), now.Add(until), big.NewInt(now.UnixNano())
	der, err := x509.CreateCertificate(rand.Reader, c, ca.Leaf, c.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	onNode(t, labName, node, "printf %s '"+string(text)+"' > "+model.PathCert+".new && mv "+model.PathCert+".new "+model.PathCert)
}
