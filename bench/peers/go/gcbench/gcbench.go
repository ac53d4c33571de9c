// Package gcbench is the workload gcbench: old objects that point at young ones, and a large object.
//
// Trees are built bottom-up, where children exist before their parent, and top-down, where a node is made first and
// is then given its children, so that every link is a store into an older object.
package gcbench

import (
	"fmt"
	"time"

	"spanheap/bench/peers/go/peer"
)

// Workload is gcbench.
var Workload = peer.Workload{
	Name: "gcbench",
	Keys: []peer.Key{
		{Name: "stretch", Default: 18, Min: 1, Max: 56},
		{Name: "longlived", Default: 16, Min: 1, Max: 56},
		{Name: "array", Default: 500_000, Min: 1, Max: 1 << 48},
		{Name: "min", Default: 4, Min: 1, Max: 56},
		{Name: "max", Default: 16, Min: 1, Max: 56},
	},
	Run: run,
}

// node has two numbers that nobody uses, as in the original.
type node struct {
	left, right *node
	i, j        uint32
}

// nodes is how many nodes a complete tree has.
func nodes(depth uint64) uint64 {
	return 2<<depth - 1
}

func run(p *peer.Params) (*peer.Outcome, error) {
	stretch, shallow, deep := p.Get("stretch"), p.Get("min"), p.Get("max")
	if shallow > deep {
		return nil, fmt.Errorf("min is %d, it must not be above max, %d", shallow, deep)
	}
	if length := bottomUp(stretch).spine(); length != stretch+1 {
		return nil, fmt.Errorf("the spine of the stretch tree has %d nodes", length)
	}
	tree := topDown(p.Get("longlived"))
	array := make([]float64, p.Get("array"))
	for i := range array {
		array[i] = reciprocal(i)
	}
	parts, err := peer.InThreads(p.Threads, func(index int) (part, error) {
		var part part
		for depth := shallow; depth <= deep; depth += 2 {
			// At least one, if the trees are larger than the stretch tree.
			trees := peer.Share(max(2*nodes(stretch)/nodes(depth), 1), p.Threads, index)
			begun := time.Now()
			for range trees {
				part.sum += topDown(depth).spine()
			}
			half := time.Now()
			for range trees {
				part.sum += bottomUp(depth).spine()
			}
			part.topDown += half.Sub(begun)
			part.bottomUp += time.Since(half)
		}
		return part, nil
	})
	if err != nil {
		return nil, err
	}
	checksum := tree.count()
	for i, number := range array {
		if number == reciprocal(i) {
			checksum++
		}
	}
	var down, up time.Duration
	for _, part := range parts {
		checksum += part.sum
		down += part.topDown
		up += part.bottomUp
	}
	figures := []peer.Figure{
		peer.Real("top_down_s", down.Seconds()/float64(p.Threads)),
		peer.Real("bottom_up_s", up.Seconds()/float64(p.Threads)),
	}
	return &peer.Outcome{Checksum: checksum, Figures: figures}, nil
}

// part is what one thread has found out.
type part struct {
	sum               uint64
	topDown, bottomUp time.Duration
}

func reciprocal(index int) float64 {
	return 1 / float64(index+1)
}

// topDown makes a complete tree, parents first.
func topDown(depth uint64) *node {
	root := &node{}
	root.populate(depth)
	return root
}

// populate gives a node subtrees of a depth one less, from the top down.
func (n *node) populate(depth uint64) {
	if depth == 0 {
		return
	}
	n.left = &node{}
	n.right = &node{}
	n.left.populate(depth - 1)
	n.right.populate(depth - 1)
}

// bottomUp makes a complete tree, children first.
func bottomUp(depth uint64) *node {
	if depth == 0 {
		return &node{}
	}
	left := bottomUp(depth - 1)
	right := bottomUp(depth - 1)
	return &node{left: left, right: right}
}

// spine is how many nodes lie on the way to the leftmost leaf, plus the numbers found there, which are 0.
func (n *node) spine() uint64 {
	var length uint64
	for ; n != nil; n = n.left {
		length += 1 + uint64(n.i) + uint64(n.j)
	}
	return length
}

func (n *node) count() uint64 {
	if n == nil {
		return 0
	}
	return 1 + n.left.count() + n.right.count()
}
