package config

import (
	"strings"
)

// suggest returns the word closest to the given one, or "" when none is close
// enough to be what was meant.
func suggest(word string, words []string) string {
	best, distance := "", len(word)/3+2
	plain := normal(word)
	for _, w := range words {
		if d := edits(plain, normal(w)); d < distance {
			best, distance = w, d
		}
	}
	return best
}

// oneOf says what would be right: the word that was meant, or all of them.
func oneOf(word string, words []string) string {
	if s := suggest(word, words); s != "" {
		return "did you mean " + s + "?"
	}
	if len(words) == 1 {
		return words[0]
	}
	return "one of " + strings.Join(words, ", ")
}

// normal removes the differences between styles: vipAddress, vip-address, vip_address.
func normal(word string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "").Replace(word))
}

// edits is the Levenshtein distance. Long words are not worth the time: they
// are not typing errors of a key.
func edits(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			previous, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, previous+cost)
		}
	}
	return row[len(b)]
}
