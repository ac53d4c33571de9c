//go:build !goexperiment.arenas

package requestarena

// place is where documents go: the heap, in a program without arenas.
type place struct{}

func inArena() place {
	panic("this program has no arenas")
}

func (p place) free() {}

func (p place) text(bytes []byte) string {
	return string(bytes)
}

func (p place) array(values []value) []value {
	return append(make([]value, 0, len(values)), values...)
}

func (p place) object(members []member) []member {
	return append(make([]member, 0, len(members)), members...)
}

func (p place) node() (*node, []*node) {
	return &node{}, make([]*node, 4)
}
