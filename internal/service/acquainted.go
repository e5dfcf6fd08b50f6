package service

import "nines/internal/model"

// AwaitAcquainted is the command, as ExecStartPre= takes it, with which a member of a quorum waits after a boot until the agent knows who of the
// other controllers hears this one: where two of three do not hear each other one must stand aside (package stale), and a member that
// comes up on it before would tear the others' group apart. Where all answer that is at once. Without an agent: ten seconds.
const AwaitAcquainted = "-/usr/bin/timeout 10 /bin/sh -c 'until test -e " + model.PathAcquainted + "; do sleep 0.1; done'"
