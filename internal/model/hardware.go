package model

import "time"

// Hardware is the size of a machine.
type Hardware struct {
	Cores       int
	MemoryBytes uint64
	DiskBytes   uint64
	NICs        int
}

// GB is the vendors' gigabyte. The rules count in it, so that a machine sold with 12 GB meets
// a rule of 12 GB although its kernel reports less than 12 GiB.
const GB = 1_000_000_000

// Needs says what a node of each role must have at least.
var Needs = map[Role]Hardware{
	RoleController: {Cores: 4, MemoryBytes: 12 * GB, DiskBytes: 120 * GB, NICs: 2},
	RoleCompute:    {Cores: 8, MemoryBytes: 12 * GB, DiskBytes: 120 * GB, NICs: 2},
}

// MaxControllerLatency is the longest round trip between two controllers: each commit of
// the database and of etcd waits for one or two of them.
const MaxControllerLatency = 2 * time.Millisecond
