// Package writestorm is the workload write-storm: what a store of a pointer costs, while nothing is collected and
// while marking runs.
//
// Slots of a table point to nodes of a tree, and one store is table[i] = table[j], with i and j at random. Times are
// the thread's own CPU time, the least of some repetitions where no cycles run. Go does not tell a program whether it is
// marking; so what counts as "marking" are all stores while another goroutine runs one runtime.GC after the other, of
// which marking is nearly all: the heap has few spans to sweep, and no cycle has garbage. The way "atomic" is left out:
// Go has no release store, and the exchange that it has instead is another thing.
package writestorm

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"spanheap/bench/peers/go/peer"
)

// Workload is write-storm.
var Workload = peer.Workload{
	Name: "write-storm",
	Keys: []peer.Key{
		{Name: "slots", Default: 16_000_000, Min: 1, Max: 1 << 31},
		{Name: "nodes", Default: 1_000_000, Min: 1, Max: 1 << 31},
		{Name: "stores", Default: 100_000_000, Min: 1, Max: math.MaxInt64},
	},
	// Cycles run when this workload says so, and only then.
	Settings: func(p *peer.Params) error {
		p.GCPercent, p.Limit = -1, math.MaxInt64
		return nil
	},
	Run: run,
}

// repeats of a way to store. The least time is taken.
const repeats = 4

// parts are the sizes of the tables, as parts of slots.
var parts = []struct {
	name string
	part uint64
}{{"small", 4096}, {"medium", 64}, {"large", 1}}

type node struct {
	number      uint64
	left, right *node
}

func run(p *peer.Params) (*peer.Outcome, error) {
	all := tree(p.Get("nodes"))
	outcome := &peer.Outcome{}
	cycles := uint64(0)
	for _, part := range parts {
		// Each thread has some slots, and as many as the others.
		each := max(p.Get("slots")/part.part/uint64(p.Threads), 2)
		s := &storm{
			nodes:   all,
			each:    int(each),
			threads: p.Threads,
			stores:  max(p.Get("stores")/uint64(len(parts))/repeats, 1),
		}
		before := peer.Cycles()
		ways, err := s.allWays(outcome)
		if err != nil {
			return nil, err
		}
		cycles += peer.Cycles() - before
		outcome.Figures = append(outcome.Figures,
			peer.Figure{Key: part.name + "_slots", Value: each * uint64(p.Threads)},
			peer.Real(part.name+"_plain_ns", ways.plain),
			peer.Real(part.name+"_idle_ns", ways.idle),
			peer.Real(part.name+"_marking_ns", ways.marking),
			peer.Figure{Key: part.name + "_stores_while_marking", Value: s.stores})
	}
	outcome.Figures = append(outcome.Figures, peer.Figure{Key: "cycles_while_storing", Value: cycles})
	return outcome, nil
}

// tree makes a tree of so many nodes, from the leaves up, and returns all of them by number.
func tree(nodes uint64) []*node {
	all := make([]*node, nodes)
	child := func(number uint64) *node {
		if number < nodes {
			return all[number]
		}
		return nil
	}
	for number := nodes; number > 0; {
		number--
		all[number] = &node{number, child(2*number + 1), child(2*number + 2)}
	}
	return all
}

// storm is one size of the table.
type storm struct {
	nodes []*node
	// each is how many slots a thread has.
	each    int
	threads int
	// stores of a way, in one repetition.
	stores uint64
}

// ways are nanoseconds for each store.
type ways struct {
	plain, idle, marking float64
}

// times is what one thread has measured.
type times struct {
	spent  time.Duration
	stores uint64
}

func (s *storm) allWays(outcome *peer.Outcome) (ways, error) {
	var found ways
	numbers := tables(s, func(i int) uint { return uint(i) })
	found.plain = s.least(func(index int, random *peer.Random, count uint64) {
		stores(numbers[index], random, count)
	})
	nodes := tables(s, func(i int) *node { return s.nodes[i%len(s.nodes)] })
	inHeap := func(index int, random *peer.Random, count uint64) { stores(nodes[index], random, count) }
	found.idle = s.least(inHeap)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	measured := s.repeat(repeats, inHeap)
	close(stop)
	<-stopped
	found.marking = perStore(measured)
	for index, table := range nodes {
		sum, err := s.verify(index, table)
		if err != nil {
			return found, err
		}
		outcome.Checksum += sum
	}
	return found, nil
}

// tables makes a table for each thread.
func tables[T any](s *storm, slot func(i int) T) [][]T {
	all := make([][]T, s.threads)
	for t := range all {
		all[t] = make([]T, s.each)
		for i := range all[t] {
			all[t][i] = slot(i)
		}
	}
	return all
}

// stores does so many stores. What is stored is an unsigned number or a pointer to a node, and the compiler makes code
// of its own for each of the two.
func stores[T uint | *node](table []T, random *peer.Random, count uint64) {
	for range count {
		i, j := random.Below(len(table)), random.Below(len(table))
		table[i] = table[j]
	}
}

// way does so many stores of the thread index.
type way func(index int, random *peer.Random, count uint64)

// least is the time of a store in the best repetition.
func (s *storm) least(way way) float64 {
	best := math.Inf(1)
	for repeat := range uint64(repeats) {
		best = min(best, perStore(s.repeat(repeat, way)))
	}
	return best
}

// repeat is one repetition, in all threads.
func (s *storm) repeat(repeat uint64, way way) []*times {
	// There is no way for it to fail.
	measured, _ := peer.InThreads(s.threads, func(index int) (*times, error) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		random := s.random(index, repeat)
		t := &times{stores: peer.Share(s.stores, s.threads, index)}
		before := peer.ThreadCPU()
		way(index, &random, t.stores)
		t.spent = peer.ThreadCPU() - before
		return t, nil
	})
	return measured
}

// random are the choices of a thread in a repetition; the one with cycles is the last.
func (s *storm) random(index int, repeat uint64) peer.Random {
	return peer.NewRandom(uint64(index)<<8 | repeat)
}

// verify does the same stores with numbers, and compares. It returns the part of the checksum.
func (s *storm) verify(index int, table []*node) (uint64, error) {
	twin := make([]uint32, s.each)
	for i := range twin {
		twin[i] = uint32(i % len(s.nodes))
	}
	for repeat := range uint64(repeats + 1) {
		random := s.random(index, repeat)
		for range peer.Share(s.stores, s.threads, index) {
			i, j := random.Below(len(twin)), random.Below(len(twin))
			twin[i] = twin[j]
		}
	}
	var sum uint64
	for place, n := range table {
		if n.number != uint64(twin[place]) {
			return 0, fmt.Errorf("slot %d has %d and not %d: a store was lost", place, n.number, twin[place])
		}
		sum += n.number * uint64(place+1)
	}
	return sum, nil
}

func perStore(measured []*times) float64 {
	var spent time.Duration
	var stores uint64
	for _, m := range measured {
		spent += m.spent
		stores += m.stores
	}
	return float64(spent.Nanoseconds()) / float64(stores)
}
