// Package etcd runs the consensus of a cluster and implements store.Store on it.
// It is the only importer of etcd.
//
// Server is one embedded member; the controllers run three or five. Client is a
// store.Store over the network, on the controllers (with their own member as
// the only endpoint: it forwards to the leader) and on every other node (with all members).
//
// Invariants: every connection is mutually authenticated TLS; every write is
// flushed to disk by a majority before it is acknowledged; a member that has
// once taken part never starts again with an empty history; a lease is reported
// lost before anybody else can win it; a node that is cut off from the majority
// knows it within two seconds.
//
// It must never turn fsync off, form a second cluster by itself, change the
// membership by itself, or know what the stored values mean.
package etcd
