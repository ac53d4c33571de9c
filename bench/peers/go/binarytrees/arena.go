//go:build goexperiment.arenas

package binarytrees

import "arena"

// buildIn makes a complete tree in an arena, children first.
func buildIn(a *arena.Arena, depth uint64) *node {
	var left, right *node
	if depth > 0 {
		left = buildIn(a, depth-1)
		right = buildIn(a, depth-1)
	}
	n := arena.New[node](a)
	n.left, n.right = left, right
	return n
}

// buildInArena makes a tree in an arena that stays until it is freed. An arena ends when nobody holds it, even if
// something points into it.
func buildInArena(depth uint64) (tree *node, free func()) {
	a := arena.NewArena()
	return buildIn(a, depth), a.Free
}

// treesInArenas makes each tree in an arena of its own. These arenas are not made to be used again.
func treesInArenas(depth, trees uint64) uint64 {
	var sum uint64
	for range trees {
		tree, free := buildInArena(depth)
		sum += tree.count()
		free()
	}
	return sum
}
