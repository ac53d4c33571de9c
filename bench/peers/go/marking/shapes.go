package marking

import (
	"unsafe"

	"spanheap/bench/peers/go/peer"
)

// object is one of a tree or a list, of 64 bytes.
type object struct {
	edges  [4]*object
	number uint64
	_      [3]uint64
}

const objectBytes = uint64(unsafe.Sizeof(object{}))

// makeObjects makes so many, in the order of their numbers.
func makeObjects(count uint64) []*object {
	all := make([]*object, count)
	for number := range all {
		all[number] = &object{number: uint64(number)}
	}
	return all
}

// tree is a tree of which each object points to three.
type tree struct {
	root *object
}

func newTree(objects uint64) graph {
	all := makeObjects(objects)
	for number, o := range all {
		for edge := range 3 {
			if child := 3*number + edge + 1; child < len(all) {
				o.edges[edge] = all[child]
			}
		}
	}
	return tree{all[0]}
}

func (t tree) walk() reached {
	var r reached
	r.addTree(t.root)
	return r
}

func (r *reached) addTree(o *object) {
	r.add(o.number, objectBytes)
	for _, child := range o.edges {
		if child != nil {
			r.addTree(child)
		}
	}
}

// lists are lists by their first objects.
type lists []*object

// newList is one list.
func newList(objects uint64) graph {
	return link(objects, 1)
}

// newLists are 1024 lists whose objects take turns in memory.
func newLists(objects uint64) graph {
	return link(objects, 1024)
}

// link lets each object point to the one so many further on.
func link(objects uint64, count int) graph {
	all := makeObjects(objects)
	for number, o := range all {
		if number+count < len(all) {
			o.edges[0] = all[number+count]
		}
	}
	return append(lists(nil), all[:min(count, len(all))]...)
}

func (l lists) walk() reached {
	var r reached
	for _, first := range l {
		for o := first; o != nil; o = o.edges[0] {
			r.add(o.number, objectBytes)
		}
	}
	return r
}

// leaf has 32 bytes, and no pointers.
type leaf struct {
	number uint64
	_      [3]uint64
}

// arrays are arrays of pointers to leaves.
type arrays [][]*leaf

func newArrays(objects uint64) graph {
	const count = 32
	all := make(arrays, count)
	var number uint64
	for a := range all {
		// The leaves come first, then the array that points to them.
		leaves := make([]*leaf, peer.Share(objects, count, a))
		for i := range leaves {
			leaves[i] = &leaf{number: number}
			number++
		}
		all[a] = append(make([]*leaf, 0, len(leaves)), leaves...)
	}
	return all
}

func (a arrays) walk() reached {
	var r reached
	for _, array := range a {
		for _, l := range array {
			r.add(l.number, uint64(unsafe.Sizeof(*l)))
		}
	}
	return r
}

// block has 1024 bytes, and no pointers.
type block struct {
	number uint64
	_      [127]uint64
}

// blocks is an array of pointers to blocks.
type blocks []*block

func newBlocks(objects uint64) graph {
	all := make(blocks, objects)
	for number := range all {
		all[number] = &block{number: uint64(number)}
	}
	return all
}

func (b blocks) walk() reached {
	var r reached
	for _, one := range b {
		r.add(one.number, uint64(unsafe.Sizeof(*one)))
	}
	return r
}
