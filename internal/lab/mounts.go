package lab

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// mountPoint is one line of a mountinfo file (proc(5)).
type mountPoint struct {
	device string // major:minor
	target string
	fstype string
	source string
}

// readMounts reads a mountinfo file, in the order things were mounted.
func readMounts(path string) ([]mountPoint, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var out []mountPoint
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20) // an overlay's options can be long
	for scanner.Scan() {
		if m, ok := parseMount(scanner.Text()); ok {
			out = append(out, m)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return out, nil
}

// parseMount reads one line: ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS [TAG...] - FSTYPE SOURCE OPTIONS.
func parseMount(line string) (mountPoint, bool) {
	left, right, ok := strings.Cut(line, " - ")
	a, b := strings.Fields(left), strings.Fields(right)
	if !ok || len(a) < 6 || len(b) < 2 {
		return mountPoint{}, false
	}
	return mountPoint{device: a[2], target: unescapeMount(a[4]), fstype: b[0], source: unescapeMount(b[1])}, true
}

// unescapeMount undoes the octal escapes of blanks and backslashes.
func unescapeMount(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// isBelow reports whether path is dir or in it.
func isBelow(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
