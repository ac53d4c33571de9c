// Package phases is the workload phases: live data that grows, stays, and goes; and how soon the process is small again.
//
// A collection is asked for with runtime.GC when the large data are dropped. What is asked is what the system
// sees: the resident set, every 50 milliseconds. The work depends on time, so there is no checksum; all objects are
// checked.
package phases

import (
	"errors"
	"runtime"
	"time"

	"spanheap/bench/peers/go/livedata"
	"spanheap/bench/peers/go/peer"
)

// Workload is phases.
var Workload = peer.Workload{
	Name: "phases",
	Keys: []peer.Key{
		{Name: "phase_seconds", Text: "10"},
		{Name: "cycles", Default: 2, Min: 1, Max: 1000},
		{Name: "small", Default: 107_374_182, Max: 1 << 48},
		{Name: "large", Default: 4 << 30, Max: 1 << 48},
		{Name: "churn", Default: 64 << 20, Max: 1 << 48},
	},
	Run: run,
}

// step is how many bytes are renewed at once.
const step = 64 << 10

// phases is a run under way.
type phases struct {
	params *peer.Params
	length time.Duration
	// parts are the objects of each thread.
	parts   []*livedata.Data
	sampler *sampler
}

func run(p *peer.Params) (*peer.Outcome, error) {
	length, err := time.ParseDuration(p.Word("phase_seconds") + "s")
	if err != nil || length <= 0 {
		return nil, errors.New("phase_seconds is no number of seconds")
	}
	if p.Get("small") > p.Get("large") {
		return nil, errors.New("small is above large")
	}
	r := &phases{params: p, length: length, sampler: newSampler()}
	defer r.sampler.stop()
	for index := range p.Threads {
		r.parts = append(r.parts, livedata.New(uint64(index)))
	}
	r.grow(p.Get("small"))
	started, cpu := time.Now(), peer.CPU()
	if err := r.steady(); err != nil {
		return nil, err
	}
	r.sampler.sample()
	base := r.sampler.median(started.Add(length / 2))
	baseCPU := peer.CPU() - cpu
	var returns [][]peer.Figure
	for cycle := range p.Get("cycles") {
		row, err := r.cycle(cycle+1, base)
		if err != nil {
			return nil, err
		}
		returns = append(returns, row)
	}
	var verified uint64
	for _, part := range r.parts {
		count, err := part.Verify()
		if err != nil {
			return nil, err
		}
		verified += count
	}
	return &peer.Outcome{NoChecksum: true, Figures: []peer.Figure{
		{Key: "verified_objects", Value: verified},
		{Key: "base_rss_bytes", Value: base},
		peer.Real("base_cpu_s", baseCPU.Seconds()),
		peer.Rows("returns", returns),
	}}, nil
}

// each calls work with the part of each thread, on that thread.
func (r *phases) each(work func(index int, part *livedata.Data) error) error {
	_, err := peer.InThreads(len(r.parts), func(index int) (struct{}, error) {
		return struct{}{}, work(index, r.parts[index])
	})
	return err
}

func (r *phases) grow(bytes uint64) {
	// There is no way for it to fail.
	_ = r.each(func(index int, part *livedata.Data) error {
		part.GrowTo(peer.Share(bytes, len(r.parts), index))
		return nil
	})
}

// steady is a phase in which the amount of data does not change.
func (r *phases) steady() error {
	started := time.Now()
	return r.each(func(index int, part *livedata.Data) error {
		rate := float64(peer.Share(r.params.Get("churn"), len(r.parts), index))
		renewed := uint64(0)
		for time.Since(started) < r.length {
			if due := rate * time.Since(started).Seconds(); float64(renewed+step) > due {
				time.Sleep(min(time.Millisecond, r.length-time.Since(started)))
				continue
			}
			if err := part.Renew(step); err != nil {
				return err
			}
			renewed += step
		}
		return nil
	})
}

// cycle is one time up and down.
func (r *phases) cycle(number, base uint64) ([]peer.Figure, error) {
	started := time.Now()
	r.grow(r.params.Get("large"))
	grow := time.Since(started)
	if err := r.steady(); err != nil {
		return nil, err
	}
	r.sampler.sample()
	peak := r.sampler.highest(started)

	dropped, cpu := time.Now(), peer.CPU()
	for index, part := range r.parts {
		part.ShrinkTo(peer.Share(r.params.Get("small"), len(r.parts), index))
	}
	runtime.GC()
	collect := time.Since(dropped)
	if err := r.steady(); err != nil {
		return nil, err
	}
	end := r.sampler.sample()
	var within any
	if took, ok := r.sampler.until(dropped, base+base/10); ok {
		within = took.Seconds()
	}
	return []peer.Figure{
		{Key: "cycle", Value: number},
		peer.Real("grow_s", grow.Seconds()),
		peer.Real("collect_s", collect.Seconds()),
		peer.Real("window_s", time.Since(dropped).Seconds()),
		{Key: "within_10_percent_s", Value: within},
		{Key: "peak_rss_bytes", Value: peak},
		{Key: "lowest_rss_bytes", Value: r.sampler.lowest(dropped)},
		{Key: "end_rss_bytes", Value: end},
		peer.Real("cpu_s", (peer.CPU() - cpu).Seconds()),
	}, nil
}
