// Package requestarena has the workloads request-arena, a document that is decoded for each request, and arena-objects,
// objects that die together; on the heap and, in a program that was built with GOEXPERIMENT=arenas, in Go's arenas.
//
// The document is read from a file, which spanheap bench request-arena --print-document writes. It is decoded by the
// same steps as there into values of the same layout. CPU time is the process's, so that the collector's workers count.
// The figures are medians over the rounds; a round in which a cycle was completed ends with a whole one.
package requestarena

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"spanheap/bench/peers/go/peer"
)

// Workload is request-arena.
var Workload = peer.Workload{
	Name: "request-arena",
	Keys: []peer.Key{
		{Name: "requests", Default: 100_000, Min: 1, Max: 1 << 40},
		{Name: "rounds", Default: 20, Min: 1, Max: 10_000},
		{Name: "size", Default: 10 << 10, Min: 2048, Max: 64 << 20},
		{Name: "variant", Text: "heap"},
		{Name: "document", Text: "-"},
	},
	Run: run,
}

// variant is how a request gets its memory, and gives it back.
type variant struct {
	name  string
	begin func() place
	end   func(place)
}

// variants are those of a list of names.
func variants(names string) ([]variant, error) {
	var all []variant
	for name := range strings.SplitSeq(names, ",") {
		switch {
		case name == "heap":
			all = append(all, variant{name, func() place { return place{} }, func(place) {}})
		case name == "arena" && peer.HaveArenas:
			all = append(all, variant{name, inArena, place.free})
		case name == "arena":
			return nil, errors.New("variant=arena: this program was built without GOEXPERIMENT=arenas")
		default:
			return nil, fmt.Errorf("variant is %q, it must be heap or arena", name)
		}
	}
	return all, nil
}

func median(numbers []float64) float64 {
	numbers = slices.Sorted(slices.Values(numbers))
	n := len(numbers)
	return (numbers[(n-1)/2] + numbers[n/2]) / 2
}

// load reads the document, without the line break at its end.
func load(path string, size uint64) ([]byte, error) {
	if path == "-" {
		return nil, errors.New("document= is missing: the file with the document, " +
			"which spanheap bench request-arena --print-document writes")
	}
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if n := len(bytes); n > 0 && bytes[n-1] == '\n' {
		bytes = bytes[:n-1]
	}
	if uint64(len(bytes)) != size {
		return nil, fmt.Errorf("%s has %d bytes, and size is %d", path, len(bytes), size)
	}
	return bytes, nil
}

// server serves requests in one variant.
type server struct {
	variant
	document []byte
	proof    uint64
	decoder  decoder
	times    peer.Histogram
	cpu      []float64
	wall     []float64
	cycles   uint64
}

func run(p *peer.Params) (*peer.Outcome, error) {
	requests, rounds := p.Get("requests"), p.Get("rounds")
	if requests < rounds {
		return nil, fmt.Errorf("there are %d requests for %d rounds", requests, rounds)
	}
	document, err := load(p.Word("document"), p.Get("size"))
	if err != nil {
		return nil, err
	}
	all, err := variants(p.Word("variant"))
	if err != nil {
		return nil, err
	}
	var d decoder
	decoded, err := d.decode(document, place{})
	if err != nil {
		return nil, err
	}
	outcome := &peer.Outcome{Checksum: sum(&decoded)}
	outcome.Figures = []peer.Figure{{Key: "objects", Value: objects(&decoded)}}
	var servers []*server
	var grown []uint64
	for _, v := range all {
		s := &server{variant: v, document: document, proof: outcome.Checksum}
		peer.ResetPeakResident()
		before := peer.Resident()
		// Once without measuring, so that all have their memory.
		if _, err := s.serve(max(requests/rounds, 1)); err != nil {
			return nil, err
		}
		grown = append(grown, max(peer.PeakResident(), before)-before)
		s.times = peer.Histogram{}
		servers = append(servers, s)
	}
	for round := range int(rounds) {
		for turn := range servers {
			s := servers[(turn+round)%len(servers)]
			if err := s.round(peer.Share(requests, int(rounds), round)); err != nil {
				return nil, err
			}
		}
	}
	for i, s := range servers {
		row := []peer.Figure{
			{Key: "variant", Value: s.name},
			peer.Real("cpu_ns", median(s.cpu)),
			peer.Real("cpu_least_ns", slices.Min(s.cpu)),
			peer.Real("wall_ns", median(s.wall)),
			{Key: "gc_cycles", Value: s.cycles},
			{Key: "grown_bytes", Value: grown[i]},
		}
		outcome.Rows = append(outcome.Rows, append(row, peer.Percentiles("request", &s.times)...))
	}
	return outcome, nil
}

