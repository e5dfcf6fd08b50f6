package pacemaker

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// element is a part of the CIB. Text and comments have no meaning there.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Children []element  `xml:",any"`
}

func parseCIB(text []byte) (element, error) {
	var e element
	if err := xml.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("the CIB: %w", err)
	}
	if e.XMLName.Local != "cib" || e.child("configuration") == nil {
		return e, fmt.Errorf("the CIB: <%s> without a configuration", e.XMLName.Local)
	}
	return e, nil
}

func (e *element) child(name string) *element {
	for i := range e.Children {
		if e.Children[i].XMLName.Local == name {
			return &e.Children[i]
		}
	}
	return nil
}

func (e *element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// canonical writes the element so that two that mean the same are equal: in the CIB, the order of attributes and of
// elements with an id means nothing (there are no groups and no sets in ours).
func (e element) canonical() string {
	var b strings.Builder
	b.WriteString("<" + e.XMLName.Local)
	attrs := slices.Clone(e.Attrs)
	slices.SortFunc(attrs, func(a, b xml.Attr) int { return cmp.Compare(a.Name.Local, b.Name.Local) })
	for _, a := range attrs {
		fmt.Fprintf(&b, " %s=%q", a.Name.Local, a.Value)
	}
	parts := make([]string, len(e.Children))
	for i, c := range e.Children {
		parts[i] = c.canonical()
	}
	slices.Sort(parts)
	return b.String() + ">" + strings.Join(parts, "") + "</>"
}

// automatic are the cluster's properties that Pacemaker itself writes.
var automatic = []string{"dc-version", "cluster-infrastructure", "cluster-name", "have-watchdog", "last-lrm-refresh"}

// own returns the section without what Pacemaker itself writes into it; sets that hold nothing else are no one's.
func own(section element) element {
	if section.XMLName.Local != "crm_config" {
		return section
	}
	sets := section.Children
	section.Children = nil
	for _, set := range sets {
		pairs := set.Children
		set.Children = nil
		for _, p := range pairs {
			if !slices.Contains(automatic, p.attr("name")) {
				set.Children = append(set.Children, p)
			}
		}
		if len(set.Children) > 0 {
			section.Children = append(section.Children, set)
		}
	}
	return section
}

// written returns the rest of the section: what Pacemaker itself writes.
func written(section element) []element {
	var out []element
	for _, set := range section.Children {
		pairs := set.Children
		set.Children = nil
		for _, p := range pairs {
			if slices.Contains(automatic, p.attr("name")) {
				set.Children = append(set.Children, p)
			}
		}
		if len(set.Children) > 0 {
			out = append(out, set)
		}
	}
	return out
}

// sections are the parts of a configuration that are nines's: all but the nodes, where an operator says that one stands by.
func sections(cib element) map[string]element {
	out := map[string]element{}
	for _, s := range cib.child("configuration").Children {
		if s.XMLName.Local == "nodes" {
			continue
		}
		if s = own(s); len(s.Children) > 0 {
			out[s.XMLName.Local] = s
		}
	}
	return out
}

// differences names what differs between the live CIB and the wanted one; none: nothing does.
func differences(live, want element) []string {
	have, wanted := sections(live), sections(want)
	names := slices.Sorted(maps.Keys(have))
	for name := range wanted {
		if _, ok := have[name]; !ok {
			names = append(names, name)
		}
	}
	var out []string
	for _, name := range names {
		theirs, ours := byID(have[name]), byID(wanted[name])
		for _, id := range slices.Sorted(maps.Keys(ours)) {
			switch text, there := theirs[id]; {
			case !there:
				out = append(out, id+" is missing")
			case text != ours[id]:
				out = append(out, id+" is changed")
			}
		}
		for _, id := range slices.Sorted(maps.Keys(theirs)) {
			if _, ok := ours[id]; !ok {
				out = append(out, id+" was added")
			}
		}
	}
	return out
}

// byID returns the parts of a section by what a person calls them: of sets of options, the options.
func byID(section element) map[string]string {
	out := map[string]string{}
	for _, e := range section.Children {
		if e.child("nvpair") == nil {
			out[e.attr("id")] = e.canonical()
			continue
		}
		pairs := e.Children
		e.Children = nil
		set := e.canonical()
		for _, p := range pairs {
			out[cmp.Or(p.attr("name"), p.attr("id"))+" ("+section.XMLName.Local+")"] = set + p.canonical()
		}
	}
	return out
}

// merged is the configuration to put in the place of the live one: the wanted one, with the nodes and with what Pacemaker
// itself has written.
func merged(live, want element) element {
	conf := element{XMLName: xml.Name{Local: "configuration"}}
	for _, s := range want.child("configuration").Children {
		s.Children = slices.Clone(s.Children)
		switch s.XMLName.Local {
		case "nodes":
			if n := live.child("configuration").child("nodes"); n != nil {
				s = *n
			}
		case "crm_config":
			if have := live.child("configuration").child("crm_config"); have != nil {
				s.Children = append(s.Children, written(*have)...)
			}
		}
		conf.Children = append(conf.Children, s)
	}
	return conf
}

func (e element) text() ([]byte, error) {
	var b bytes.Buffer
	enc := xml.NewEncoder(&b)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}
