package model

// CoreServices are the services of the core, in the order in which a person would
// set them up. "base" is the operating system's part: hosts file, sysctl, chrony.
// They are what a cluster runs when its cluster.yaml names no services.
var CoreServices = []string{"base", "galera", "rabbitmq", "memcached", "haproxy", "keepalived", "keystone"}

// KnownServices are all names that `services:` in cluster.yaml accepts.
var KnownServices = CoreServices
