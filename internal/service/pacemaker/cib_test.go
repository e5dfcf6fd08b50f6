package pacemaker

import (
	"encoding/xml"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func wanted(t interface{ Fatal(...any) }, fencing bool) element {
	text, err := render("cib.xml", newCIBView(cluster(fencing)))
	if err != nil {
		t.Fatal(err)
	}
	e, err := parseCIB(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// clone copies the element with all below it.
func (e element) clone() element {
	e.Attrs = slices.Clone(e.Attrs)
	e.Children = slices.Clone(e.Children)
	for i := range e.Children {
		e.Children[i] = e.Children[i].clone()
	}
	return e
}

// parts are all elements below e, itself included.
func (e *element) parts() []*element {
	out := []*element{e}
	for i := range e.Children {
		out = append(out, e.Children[i].parts()...)
	}
	return out
}

func parsed(t interface{ Fatal(...any) }, text string) element {
	var e element
	if err := xml.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// asPacemakerKeepsIt is the same configuration in another order, with what Pacemaker writes by itself.
func asPacemakerKeepsIt(t *rapid.T, want element) element {
	live := want.clone()
	conf := live.child("configuration")
	*conf.child("nodes") = parsed(t, `<nodes><node id="1" uname="ctl1"><instance_attributes id="nodes-1"><nvpair id="s" name="standby" value="on"/></instance_attributes></node></nodes>`)
	options := conf.child("crm_config")
	options.Children = append(options.Children, parsed(t, `<cluster_property_set id="cib-bootstrap-options"><nvpair id="v" name="dc-version" value="3.0.0"/><nvpair id="w" name="have-watchdog" value="false"/></cluster_property_set>`))
	live.Attrs = append(live.Attrs, xml.Attr{Name: xml.Name{Local: "dc-uuid"}, Value: "2"})
	for _, e := range live.parts() {
		e.Attrs = rapid.Permutation(e.Attrs).Draw(t, "attributes")
		e.Children = rapid.Permutation(e.Children).Draw(t, "children")
	}
	return live
}

func TestRenderedIsNoDrift(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := wanted(t, rapid.Bool().Draw(t, "fencing"))
		if d := differences(asPacemakerKeepsIt(t, want), want); len(d) > 0 {
			t.Fatal(d)
		}
	})
}

// Whatever somebody changes is seen, and what is put in its place differs no more and keeps what is Pacemaker's.
func TestEditsAreSeenAndMended(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := wanted(t, true)
		live := asPacemakerKeepsIt(t, want)
		conf := live.child("configuration")
		var mine []*element
		for _, s := range conf.Children {
			if s.XMLName.Local != "nodes" {
				section := conf.child(s.XMLName.Local)
				for _, p := range section.parts()[1:] {
					if len(p.Attrs) > 0 && !slices.Contains(automatic, p.attr("name")) && p.attr("id") != "cib-bootstrap-options" {
						mine = append(mine, p)
					}
				}
			}
		}
		victim := rapid.SampledFrom(mine).Draw(t, "victim")
		switch rapid.SampledFrom([]string{"value", "more", "constraint", "property"}).Draw(t, "edit") {
		case "value":
			i := rapid.IntRange(0, len(victim.Attrs)-1).Draw(t, "attribute")
			victim.Attrs[i].Value += "x"
		case "more":
			victim.Children = append(victim.Children, parsed(t, `<nvpair id="new" name="target-role" value="Stopped"/>`))
		case "constraint":
			c := conf.child("constraints")
			c.Children = append(c.Children, parsed(t, `<rsc_location id="cli-ban-vip-on-ctl1" rsc="vip" node="ctl1" score="-INFINITY"/>`))
		case "property":
			c := conf.child("crm_config")
			c.Children[0].Children = append(c.Children[0].Children, parsed(t, `<nvpair id="m" name="maintenance-mode" value="true"/>`))
		}
		if d := differences(live, want); len(d) == 0 {
			t.Fatal("the edit is not seen")
		}
		mended := live.clone()
		*mended.child("configuration") = merged(live, want)
		if d := differences(mended, want); len(d) > 0 {
			t.Fatal(d)
		}
		text, err := mended.text()
		if err != nil {
			t.Fatal(err)
		}
		for _, kept := range []string{"dc-version", "have-watchdog", "standby"} {
			if !strings.Contains(string(text), `"`+kept+`"`) {
				t.Fatalf("%s is lost", kept)
			}
		}
		if again, err := parseCIB(text); err != nil || len(differences(again, want)) > 0 {
			t.Fatal("written and read again it differs", err)
		}
	})
}

func TestDifferencesSpeakOfWhatPeopleKnow(t *testing.T) {
	want := wanted(t, false)
	live := want.clone()
	conf := live.child("configuration")
	conf.child("constraints").Children = append(conf.child("constraints").Children, parsed(t, `<rsc_location id="cli-ban-vip-on-ctl1" rsc="vip" node="ctl1" score="-INFINITY"/>`))
	options := conf.child("crm_config")
	options.Children = append(options.Children, parsed(t, `<cluster_property_set id="cib-bootstrap-options"><nvpair id="m" name="maintenance-mode" value="true"/></cluster_property_set>`))
	conf.child("resources").Children[0].Children[0].Children[0].Attrs[2].Value = "192.0.2.1"
	got := strings.Join(differences(live, want), ", ")
	if got != "cli-ban-vip-on-ctl1 was added, maintenance-mode (crm_config) was added, vip is changed" {
		t.Error(got)
	}
	if _, err := parseCIB([]byte("<cib/>")); err == nil {
		t.Error("a CIB without a configuration is accepted")
	}
}

func FuzzParseCIB(f *testing.F) {
	f.Add([]byte("<cib><configuration/></cib>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if e, err := parseCIB(text); err == nil {
			differences(e, wanted(t, false))
		}
	})
}
