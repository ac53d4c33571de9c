//go:build goexperiment.arenas

package requestarena

import (
	"arena"
	"unsafe"
)

// place is where documents go: an arena, or the heap if it has none. One type for both, since a branch that is
// always the same costs less than a call through an interface.
type place struct {
	arena *arena.Arena
}

func inArena() place {
	return place{arena.NewArena()}
}

func (p place) free() {
	p.arena.Free()
}

func (p place) text(bytes []byte) string {
	if p.arena == nil {
		return string(bytes)
	}
	copied := arena.MakeSlice[byte](p.arena, len(bytes), len(bytes))
	copy(copied, bytes)
	return unsafe.String(unsafe.SliceData(copied), len(copied))
}

func (p place) array(values []value) []value {
	if p.arena == nil {
		return append(make([]value, 0, len(values)), values...)
	}
	copied := arena.MakeSlice[value](p.arena, len(values), len(values))
	copy(copied, values)
	return copied
}

func (p place) object(members []member) []member {
	if p.arena == nil {
		return append(make([]member, 0, len(members)), members...)
	}
	copied := arena.MakeSlice[member](p.arena, len(members), len(members))
	copy(copied, members)
	return copied
}

func (p place) node() (*node, []*node) {
	if p.arena == nil {
		return &node{}, make([]*node, 4)
	}
	return arena.New[node](p.arena), arena.MakeSlice[*node](p.arena, 4, 4)
}
