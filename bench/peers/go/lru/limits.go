package lru

import (
	"runtime"
	"time"

	"spanheap/bench/peers/go/peer"
)

// Limits is the workload limits.
var Limits = peer.Workload{
	Name: "limits",
	Keys: append(keys(2_000_000, 4_000_000, 10_000_000), peer.Key{Name: "percent", Default: 110, Min: 100, Max: 10_000}),
	Settings: func(p *peer.Params) error {
		// Go counts its own code and stacks too.
		p.Limit = int64(limit(p) + peer.Resident())
		return nil
	},
	Run: runLimits,
}

// limit is what the cache may take.
func limit(p *peer.Params) uint64 {
	return weight(p.Get("entries"), p.Get("shards")) * p.Get("percent") / 100
}

// period is how often memory is looked at.
const period = time.Millisecond

// peaks are the largest values that were seen.
type peaks struct {
	resident, samples uint64
}

func (k *peaks) sample() {
	k.resident = max(k.resident, peer.Resident())
	k.samples++
}

// watch looks at memory until done is closed, and sends what it has seen.
func watch(done <-chan struct{}, seen chan<- peaks) {
	var k peaks
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		k.sample()
		select {
		case <-done:
			seen <- k
			return
		case <-ticker.C:
		}
	}
}

func runLimits(p *peer.Params) (*peer.Outcome, error) {
	w, err := newWork(p)
	if err != nil {
		return nil, err
	}
	before := peer.Resident()
	ended, seen := make(chan struct{}), make(chan peaks)
	go watch(ended, seen)
	c := newCache(w.entries, w.shards)
	w.fill(c)
	busy := peer.NowBusy()
	done := w.operate(c)
	share := peer.NowBusy().ShareSince(busy)
	_, err = c.count()
	close(ended)
	top := <-seen
	if err != nil {
		return nil, err
	}
	live := peer.LiveBytes()
	runtime.KeepAlive(c)
	limit := limit(p)
	resident := max(top.resident, before) - before
	over := float64(max(resident, limit)-limit) / float64(limit)
	figures := append(done.figures(),
		peer.Figure{Key: "limit_bytes", Value: limit},
		peer.Figure{Key: "peak_heap_resident_bytes", Value: resident},
		peer.Real("overshoot", over),
		peer.Real("collector_share", share),
		peer.Figure{Key: "live_bytes", Value: live},
		peer.Figure{Key: "samples", Value: top.samples})
	return &peer.Outcome{Checksum: done.checksum, Operation: "op", Latency: &done.times, Figures: figures}, nil
}
