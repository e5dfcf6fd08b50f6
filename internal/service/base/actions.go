package base

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"nines/internal/host"
	"nines/internal/model"
	"nines/internal/service"
)

// setting is one kernel setting with its reason.
type setting struct {
	Key, Value, Reason string
	// Optional settings are skipped where the kernel does not have them.
	Optional bool
}

// settings lists what a node of these roles needs.
func settings(n model.Node) []setting {
	out := []setting{
		{Key: "net.ipv4.ip_nonlocal_bind", Value: "1",
			Reason: "HAProxy binds the VIP on the nodes that do not hold it, and services their address before it is up."},
		{Key: "net.ipv6.ip_nonlocal_bind", Value: "1", Optional: true, Reason: "The same for IPv6."},
		{Key: "net.ipv4.tcp_retries2", Value: "6",
			Reason: "A connection to a machine that vanished, or to a VIP that moved, fails after about 25 s; the default of 15 hangs for 13 to 30 minutes."},
		{Key: "net.ipv4.tcp_keepalive_time", Value: "30",
			Reason: "Idle connections of clients that ask for keepalive find a dead peer within 45 s, not 2 hours."},
		{Key: "net.ipv4.tcp_keepalive_intvl", Value: "5", Reason: "Part of the same."},
		{Key: "net.ipv4.tcp_keepalive_probes", Value: "3", Reason: "Part of the same."},
		{Key: "net.core.somaxconn", Value: "4096", Reason: "All clients come back at once after a failover."},
		{Key: "vm.swappiness", Value: "1", Reason: "A database or broker that is swapped out looks like a dead one to its peers."},
	}
	if n.Has(model.RoleCompute) {
		// Only where instances' packets pass: a controller must not route between its networks.
		out = append(out,
			setting{Key: "net.ipv4.ip_forward", Value: "1", Reason: "Instances' packets are routed here."},
			setting{Key: "net.bridge.bridge-nf-call-iptables", Value: "1", Optional: true,
				Reason: "Security groups see bridged packets; the key exists only while br_netfilter is loaded."},
			setting{Key: "net.bridge.bridge-nf-call-ip6tables", Value: "1", Optional: true, Reason: "The same for IPv6."})
	}
	return out
}

// containerFile exists where systemd runs in a container.
const containerFile = "/run/systemd/container"

// applicable are the settings that this node can have: in a container only net.* is its own.
func applicable(env service.Env) []setting {
	_, err := env.Host.ReadFile(containerFile)
	var out []setting
	for _, s := range settings(env.Node) {
		if err == nil && !strings.HasPrefix(s.Key, "net.") {
			continue
		}
		out = append(out, s)
	}
	return out
}

func procPath(key string) string { return "/proc/sys/" + strings.ReplaceAll(key, ".", "/") }

// sysctlLive compares the kernel's values with the wanted ones.
func sysctlLive(_ context.Context, env service.Env, _ map[string]string) (bool, string, error) {
	for _, s := range applicable(env) {
		f, err := env.Host.ReadFile(procPath(s.Key))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // this kernel, or this container, does not have it
		case err != nil:
			return false, "", fmt.Errorf("read %s: %w", s.Key, err)
		}
		if have := strings.TrimSpace(string(f.Content)); have != s.Value {
			return false, fmt.Sprintf("%s is %s, want %s", s.Key, have, s.Value), nil
		}
	}
	return true, "", nil
}

// sysctlApply applies nines's own file, and fails if a value that the node can have did not stick.
func sysctlApply(ctx context.Context, env service.Env, _ map[string]string) error {
	_, runErr := env.Host.Run(ctx, host.Cmd{Args: []string{"/usr/sbin/sysctl", "--quiet", "--load=" + sysctlPath}})
	done, reason, err := sysctlLive(ctx, env, nil)
	if err != nil {
		return err
	}
	if !done {
		return errors.Join(fmt.Errorf("kernel setting: %s", reason), runErr)
	}
	return nil // what failed cannot be had in this container
}

// listsFile records which source's lists were fetched.
const listsFile = model.PathState + "/package-lists"

// sourceMark stands for a source with its suite and key.
func sourceMark(p model.Packages) string {
	sum := sha256.Sum256([]byte(p.Source + "\x00" + p.Suite + "\x00" + p.KeyText))
	return hex.EncodeToString(sum[:8])
}

func listsFetched(_ context.Context, env service.Env, args map[string]string) (bool, string, error) {
	f, err := env.Host.ReadFile(listsFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, "never fetched", nil
	case err != nil:
		return false, "", err
	case strings.TrimSpace(string(f.Content)) != args["source"]:
		return false, "fetched from another source", nil
	}
	return true, "", nil
}

// fetchLists fetches the lists of the extra source alone: the node's own sources may not be reachable.
func fetchLists(ctx context.Context, env service.Env, args map[string]string) error {
	_, err := env.Host.Run(ctx, host.Cmd{
		Args: []string{"/usr/bin/apt-get", "update", "--quiet=2",
			"-o", "Dir::Etc::sourcelist=" + sourcePath, "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0",
			// A source that cannot be read is an error, not a warning.
			"-o", "APT::Update::Error-Mode=any"},
		Env: []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"},
	})
	if err != nil {
		return fmt.Errorf("fetch the package lists of %s (check packages.source, suite and key in cluster.yaml, and that the node reaches it): %w", env.Cluster.Packages.Source, err)
	}
	f := host.File{Path: listsFile, Mode: 0o600, Owner: "root", Group: "root", Content: []byte(args["source"] + "\n")}
	return env.Host.WriteFile(ctx, f, nil)
}
