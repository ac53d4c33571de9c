// The workloads request-arena and arena-objects for Go's heap and Go's arenas, to hold spanheap's against.
//
// It does what crates/spanheap-cli/src/bench/request_arena and arena_objects.rs do: the same document, which is read from
// a file, decoded by the same decoder into values of the same layout, the same walk, the same checksum. The variant is
// heap or arena; there are arenas in a program that was built with GOEXPERIMENT=arenas.
//
//	GOEXPERIMENT=arenas go build -o request_arena ./request_arena
//	GOMAXPROCS=2 ./request_arena -document order.json -variant arena
//	GOMAXPROCS=2 ./request_arena -objects 50000 -requests 200 -variant arena
//
// CPU time is the process's, so that the collector's workers count. The figures are medians over the rounds.
package main

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"spanheap/bench/peers/go/peer"
)

// node is an object of 56 bytes with a slice of four pointers.
type node struct {
	children []*node
	values   [4]uint64
}

// row has the keys of a row of spanheap's report.
type row struct {
	Variant string  `json:"variant"`
	CPU     float64 `json:"cpu_ns"`
	Wall    float64 `json:"wall_ns"`
	Cycles  uint32  `json:"gc_cycles"`
}

// report has the keys of spanheap's report.
type report struct {
	Workload     string `json:"workload"`
	Subject      string `json:"subject"`
	Checksum     uint64 `json:"checksum"`
	Objects      uint64 `json:"objects"`
	PeakResident int64  `json:"peak_rss_bytes"`
	Rows         []row  `json:"rows"`
}

func median(numbers []float64) float64 {
	slices.Sort(numbers)
	n := len(numbers)
	return (numbers[(n-1)/2] + numbers[n/2]) / 2
}

// variant is how a request gets its memory, and gives it back.
type variant struct {
	begin func() place
	end   func(place)
}

func variantOf(name string) variant {
	switch {
	case name == "heap":
		return variant{func() place { return place{} }, func(place) {}}
	case name == "arena" && haveArenas:
		return variant{inArena, place.free}
	case name == "arena":
		peer.Fail("this program was built without GOEXPERIMENT=arenas")
	default:
		peer.Fail("-variant is %q, it must be heap or arena", name)
	}
	panic("not reached")
}

// documents serves requests, and returns what one finds.
func documents(bytes []byte, v variant, requests int, d *decoder) uint64 {
	var found uint64
	for i := range requests {
		place := v.begin()
		decoded, err := d.decode(bytes, place)
		if err != nil {
			peer.Fail("the document: %v", err)
		}
		this := sum(&decoded)
		if i > 0 && this != found {
			peer.Fail("a request found %d, and one before it %d", this, found)
		}
		found = this
		v.end(place)
	}
	return found
}

// graph makes count nodes, each of which points to the four before it, and returns the last one.
func graph(p place, count int) *node {
	var last *node
	for i := range count {
		n, children := p.node()
		if last != nil {
			children[0] = last
			copy(children[1:], last.children[:3])
		}
		n.children = children
		n.values[0] = uint64(i)
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

// graphs makes and frees graphs of count nodes. It returns what one weighs, and the time that the nodes took:
// that of weighing them is no part of it.
func graphs(v variant, graphs, count int) (weight uint64, cpu, wall time.Duration) {
	for range graphs {
		before, started := peer.CPU(), time.Now()
		place := v.begin()
		last := graph(place, count)
		cpu += peer.CPU() - before
		wall += time.Since(started)
		weight = weigh(last)
		before, started = peer.CPU(), time.Now()
		last = nil
		v.end(place)
		cpu += peer.CPU() - before
		wall += time.Since(started)
	}
	return weight, cpu, wall
}

func main() {
	document := flag.String("document", "", "the file with the document")
	nodes := flag.Int("objects", 0, "make so many objects in each request, and decode no document")
	name := flag.String("variant", "heap", "heap or arena")
	requests := flag.Int("requests", 100000, "how many requests")
	rounds := flag.Int("rounds", 20, "in how many rounds")
	percent := flag.Int("gc-percent", 100, "growth over the live heap before the next cycle")
	flag.Parse()
	if *rounds < 1 || *requests < *rounds {
		peer.Fail("-requests is %d and -rounds %d, there must be a request in each round", *requests, *rounds)
	}
	debug.SetGCPercent(*percent)
	v := variantOf(*name)

	r := report{Workload: "request-arena", Subject: "go"}
	var round func(requests int) (cpu, wall time.Duration)
	each := 1
	if *nodes > 0 {
		r.Workload, r.Objects, each = "arena-objects", uint64(*nodes), *nodes
		round = func(requests int) (cpu, wall time.Duration) {
			r.Checksum, cpu, wall = graphs(v, requests, *nodes)
			return cpu, wall
		}
	} else {
		bytes, err := os.ReadFile(*document)
		if err != nil {
			peer.Fail("%v", err)
		}
		var d decoder
		decoded, err := d.decode(bytes, place{})
		if err != nil {
			peer.Fail("the document: %v", err)
		}
		r.Objects = objects(&decoded)
		round = func(requests int) (cpu, wall time.Duration) {
			before, started := peer.CPU(), time.Now()
			r.Checksum = documents(bytes, v, requests, &d)
			return peer.CPU() - before, time.Since(started)
		}
	}
	round(*requests / *rounds)
	runtime.GC()
	cycles := peer.Cycles()
	var cpus, walls []float64
	for i := range *rounds {
		share := *requests / *rounds
		if i < *requests%*rounds {
			share++
		}
		cpu, wall := round(share)
		cpus = append(cpus, float64(cpu.Nanoseconds())/float64(share*each))
		walls = append(walls, float64(wall.Nanoseconds())/float64(share*each))
	}
	r.Rows = []row{{*name, median(cpus), median(walls), peer.Cycles() - cycles}}
	r.PeakResident = peer.PeakResident()
	peer.Print(r)
}
