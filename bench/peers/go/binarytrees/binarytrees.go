// Package binarytrees is the workload binary-trees: many small objects, most of them short-lived.
//
// A node is two pointers. A single thread is one goroutine, and the collector has the other processors to itself.
package binarytrees

import (
	"errors"
	"fmt"

	"spanheap/bench/peers/go/peer"
)

// Workload is binary-trees.
var Workload = peer.Workload{
	Name: "binary-trees",
	Keys: []peer.Key{
		{Name: "depth", Default: 16, Min: minDepth, Max: 58},
		{Name: "arena", Max: 1},
	},
	Run: run,
}

const minDepth = 4

type node struct {
	left, right *node
}

// build makes a complete tree, children first.
func build(depth uint64) *node {
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
func nodes(depth uint64) uint64 {
	return 2<<depth - 1
}

// buildOnHeap makes a tree that nobody has to free.
func buildOnHeap(depth uint64) (tree *node, free func()) {
	return build(depth), func() {}
}

// trees makes, counts and drops so many trees.
func trees(depth, trees uint64) uint64 {
	var sum uint64
	for range trees {
		sum += build(depth).count()
	}
	return sum
}

func run(p *peer.Params) (*peer.Outcome, error) {
	depth, build, trees := p.Get("depth"), buildOnHeap, trees
	if p.Get("arena") == 1 {
		if !peer.HaveArenas {
			return nil, errors.New("arena=1: this program was built without GOEXPERIMENT=arenas")
		}
		build, trees = buildInArena, treesInArenas
	}
	if stretch := trees(depth+1, 1); stretch != nodes(depth+1) {
		return nil, fmt.Errorf("the stretch tree has %d nodes", stretch)
	}
	longLived, free := build(depth)
	defer free()
	sums, err := peer.InThreads(p.Threads, func(index int) (uint64, error) {
		var sum uint64
		for d := uint64(minDepth); d <= depth; d += 2 {
			sum += trees(d, peer.Share(1<<(depth-d+minDepth), p.Threads, index))
		}
		return sum, nil
	})
	if err != nil {
		return nil, err
	}
	checksum := longLived.count()
	for _, sum := range sums {
		checksum += sum
	}
	return &peer.Outcome{Checksum: checksum}, nil
}
