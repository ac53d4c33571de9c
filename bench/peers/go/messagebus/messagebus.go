// Package messagebus is the workload message-bus: a large live window, and how long a single push takes.
//
// Each push makes a new message and drops the oldest. Its time is taken around it. The goroutine is not locked to a
// thread, since that would make every stop of it dearer than it is in a program; so nobody knows how long
// it waited for a processor, and there is no push_own as in other programs.
package messagebus

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"spanheap/bench/peers/go/peer"
)

// Workload is message-bus.
var Workload = peer.Workload{
	Name: "message-bus",
	Keys: []peer.Key{
		{Name: "window", Default: 200_000, Min: 1, Max: math.MaxInt64},
		{Name: "messages", Default: 1_000_000, Min: 1, Max: math.MaxInt64},
		{Name: "size", Default: 1024, Min: 1, Max: math.MaxInt64},
		{Name: "rate", Max: 1_000_000_000},
	},
	Run: run,
}

type message struct {
	number  uint64
	payload []byte
}

// sent is what came of one bus.
type sent struct {
	checksum uint64
	times    peer.Histogram
}

func run(p *peer.Params) (*peer.Outcome, error) {
	window := p.Get("window")
	if uint64(p.Threads) > window {
		return nil, fmt.Errorf("a window of %d cannot be shared by %d threads", window, p.Threads)
	}
	parts, err := peer.InThreads(p.Threads, func(index int) (*sent, error) {
		window := peer.Share(window, p.Threads, index)
		messages := peer.Share(p.Get("messages"), p.Threads, index)
		rate := peer.Share(p.Get("rate"), p.Threads, index)
		return drive(window, messages, rate, int(p.Get("size"))), nil
	})
	if err != nil {
		return nil, err
	}
	outcome := &peer.Outcome{Operation: "push", Latency: &peer.Histogram{}}
	for _, part := range parts {
		outcome.Checksum += part.checksum
		outcome.Latency.Merge(&part.times)
	}
	return outcome, nil
}

// drive is one bus: all its pushes, and its part of the checksum. With a rate, a push is timed from when it is due,
// so that one that comes late because of the one before counts as late.
func drive(window, messages, rate uint64, size int) *sent {
	ring := make([]*message, window)
	s := &sent{}
	begun := time.Now()
	for number := range messages {
		started := time.Now()
		if rate > 0 {
			due := begun.Add(time.Duration(float64(number) * 1e9 / float64(rate)))
			for started.Before(due) {
				started = time.Now()
			}
			started = due
		}
		gone := push(ring, number, size)
		s.times.Record(uint64(max(time.Since(started), 0)))
		s.checksum += gone
	}
	for _, left := range ring {
		if left == nil {
			continue
		}
		s.checksum += left.number
		for _, b := range left.payload {
			s.checksum += uint64(b)
		}
	}
	return s
}

// push puts a new message in the ring. It returns what the one that it replaces adds to the checksum.
func push(ring []*message, number uint64, size int) uint64 {
	payload := bytes.Repeat([]byte{byte(number)}, size)
	slot := &ring[number%uint64(len(ring))]
	old := *slot
	*slot = &message{number, payload}
	if old == nil {
		return 0
	}
	return old.number + uint64(old.payload[len(old.payload)-1])
}
