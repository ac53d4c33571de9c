// Package startup is the workload start-up. Go makes and drops no heap: it begins with the process, which is
// measured from outside with rounds=1. What is left of a round is a list that is made, walked and dropped.
package startup

import (
	"time"

	"spanheap/bench/peers/go/peer"
)

// Workload is start-up.
var Workload = peer.Workload{
	Name: "start-up",
	Keys: []peer.Key{
		{Name: "rounds", Default: 1000, Min: 1, Max: 1 << 32},
		{Name: "objects", Default: 1000, Max: 1 << 32},
	},
	Run: run,
}

type object struct {
	number uint64
	next   *object
}

// list makes so many objects, each of which points to the one before, and returns the last.
func list(objects, first uint64) *object {
	var last *object
	for i := range objects {
		last = &object{first + i, last}
	}
	return last
}

func run(p *peer.Params) (*peer.Outcome, error) {
	rounds, objects := p.Get("rounds"), p.Get("objects")
	outcome := &peer.Outcome{Operation: "round", Latency: &peer.Histogram{}}
	before := peer.Resident()
	var first, firstResident uint64
	for round := range rounds {
		begun := time.Now()
		for o := list(objects, round); o != nil; o = o.next {
			outcome.Checksum += o.number
		}
		took := uint64(time.Since(begun))
		outcome.Latency.Record(took)
		if round == 0 {
			first, firstResident = took, peer.Resident()
		}
	}
	outcome.Figures = []peer.Figure{
		{Key: "first_round_ns", Value: first},
		{Key: "first_resident_bytes", Value: max(firstResident, before) - before},
		{Key: "grown_resident_bytes", Value: max(peer.Resident(), firstResident) - firstResident},
	}
	return outcome, nil
}
