// Package lru has the workloads lru, a large cache whose entries come and go and are moved about all the time, and
// limits, the same below a memory limit that leaves little room.
//
// Go's limit is a soft one: nothing is ever refused, and what is asked is how far it is exceeded and what it costs.
package lru

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"spanheap/bench/peers/go/peer"
)

func keys(entries, keys, operations uint64) []peer.Key {
	return []peer.Key{
		{Name: "entries", Default: entries, Min: 1, Max: math.MaxInt64},
		{Name: "keys", Default: keys, Min: 1, Max: 1 << 32},
		{Name: "operations", Default: operations, Max: math.MaxInt64},
		{Name: "shards", Default: 64, Min: 1, Max: 1 << 16},
	}
}

// Workload is lru.
var Workload = peer.Workload{
	Name: "lru",
	Keys: keys(8_000_000, 16_000_000, 20_000_000),
	Run:  run,
}

// replaceOneIn operations gives its key another value.
const replaceOneIn = 10

func run(p *peer.Params) (*peer.Outcome, error) {
	w, err := newWork(p)
	if err != nil {
		return nil, err
	}
	before := peer.Resident()
	c := newCache(w.entries, w.shards)
	w.fill(c)
	done := w.operate(c)
	resident := max(peer.Resident(), before) - before
	entries, err := c.count()
	if err != nil {
		return nil, err
	}
	runtime.GC()
	live := peer.LiveBytes()
	runtime.KeepAlive(c)
	figures := append(done.figures(),
		peer.Figure{Key: "entries_left", Value: entries},
		peer.Figure{Key: "live_bytes", Value: live},
		peer.Figure{Key: "resident_bytes", Value: resident},
		peer.Real("resident_over_live", float64(resident)/float64(live)))
	return &peer.Outcome{Checksum: done.checksum, Operation: "op", Latency: &done.times, Figures: figures}, nil
}

// work is what is to be done with a cache.
type work struct {
	entries, shards, keys, operations uint64
	threads                           int
}

func newWork(p *peer.Params) (*work, error) {
	w := &work{p.Get("entries"), p.Get("shards"), p.Get("keys"), p.Get("operations"), p.Threads}
	if uint64(w.threads) > w.shards {
		return nil, fmt.Errorf("%d shards cannot be shared by %d threads", w.shards, w.threads)
	}
	if w.shards > w.entries {
		return nil, fmt.Errorf("%d entries are too few for %d shards", w.entries, w.shards)
	}
	return w, nil
}

// done is what came of it.
type done struct {
	checksum   uint64
	times      peer.Histogram
	operations uint64
	hits       uint64
	wall       time.Duration
}

func (d *done) figures() []peer.Figure {
	return []peer.Figure{
		peer.Real("ops_per_s", float64(d.operations)/d.wall.Seconds()),
		peer.Real("hit_ratio", float64(d.hits)/float64(d.operations)),
	}
}

// fill fills the cache with the most frequent keys, the most frequent one last.
func (w *work) fill(c cache) {
	// There is no way for it to fail.
	_, _ = peer.InThreads(w.threads, func(index int) (struct{}, error) {
		for rank := peer.Share(w.entries, w.threads, index); rank > 0; rank-- {
			w.operation(c, index, rank-1, get, 0)
		}
		return struct{}{}, nil
	})
}

// operate does all operations.
func (w *work) operate(c cache) *done {
	// Each thread has its own part of the keys.
	threads := uint64(w.threads)
	z := newZipf((w.keys + threads - 1) / threads)
	started := time.Now()
	parts, _ := peer.InThreads(w.threads, func(index int) (*done, error) {
		d := &done{operations: peer.Share(w.operations, w.threads, index)}
		random := peer.NewRandom(uint64(index))
		for number := range d.operations {
			rank := z.draw(&random)
			want := get
			if random.Below(replaceOneIn) == 0 {
				want = replace
			}
			begun := time.Now()
			hit, word := w.operation(c, index, rank, want, number)
			d.times.Record(uint64(time.Since(begun)))
			d.checksum += word
			if hit {
				d.checksum++
				d.hits++
			}
		}
		return d, nil
	})
	sum := &done{wall: time.Since(started)}
	for _, part := range parts {
		sum.checksum += part.checksum
		sum.times.Merge(&part.times)
		sum.operations += part.operations
		sum.hits += part.hits
	}
	return sum
}

// operation is one operation of the thread index, which has each of its shards for itself.
func (w *work) operation(c cache, index int, rank uint64, want want, salt uint64) (hit bool, word uint64) {
	k := key{scatter(rank), rank}
	threads, first := uint64(w.threads), uint64(index)
	mine := (w.shards - first + threads - 1) / threads
	return c[first+(k[0]>>40)%mine*threads].operate(k, want, salt)
}

// scatter spreads ranks over all bits; no two of them meet.
func scatter(rank uint64) uint64 {
	z := (rank ^ rank>>30) + 0x9e3779b97f4a7c15
	z *= 0xbf58476d1ce4e5b9
	return z ^ z>>27
}