// round is a round.
func (s *server) round(requests uint64) error {
	cpu, started := peer.CPU(), time.Now()
	cycles, err := s.serve(requests)
	if err != nil {
		return err
	}
	each := func(spent time.Duration) float64 { return float64(spent.Nanoseconds()) / float64(requests) }
	s.wall = append(s.wall, each(time.Since(started)))
	s.cpu = append(s.cpu, each(peer.CPU()-cpu))
	s.cycles += cycles
	return nil
}

// serve serves so many requests, and returns how many cycles were completed meanwhile.
func (s *server) serve(requests uint64) (uint64, error) {
	cycles := peer.Cycles()
	// One reading of the clock for each: where one ends the next begins.
	before := time.Now()
	for range requests {
		place := s.begin()
		decoded, err := s.decoder.decode(s.document, place)
		if err != nil {
			return 0, err
		}
		found := sum(&decoded)
		s.end(place)
		if found != s.proof {
			return 0, fmt.Errorf("%s: a request found %d, and not %d", s.name, found, s.proof)
		}
		now := time.Now()
		s.times.Record(uint64(now.Sub(before)))
		before = now
	}
	if cycles = peer.Cycles() - cycles; cycles > 0 {
		runtime.GC()
	}
	return cycles, nil
}

// Objects is arena-objects.
var Objects = peer.Workload{
	Name: "arena-objects",
	Keys: []peer.Key{
		{Name: "objects", Default: 50_000, Min: 1, Max: 100_000_000},
		{Name: "arenas", Default: 200, Min: 1, Max: 1 << 40},
		{Name: "rounds", Default: 20, Min: 1, Max: 10_000},
		{Name: "variant", Text: "heap"},
	},
	Run: runObjects,
}

func runObjects(p *peer.Params) (*peer.Outcome, error) {
	arenas, rounds := p.Get("arenas"), p.Get("rounds")
	if arenas < rounds {
		return nil, fmt.Errorf("there are %d arenas for %d rounds", arenas, rounds)
	}
	all, err := variants(p.Word("variant"))
	if err != nil {
		return nil, err
	}
	outcome := &peer.Outcome{}
	for _, v := range all {
		cpu, wall, cycles := []float64{}, []float64{}, uint64(0)
		weight, _, _ := graphs(v, 1, p.Get("objects"))
		if outcome.Checksum == 0 {
			outcome.Checksum = weight
		}
		for round := range int(rounds) {
			count := peer.Share(arenas, int(rounds), round)
			before := peer.Cycles()
			found, spent, took := graphs(v, count, p.Get("objects"))
			if found != outcome.Checksum {
				return nil, fmt.Errorf("%s: a graph weighs %d, and not %d", v.name, found, outcome.Checksum)
			}
			cycles += peer.Cycles() - before
			nodes := float64(count * p.Get("objects"))
			cpu = append(cpu, float64(spent.Nanoseconds())/nodes)
			wall = append(wall, float64(took.Nanoseconds())/nodes)
		}
		outcome.Rows = append(outcome.Rows, []peer.Figure{
			{Key: "variant", Value: v.name},
			{Key: "gc_cycles", Value: cycles},
			peer.Real("node_cpu_ns", median(cpu)),
			peer.Real("node_cpu_least_ns", slices.Min(cpu)),
			peer.Real("node_wall_ns", median(wall)),
		})
	}
	return outcome, nil
}

// node is a node of a graph, with four pointers to those before it.
type node struct {
	children []*node
	values   [4]uint64
}

// graph makes count nodes and returns the last one.
func graph(p place, count uint64) *node {
	var last *node
	for i := range count {
		n, children := p.node()
		if last != nil {
			children[0] = last
			copy(children[1:], last.children[:3])
		}
		n.children = children
		n.values[0] = i
		last = n
	}
	return last
}

// weigh walks along the last of the pointers that lead to somewhere.
func weigh(n *node) uint64 {
	var total uint64
	for n != nil {
		total += n.values[0]
		next := n.children[3]
		if next == nil {
			next = n.children[0]
		}
		n = next
	}
	return total
}

// graphs makes and frees graphs of count nodes. It returns what one weighs, and the time that the nodes took: that of
// weighing them is no part of it.
func graphs(v variant, graphs, count uint64) (weight uint64, cpu, wall time.Duration) {
	for range graphs {
		before, started := peer.CPU(), time.Now()
		place := v.begin()
		last := graph(place, count)
		cpu += peer.CPU() - before
		wall += time.Since(started)
		weight = weigh(last)
		before, started = peer.CPU(), time.Now()
		v.end(place)
		cpu += peer.CPU() - before
		wall += time.Since(started)
	}
	return weight, cpu, wall
}
