//go:build race

package heal

// usually is fewer under the race detector: the simulation is one goroutine, and ten times as slow there.
const usually = 1000
