// The workload binary-trees for Go's collector, to hold spanheap's against.
//
// It does what crates/spanheap-cli/src/bench/binary_trees.rs does, node for node: two pointers of
// 8 bytes, children first, every tree counted, no pools, and it prints the same checksum and one
// line of JSON with the same keys. With -threads above 1 the trees of each depth are divided among as
// many goroutines; with 1 there is one goroutine, and the collector has the other processors to itself.
//
//	go build -o binary_trees .
//	GOMAXPROCS=2 ./binary_trees -depth 18
//
// What longest_stall_ns and gc_cpu_s are for Go is at the head of the package peer.
package main

import (
	"flag"
	"runtime/debug"
	"sync"
	"time"

	"spanheap/bench/peers/go/peer"
)

const minDepth = 4

type node struct {
	left, right *node
}

// build makes a complete tree, children first.
func build(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	left := build(depth - 1)
	right := build(depth - 1)
	return &node{left, right}
}

// count looks at every node.
func (n *node) count() uint64 {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

// nodes is how many nodes a complete tree has.
func nodes(depth int) uint64 {
	return 2<<depth - 1
}

// share is the part of total that falls to the thread index of threads.
func share(total, threads, index int) int {
	part := total / threads
	if index < total%threads {
		part++
	}
	return part
}

// shortLived builds, counts and drops one thread's share of the trees of all depths.
func shortLived(depth, threads, index int) uint64 {
	var sum uint64
	for d := minDepth; d <= depth; d += 2 {
		for range share(1<<(depth-d+minDepth), threads, index) {
			sum += build(d).count()
		}
	}
	return sum
}

// workload returns the checksum.
func workload(depth, threads int) uint64 {
	if stretch := build(depth + 1).count(); stretch != nodes(depth+1) {
		peer.Fail("the stretch tree has %d nodes", stretch)
	}
	longLived := build(depth)
	sums := make([]uint64, threads)
	if threads == 1 {
		sums[0] = shortLived(depth, 1, 0)
	} else {
		var group sync.WaitGroup
		for index := range threads {
			group.Add(1)
			go func() {
				defer group.Done()
				sums[index] = shortLived(depth, threads, index)
			}()
		}
		group.Wait()
	}
	total := longLived.count()
	for _, sum := range sums {
		total += sum
	}
	return total
}

type params struct {
	Depth     int `json:"depth"`
	Threads   int `json:"threads"`
	GCPercent int `json:"gc_percent"`
}

// report has the keys of spanheap's report, in the same order.
type report struct {
	Workload       string  `json:"workload"`
	Subject        string  `json:"subject"`
	Params         params  `json:"params"`
	Checksum       uint64  `json:"checksum"`
	WallSeconds    float64 `json:"wall_s"`
	UserSeconds    float64 `json:"user_s"`
	SystemSeconds  float64 `json:"sys_s"`
	PeakResident   int64   `json:"peak_rss_bytes"`
	GCCycles       uint32  `json:"gc_cycles"`
	GCSeconds      float64 `json:"gc_cpu_s"`
	LongestStallNS int64   `json:"longest_stall_ns"`
}

// measure fills in what the system and the runtime know about this process.
func measure(r *report) {
	user, system := peer.Times()
	r.UserSeconds, r.SystemSeconds = user.Seconds(), system.Seconds()
	r.PeakResident = peer.PeakResident()
	r.GCCycles = peer.Cycles()
	seconds, stop := peer.Collector()
	r.GCSeconds, r.LongestStallNS = seconds, stop.Nanoseconds()
}

func main() {
	depth := flag.Int("depth", 16, "depth of the long-lived tree, 4 to 40")
	threads := flag.Int("threads", 1, "goroutines that share the work, 1 to 1024")
	percent := flag.Int("gc-percent", 100, "growth over the live heap before the next cycle")
	flag.Parse()
	if *depth < minDepth || *depth > 40 {
		peer.Fail("-depth is %d, it must be %d to 40", *depth, minDepth)
	}
	if *threads < 1 || *threads > 1024 {
		peer.Fail("-threads is %d, it must be 1 to 1024", *threads)
	}
	debug.SetGCPercent(*percent)

	r := report{
		Workload: "binary-trees",
		Subject:  "go",
		Params:   params{*depth, *threads, *percent},
	}
	started := time.Now()
	r.Checksum = workload(*depth, *threads)
	r.WallSeconds = time.Since(started).Seconds()
	measure(&r)
	peer.Print(r)
}
