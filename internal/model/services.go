package model

// CoreServices are the services of the core, in the order in which a person would
// set them up. "base" is the operating system's part: hosts file, sysctl, chrony.
// They are what a cluster runs when its cluster.yaml names no services.
var CoreServices = []string{"base", "galera", "rabbitmq", "memcached", "haproxy", "keepalived", "keystone"}

// CloudServices are the services of OpenStack that stand on the core. They run where cluster.yaml names them.
var CloudServices = []string{"placement", "glance", "nova", "openvswitch", "ovn", "neutron", "cinder", "horizon", "heat"}

// BelowNeutron are those that follow from neutron.backend: where Neutron runs, they need not be named.
var BelowNeutron = []string{"openvswitch", "ovn"}

// KnownServices are all names that `services:` in cluster.yaml accepts. Of the engines of the VIP a cluster runs the
// one that vip.engine names.
var KnownServices = append(append(append([]string{}, CoreServices...), string(EnginePacemaker)), CloudServices...)
