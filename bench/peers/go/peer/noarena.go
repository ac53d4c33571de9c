//go:build !goexperiment.arenas

package peer

// HaveArenas says whether this program can have arenas. They are an experiment of Go's: GOEXPERIMENT=arenas.
const HaveArenas = false
