//go:build !race

package heal

// usually is how many schedules the simulation runs: about ten seconds.
const usually = 10000
