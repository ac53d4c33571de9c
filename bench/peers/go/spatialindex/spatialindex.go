// Package spatialindex is the workload spatial-index: a large R-tree, asked for the nearest neighbours, while some of its
// points move.
package spatialindex

import (
	"fmt"
	"time"

	"spanheap/bench/peers/go/peer"
)

// Workload is spatial-index.
var Workload = peer.Workload{
	Name: "spatial-index",
	Keys: []peer.Key{
		{Name: "points", Default: 1_000_000, Min: 1, Max: 1 << 40},
		{Name: "operations", Default: 500_000, Max: 1 << 48},
		{Name: "k", Default: 10, Min: 1, Max: 1024},
	},
	Run: run,
}

const (
	// side of the square that the points are in.
	side = 1 << 24
	// reach of a move in each direction.
	reach = 1 << 14
	// moveOneIn operations moves a point; the others are queries.
	moveOneIn = 10
)

// part is what one thread has found out, in a tree of its own.
type part struct {
	checksum       uint64
	queries, moves uint64
	queryTimes     peer.Histogram
	moveTimes      peer.Histogram
	build          time.Duration
	operate        time.Duration
	nodes          uint64
	levels         uint64
}

func run(p *peer.Params) (*peer.Outcome, error) {
	points, operations, k := p.Get("points"), p.Get("operations"), p.Get("k")
	if uint64(p.Threads) > points {
		return nil, fmt.Errorf("%d points are too few for %d threads", points, p.Threads)
	}
	parts, err := peer.InThreads(p.Threads, func(index int) (*part, error) {
		points := peer.Share(points, p.Threads, index)
		operations := peer.Share(operations, p.Threads, index)
		return drive(uint64(index), int(points), operations, int(k))
	})
	if err != nil {
		return nil, err
	}
	sum := &part{}
	for _, part := range parts {
		sum.checksum += part.checksum
		sum.queries += part.queries
		sum.moves += part.moves
		sum.queryTimes.Merge(&part.queryTimes)
		sum.moveTimes.Merge(&part.moveTimes)
		sum.build = max(sum.build, part.build)
		sum.operate = max(sum.operate, part.operate)
		sum.nodes += part.nodes
		sum.levels = max(sum.levels, part.levels)
	}
	return &peer.Outcome{
		Checksum:  sum.checksum,
		Operation: "query",
		Latency:   &sum.queryTimes,
		Figures: []peer.Figure{
			peer.Real("build_s", sum.build.Seconds()),
			peer.Real("ops_per_s", float64(operations)/sum.operate.Seconds()),
			{Key: "queries", Value: sum.queries},
			{Key: "moves", Value: sum.moves},
			{Key: "move_p50_ns", Value: sum.moveTimes.Quantile(5_000)},
			{Key: "move_p999_ns", Value: sum.moveTimes.Quantile(9_990)},
			{Key: "move_max_ns", Value: sum.moveTimes.Quantile(10_000)},
			{Key: "nodes", Value: sum.nodes},
			{Key: "levels", Value: sum.levels},
		},
	}, nil
}

// drive is one tree: its building, and all that is done with it.
func drive(index uint64, points int, operations uint64, k int) (*part, error) {
	done := &part{}
	random := peer.NewRandom(100 + index)
	begun := time.Now()
	t, table := newTree(), make([]*point, points)
	for id := range table {
		x, y := uint32(random.Below(side)), uint32(random.Below(side))
		table[id] = newPoint(uint64(id), 0, x, y)
		t.insertPoint(table[id])
	}
	done.build = time.Since(begun)
	begun = time.Now()
	for range operations {
		if random.Below(moveOneIn) == 0 {
			id := random.Below(points)
			dx, dy := random.Below(2*reach+1), random.Below(2*reach+1)
			started := time.Now()
			old := table[id]
			t.remove(old)
			table[id] = newPoint(old.id, old.version+1, moved(old.x, dx), moved(old.y, dy))
			t.insertPoint(table[id])
			done.moveTimes.Record(uint64(time.Since(started)))
			done.moves++
			continue
		}
		x, y := uint32(random.Below(side)), uint32(random.Below(side))
		started := time.Now()
		for i, h := range t.nearest(x, y, k) {
			done.checksum += uint64(i+1)*(h.distance+h.point.id) + h.point.version
		}
		done.queryTimes.Record(uint64(time.Since(started)))
		done.queries++
	}
	done.operate = time.Since(begun)
	seen := 0
	done.nodes = t.root.walk(func(p *point) {
		seen++
		done.checksum += (p.id+1)*(p.version+1) + uint64(p.x) + uint64(p.y)
	})
	done.levels = uint64(t.root.level) + 1
	if seen != points {
		return nil, fmt.Errorf("a tree of %d points has %d", points, seen)
	}
	return done, nil
}

func newPoint(id, version uint64, x, y uint32) *point {
	return &point{id: id, version: version, x: x, y: y, tag: id ^ version}
}

// moved is a coordinate that has moved by d, counted from the end of the reach, and has stayed in the square.
func moved(x uint32, d int) uint32 {
	return uint32(min(max(int(x)+d-reach, 0), side-1))
}
