package config

import (
	"maps"

	"nines/internal/model"
)

// presets says which defaults of fields another preset than nines replaces. Only values are there, as the file would
// give them, each with its source; what nines does beside them is the same with every preset. A test holds each
// preset to the bounds of fields and to the rules.
var presets = map[model.Preset]map[string]string{
	model.PresetKolla:     kolla,
	model.PresetReference: reference,
}

// kolla is what kolla-ansible's branch stable/2025.1 deploys where its user sets nothing.
var kolla = merged(galeraDefaults, rabbitmqDefaults, corosyncDefaults, haproxyUsual, map[string]string{
	// ansible/roles/loadbalancer/templates/keepalived/keepalived.conf.j2: advert_int 1.
	"vip.advert": "1s",
})

// reference is what OpenStack's High Availability Guide of the release Train says: repository openstack/ha-guide, doc/source, as of
// its last commit before it (c52a8cd0573b, August 2019). It has the VIP moved by Pacemaker and Corosync, of whose timers it sets
// none, or by keepalived.
var reference = merged(galeraDefaults, rabbitmqDefaults, corosyncDefaults, haproxyUsual, map[string]string{
	// Not in the guide: VRRP's own default, which is keepalived's (RFC 5798, 6.1, Advertisement_Interval), and kolla's too.
	"vip.advert": "1s",
})

// galeraDefaults are Galera's own (codership/galera, branch 4.x, gcomm/src/defaults.cpp and evs_proto.cpp): kolla-ansible sets none of
// them (galera.cnf.j2; mariadb_wsrep_extra_provider_options is empty in ansible/roles/mariadb/defaults/main.yml), nor does the guide
// (control-plane-stateful.rst).
var galeraDefaults = map[string]string{
	"tuning.galera.suspect_timeout":  "5s",     // EvsSuspectTimeout
	"tuning.galera.inactive_timeout": "15s",    // EvsInactiveTimeout
	"tuning.galera.install_timeout":  "7500ms", // half of inactive_timeout
	"tuning.galera.keepalive":        "1s",     // EvsRetransPeriod
	"tuning.galera.inactive_check":   "500ms",  // EvsInactiveCheckPeriod
	"tuning.galera.peer_timeout":     "3s",     // GMCastPeerTimeout
	"tuning.galera.join_retrans":     "1s",     // EvsJoinRetransPeriod
}

// rabbitmqDefaults are Erlang's (kernel(6), net_ticktime): kolla-ansible's rabbitmq.conf.j2 does not set it (rabbitmq_extra_config is
// empty), nor does the guide (control-plane-stateful.rst).
var rabbitmqDefaults = map[string]string{"tuning.rabbitmq.net_tick_time": "60s"}

// corosyncDefaults are Corosync's own for three nodes: token, 3000 ms, and token_coefficient, 650 ms, for the third (corosync.conf(5), totem). The guide names no
// timer of Corosync; kolla-ansible has it for other things than the VIP, and sets none (ansible/roles/hacluster/templates/hacluster_corosync.conf.j2).
var corosyncDefaults = map[string]string{"tuning.pacemaker.token": "3650ms"}

// haproxyUsual is "check inter 2000 rise 2 fall 5": haproxy_health_check in kolla-ansible's ansible/roles/haproxy-config/defaults/main.yml,
// and every server of the guide's example (control-plane-stateless.rst).
var haproxyUsual = map[string]string{
	"tuning.haproxy.inter":      "2s",
	"tuning.haproxy.http_inter": "2s",
	"tuning.haproxy.fast_inter": "2s", // not set by either: HAProxy then takes inter (its configuration manual, 5.2, inter)
	"tuning.haproxy.rise":       "2",
	"tuning.haproxy.fall":       "5",
}

func merged(parts ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, part := range parts {
		maps.Copy(out, part)
	}
	return out
}

// field is the key's entry in fields, with the default of the file's preset.
func (p *decoder) field(pattern string) field {
	f := fields[pattern]
	if value, ok := presets[p.cluster.Tuning.Preset][pattern]; ok {
		f.fallback = value
	}
	return f
}
