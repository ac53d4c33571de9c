// Package marking is the workload marking: how long a full collection takes for graphs that stay.
//
// A collection is runtime.GC, which returns when all is marked and swept. CPU time is the process's, so that of all
// workers is in it.
package marking

import (
	"runtime"
	"time"

	"spanheap/bench/peers/go/peer"
)

// Workload is marking.
var Workload = peer.Workload{
	Name: "marking",
	Keys: []peer.Key{
		{Name: "shape", Default: 1, Max: 5},
		{Name: "objects", Default: 1_000_000, Min: 1024, Max: 1 << 32},
		{Name: "rounds", Default: 10, Min: 1, Max: 1_000_000},
	},
	Run: run,
}

// reached is what can be reached from what holds a graph.
type reached struct {
	checksum, objects, bytes uint64
}

func (r *reached) add(number, bytes uint64) {
	r.checksum += number + 1
	r.objects++
	r.bytes += bytes
}

// graph is what holds a graph.
type graph interface {
	// walk looks at every object once.
	walk() reached
}

var shapes = []func(objects uint64) graph{newTree, newRandom, newList, newLists, newArrays, newBlocks}

func run(p *peer.Params) (*peer.Outcome, error) {
	g := shapes[p.Get("shape")](p.Get("objects"))
	runtime.GC()
	outcome := &peer.Outcome{Operation: "cycle", Latency: &peer.Histogram{}}
	rounds := p.Get("rounds")
	cpu, started := peer.CPU(), time.Now()
	for range rounds {
		begun := time.Now()
		runtime.GC()
		outcome.Latency.Record(uint64(time.Since(begun)))
	}
	wall, spent := time.Since(started), peer.CPU()-cpu
	found := g.walk()
	outcome.Checksum = found.checksum
	visits := float64(rounds * found.objects)
	outcome.Figures = []peer.Figure{
		{Key: "reached", Value: found.objects},
		{Key: "reached_bytes", Value: found.bytes},
		peer.Real("cpu_ns_per_object", float64(spent)/visits),
		peer.Real("wall_ns_per_object", float64(wall)/visits),
		peer.Real("cycle_bytes_per_s", float64(found.bytes*rounds)/wall.Seconds()),
	}
	return outcome, nil
}
