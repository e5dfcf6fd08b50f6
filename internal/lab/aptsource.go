package lab

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// aptSource is one repository of an apt configuration, in either of its two
// formats (sources.list(5)).
type aptSource struct {
	URI        string
	Suites     []string
	Components []string
	SignedBy   string // path, or empty
}

// debianSuites are the names a Debian archive is used under. A third-party
// repository may use them too, so they are a condition and not a proof.
var debianSuites = []string{
	"bullseye", "bookworm", "trixie", "forky", "sid",
	"oldoldstable", "oldstable", "stable", "testing", "unstable",
}

// mirror is where images take their packages from.
type mirror struct {
	URI      string // empty: debootstrap's own default
	Security string // empty: no security updates
}

// readAptSources reads the apt configuration below dir (/etc/apt). What apt
// would ignore (other file names, entries switched off) is ignored here too.
func readAptSources(dir string) []aptSource {
	var out []aptSource
	if raw, err := os.ReadFile(filepath.Join(dir, "sources.list")); err == nil {
		out = append(out, parseOneLine(string(raw))...)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "sources.list.d"))
	if err != nil {
		return out
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, "sources.list.d", e.Name()))
		if err != nil {
			continue
		}
		switch filepath.Ext(e.Name()) {
		case ".list":
			out = append(out, parseOneLine(string(raw))...)
		case ".sources":
			out = append(out, parseDeb822(string(raw))...)
		}
	}
	return out
}

// parseOneLine reads the format "deb [option=value ...] URI suite component...".
func parseOneLine(text string) []aptSource {
	var out []aptSource
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || !strings.ContainsAny(rest[:1], " \t") {
			continue
		}
		rest = strings.TrimSpace(rest)
		var s aptSource
		if strings.HasPrefix(rest, "[") {
			options, after, found := strings.Cut(rest[1:], "]")
			if !found {
				continue
			}
			for _, option := range strings.Fields(options) {
				if key, value, _ := strings.Cut(option, "="); strings.EqualFold(key, "signed-by") {
					s.SignedBy = value
				}
			}
			rest = after
		}
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			continue
		}
		s.URI, s.Suites, s.Components = fields[0], fields[1:2], fields[2:]
		out = append(out, s)
	}
	return out
}

// parseDeb822 reads the stanza format of *.sources files.
func parseDeb822(text string) []aptSource {
	var out []aptSource
	for _, stanza := range stanzas(text) {
		if !slices.Contains(strings.Fields(stanza["types"]), "deb") {
			continue
		}
		if slices.Contains([]string{"no", "false", "off", "0", "without", "disable"}, strings.ToLower(stanza["enabled"])) {
			continue
		}
		signedBy := stanza["signed-by"]
		if !strings.HasPrefix(signedBy, "/") {
			signedBy = "" // the key itself, or nothing
		}
		for _, uri := range strings.Fields(stanza["uris"]) {
			out = append(out, aptSource{
				URI:        uri,
				Suites:     strings.Fields(stanza["suites"]),
				Components: strings.Fields(stanza["components"]),
				SignedBy:   signedBy,
			})
		}
	}
	return out
}

// stanzas splits deb822 text into stanzas of lower-cased field names and
// values with their continuation lines joined by newlines.
func stanzas(text string) []map[string]string {
	var out []map[string]string
	current, field := map[string]string{}, ""
	flush := func() {
		if len(current) > 0 {
			out = append(out, current)
		}
		current, field = map[string]string{}, ""
	}
	scanner := bufio.NewScanner(strings.NewReader(text))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		switch {
		case strings.HasPrefix(line, "#"): // allowed anywhere, also inside a value
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			if field != "" {
				current[field] += "\n" + strings.TrimSpace(line)
			}
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			field = strings.ToLower(strings.TrimSpace(name))
			current[field] = strings.TrimSpace(value)
		}
	}
	flush()
	return out
}

// debianMirror picks, out of a host's apt configuration, the archive that
// carries Debian itself, and the one with its security updates. Nothing fits:
// an empty mirror, which leaves the choice to debootstrap.
func debianMirror(sources []aptSource) mirror {
	var m mirror
	best := 0
	for _, s := range sources {
		if score := debianScore(s, sources); score > best {
			m.URI, best = s.URI, score
		}
	}
	if m.URI == "" {
		return m
	}
	for _, s := range sources {
		if usable(s) && slices.ContainsFunc(s.Suites, isSecuritySuite) {
			m.Security = s.URI
			break
		}
	}
	return m
}

// debianScore says how much a source looks like the Debian archive; 0: not at
// all. Vendors publish repositories under Debian's suite names with a component
// "main", so more than these is looked at.
func debianScore(s aptSource, all []aptSource) int {
	if !usable(s) || !slices.ContainsFunc(s.Suites, func(x string) bool { return slices.Contains(debianSuites, x) }) {
		return 0
	}
	score := 1
	if strings.Contains(s.SignedBy, "debian-archive") {
		score += 4
	}
	if strings.HasSuffix(strings.TrimRight(s.URI, "/"), "/debian") {
		score++
	}
	for _, other := range all { // only Debian itself has point-release updates beside its suite
		if other.URI == s.URI && slices.ContainsFunc(other.Suites, func(x string) bool { return strings.HasSuffix(x, "-updates") }) {
			return score + 2
		}
	}
	return score
}

// usable reports whether debootstrap and apt inside an image can use it.
func usable(s aptSource) bool {
	if !strings.HasPrefix(s.URI, "http://") && !strings.HasPrefix(s.URI, "https://") {
		return false
	}
	if s.SignedBy != "" && !strings.Contains(filepath.Base(s.SignedBy), "debian") {
		return false
	}
	return slices.Contains(s.Components, "main")
}

// isSecuritySuite knows the names security updates had and have.
func isSecuritySuite(suite string) bool {
	return strings.HasSuffix(suite, "-security") || strings.HasSuffix(suite, "/updates")
}
