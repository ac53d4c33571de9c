package phases

import (
	"slices"
	"sync"
	"time"

	"spanheap/bench/peers/go/peer"
)

// interval is how often the resident set is read.
const interval = 50 * time.Millisecond

type sample struct {
	at       time.Time
	resident uint64
}

// sampler reads the resident set over time.
type sampler struct {
	lock    sync.Mutex
	samples []sample
	stopped chan struct{}
}

func newSampler() *sampler {
	s := &sampler{stopped: make(chan struct{})}
	go func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-s.stopped:
				return
			case <-ticker.C:
				s.sample()
			}
		}
	}()
	return s
}

func (s *sampler) stop() {
	close(s.stopped)
}

// sample takes a sample and returns it. It reads under the lock, so that samples are in the order of time.
func (s *sampler) sample() uint64 {
	s.lock.Lock()
	defer s.lock.Unlock()
	resident := peer.Resident()
	s.samples = append(s.samples, sample{time.Now(), resident})
	return resident
}

// since are the samples from an instant on.
func (s *sampler) since(start time.Time) []sample {
	s.lock.Lock()
	defer s.lock.Unlock()
	first, _ := slices.BinarySearchFunc(s.samples, start, func(one sample, at time.Time) int {
		return one.at.Compare(at)
	})
	return slices.Clone(s.samples[first:])
}

// sizes are those of the samples from an instant on, in order. Every phase ends with a sample, so there are some.
func (s *sampler) sizes(start time.Time) []uint64 {
	var sizes []uint64
	for _, one := range s.since(start) {
		sizes = append(sizes, one.resident)
	}
	slices.Sort(sizes)
	return sizes
}

func (s *sampler) median(start time.Time) uint64 {
	sizes := s.sizes(start)
	return sizes[len(sizes)/2]
}

func (s *sampler) highest(start time.Time) uint64 {
	return slices.Max(s.sizes(start))
}

func (s *sampler) lowest(start time.Time) uint64 {
	return slices.Min(s.sizes(start))
}

// until is how long after an instant there were so many bytes or fewer, if that was ever so.
func (s *sampler) until(start time.Time, bytes uint64) (time.Duration, bool) {
	for _, one := range s.since(start) {
		if one.resident <= bytes {
			return one.at.Sub(start), true
		}
	}
	return 0, false
}
