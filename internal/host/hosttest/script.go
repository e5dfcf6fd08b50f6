package hosttest

import (
	"slices"
	"time"

	"nines/internal/host"
)

// PutFile changes a file behind nines's back; owner and group default to root.
func (h *Host) PutFile(f host.File) {
	h.outside(func() {
		if f.Owner == "" {
			f.Owner = "root"
		}
		if f.Group == "" {
			f.Group = "root"
		}
		h.put(f)
	})
}

// DropFile removes a file behind nines's back.
func (h *Host) DropFile(path string) { h.outside(func() { delete(h.files, path) }) }

// Offer makes packages available to InstallPackages.
func (h *Host) Offer(ps ...Package) {
	h.outside(func() {
		for _, p := range ps {
			h.offered[p.Name] = p
		}
	})
}

// PutPackage makes a package installed.
func (h *Host) PutPackage(name, version string) { h.outside(func() { h.markInstalled(name, version) }) }

// PutUnit makes a unit known in the given state.
func (h *Host) PutUnit(name string, st host.UnitState) {
	h.outside(func() {
		u := h.unitFile(name)
		u.UnitState = st
		if st.FileState == "" {
			u.FileState = map[bool]string{true: "enabled", false: "disabled"}[st.Enabled]
		}
		u.started, u.read = nil, nil
		if st.Active == "active" {
			u.started, u.read = h.contents(), h.contents()
		}
	})
}

// Bounce starts a unit behind nines's back, as Restart=always or an operator does; a running one
// is restarted. A unit that does not exist stays so.
func (h *Host) Bounce(name string) {
	h.outside(func() {
		if u := h.find(name); u != nil {
			h.begin(u)
		}
	})
}

// Halt stops a unit behind nines's back; active is its state then: "inactive", "failed", "activating".
func (h *Host) Halt(name, active string) {
	h.outside(func() {
		if u := h.find(name); u != nil {
			u.end(active)
		}
	})
}

// Reboot stops every unit and starts the enabled ones.
func (h *Host) Reboot() {
	h.outside(func() {
		names := make([]string, 0, len(h.units))
		for n := range h.units {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			u := h.units[n]
			u.end("inactive")
			u.Started, u.Invocation = time.Time{}, ""
			if u.Enabled {
				h.begin(u)
			}
		}
	})
}

// outside is a change that nines did not make: not recorded, never crashing.
func (h *Host) outside(apply func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(time.Second)
	apply()
}

// Handle answers commands whose arguments, joined by spaces, start with prefix; the longest
// prefix counts, and the latest of equal ones. It also serves as validator of files: Stdin is the candidate then.
func (h *Host) Handle(prefix string, answer func(cmd host.Cmd) (host.Output, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handlers = append(h.handlers, handler{prefix, answer})
}

// Answer is Handle with a fixed standard output and exit code.
func (h *Host) Answer(prefix, stdout string, code int) {
	h.Handle(prefix, func(cmd host.Cmd) (host.Output, error) {
		out := host.Output{Stdout: []byte(stdout)}
		if code != 0 {
			return out, &host.ExitError{Args: cmd.Args, Code: code, Stderr: stdout}
		}
		return out, nil
	})
}

// Fail makes every call of verb on target fail with err, without effect; nil ends it. An
// empty target means all.
func (h *Host) Fail(verb, target string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.failures, verb+" "+target)
		return
	}
	h.failures[verb+" "+target] = err
}

// CrashAfter lets n more changes pass; at the next one the machine (or the agent on it) dies: every
// call fails with ErrCrashed until Revive. applied says whether that last change took effect before.
func (h *Host) CrashAfter(n int, applied bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.crash.armed, h.crash.at, h.crash.applied = true, h.changes+n, applied
}

// Revive ends a crash (and disarms one to come). It reports whether there was one.
func (h *Host) Revive() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.crash.crashed
	h.crash.armed, h.crash.crashed = false, false
	return was
}

// Calls returns the changes and commands nines made, in order: "write /etc/hosts", "restart x.service".
func (h *Host) Calls() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.calls)
}

// Commands returns the commands that were run.
func (h *Host) Commands() []host.Cmd {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.commands)
}

// Forget empties the record of calls and commands.
func (h *Host) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls, h.commands = nil, nil
}

// StartedWith returns what the running unit found in the file when it started.
func (h *Host) StartedWith(unit, path string) (content string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.units[unit]; u != nil {
		content, ok = u.started[path]
	}
	return content, ok
}

// LastRead returns what the running unit found in the file when it last started or reloaded.
func (h *Host) LastRead(unit, path string) (content string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.units[unit]; u != nil {
		content, ok = u.read[path]
	}
	return content, ok
}
