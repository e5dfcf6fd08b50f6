package node

import (
	"errors"
	"strings"

	"nines/internal/model"
	"nines/internal/secret"
	"nines/internal/service"
)

// redactor takes the cluster's secrets out of texts that leave the node: a program that
// refuses its configuration may quote the line.
type redactor struct{ replace *strings.Replacer }

// shortestSecret keeps harmless words from being replaced.
const shortestSecret = 6

func newRedactor(services []service.Service, c *model.Cluster, s secret.Source) redactor {
	var pairs []string
	for _, svc := range services {
		u, ok := svc.(service.SecretUser)
		if !ok || !c.Runs(svc.Name()) {
			continue
		}
		for _, spec := range u.Secrets(c) {
			if v, err := s.Get(spec.Name); err == nil && len(v) >= shortestSecret {
				pairs = append(pairs, v, "<secret:"+spec.Name+">")
			}
		}
	}
	for _, n := range c.Nodes {
		for _, l := range n.Levels() {
			if v, err := s.Get(l.PasswordSecret()); err == nil && len(v) >= shortestSecret {
				pairs = append(pairs, v, "<secret:"+l.PasswordSecret()+">")
			}
		}
	}
	return redactor{strings.NewReplacer(pairs...)}
}

func (r redactor) text(s string) string { return r.replace.Replace(s) }

// err returns an error with the redacted text of e, that still is what e is (errors.Is)
// and keeps its hint, but from which e's own text cannot be reached.
func (r redactor) err(e error) error {
	if e == nil {
		return nil
	}
	clean := r.text(e.Error())
	if clean == e.Error() {
		return e
	}
	return &redacted{text: clean, hint: r.text(hintOf(e)), is: func(target error) bool { return errors.Is(e, target) }}
}

type redacted struct {
	text, hint string
	is         func(error) bool
}

func (e *redacted) Error() string        { return e.text }
func (e *redacted) Hint() string         { return e.hint }
func (e *redacted) Is(target error) bool { return e.is(target) }
