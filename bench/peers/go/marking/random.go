package marking

import (
	"unsafe"

	"spanheap/bench/peers/go/peer"
)

// head is how each object of a random graph begins: it points to one small object, two medium ones and a large one.
type head struct {
	small        *small
	medium, next *medium
	large        *large
	number       uint64
}

type small struct {
	head
	_ [1]uint64
}

type medium struct {
	head
	_ [3]uint64
}

type large struct {
	head
	_ [7]uint64
}

// random is what holds a random graph: an object of medium size, if there is one.
type random struct {
	first   *medium
	objects uint64
}

func newRandom(objects uint64) graph {
	var smalls []*small
	var mediums []*medium
	var larges []*large
	heads := make([]*head, objects)
	r := peer.NewRandom(1)
	for number := range objects {
		var h *head
		switch r.Below(4) {
		case 0:
			o := &small{}
			smalls, h = append(smalls, o), &o.head
		case 3:
			o := &large{}
			larges, h = append(larges, o), &o.head
		default:
			o := &medium{}
			mediums, h = append(mediums, o), &o.head
		}
		h.number = number
		heads[number] = h
	}
	r = peer.NewRandom(2)
	for _, h := range heads {
		h.small = anyOf(&r, smalls)
		h.medium = anyOf(&r, mediums)
		h.next = anyOf(&r, mediums)
		h.large = anyOf(&r, larges)
	}
	g := random{objects: objects}
	if len(mediums) > 0 {
		g.first = mediums[0]
	}
	return g
}

// anyOf is one of a group, and nil if there is none.
func anyOf[T any](r *peer.Random, group []*T) *T {
	if len(group) == 0 {
		return nil
	}
	return group[r.Below(len(group))]
}

func (g random) walk() reached {
	var r reached
	seen := make([]uint64, (g.objects+63)/64)
	var open []*head
	visit := func(h *head, bytes uintptr) {
		word, bit := h.number/64, uint64(1)<<(h.number%64)
		if seen[word]&bit == 0 {
			seen[word] |= bit
			r.add(h.number, uint64(bytes))
			open = append(open, h)
		}
	}
	visitMedium := func(o *medium) {
		if o != nil {
			visit(&o.head, unsafe.Sizeof(*o))
		}
	}
	visitMedium(g.first)
	for len(open) > 0 {
		h := open[len(open)-1]
		open = open[:len(open)-1]
		if h.small != nil {
			visit(&h.small.head, unsafe.Sizeof(*h.small))
		}
		visitMedium(h.medium)
		visitMedium(h.next)
		if h.large != nil {
			visit(&h.large.head, unsafe.Sizeof(*h.large))
		}
	}
	return r
}
