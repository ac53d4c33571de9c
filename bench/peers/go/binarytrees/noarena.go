//go:build !goexperiment.arenas

package binarytrees

func buildInArena(uint64) (*node, func()) {
	panic("this program has no arenas")
}

func treesInArenas(uint64, uint64) uint64 {
	panic("this program has no arenas")
}
