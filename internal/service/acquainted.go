package service

import "nines/internal/model"

// AwaitAcquainted is the command, as ExecStartPre= takes it, with which a member of a quorum waits until the network to the other controllers is
// one that it can work with. After a boot the agent finds out who of them hears this one: where two of three do not hear each other one must stand
// aside (package stale), and a member that comes up on it before would tear the others' group apart. Where all answer that is at once; without an
// agent, ten seconds. While this node stands aside a member would reach nobody, and RabbitMQ's goes on waiting for the others for minutes after
// that is over. An agent that died does not renew its word: fifteen seconds.
const AwaitAcquainted = "-/bin/sh -c '" +
	"timeout 10 sh -c \"until test -e " + model.PathAcquainted + "; do sleep 0.1; done\"; " +
	"while find " + model.PathAside + " -mmin -0.25 2>/dev/null | grep -q .; do sleep 0.2; done'"
