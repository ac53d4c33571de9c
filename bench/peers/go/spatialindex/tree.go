package spatialindex

import (
	"cmp"
	"slices"
	"unsafe"
)

const (
	// minEntries and maxEntries are how many a node has, but for the root.
	minEntries = 12
	maxEntries = 32
	// splitAt is how many stay when a node is split.
	splitAt = 17
)

// point never changes.
type point struct {
	id      uint64
	version uint64
	x, y    uint32
	tag     uint64
}

// rect is a rectangle with its edges in it.
type rect struct {
	minX, minY, maxX, maxY uint32
}

func (p *point) rect() rect {
	return rect{p.x, p.y, p.x, p.y}
}

// around is the smallest rectangle that has both in it.
func (r rect) around(other rect) rect {
	return rect{
		min(r.minX, other.minX), min(r.minY, other.minY),
		max(r.maxX, other.maxX), max(r.maxY, other.maxY),
	}
}

func (r rect) area() uint64 {
	return uint64(r.maxX-r.minX) * uint64(r.maxY-r.minY)
}

func (r rect) contains(p *point) bool {
	return r.minX <= p.x && p.x <= r.maxX && r.minY <= p.y && p.y <= r.maxY
}

// distance is the square of the distance of a place, 0 inside.
func (r rect) distance(x, y uint32) uint64 {
	dx, dy := beyond(x, r.minX, r.maxX), beyond(y, r.minY, r.maxY)
	return dx*dx + dy*dy
}

func beyond(x, low, high uint32) uint64 {
	switch {
	case x < low:
		return uint64(low - x)
	case x > high:
		return uint64(x - high)
	}
	return 0
}

// node has entries: points in a leaf, which is level 0, and nodes of the level below in the others. One array of
// pointers is for both, since two would make every node larger by a third, and an interface is two words.
type node struct {
	level  uint32
	length uint32
	rects  [maxEntries]rect
	below  [maxEntries]unsafe.Pointer
}

// entry is one of a node.
type entry struct {
	rect  rect
	below unsafe.Pointer
}

func (n *node) child(i int) *node {
	return (*node)(n.below[i])
}

func (n *node) point(i int) *point {
	return (*point)(n.below[i])
}

func (n *node) len() int {
	return int(n.length)
}

func (n *node) append(e entry) {
	n.rects[n.length], n.below[n.length] = e.rect, e.below
	n.length++
}

// take takes an entry out. The last one takes its place.
func (n *node) take(i int) {
	n.length--
	n.rects[i], n.below[i] = n.rects[n.length], n.below[n.length]
	n.below[n.length] = nil
}

// rect is the smallest one around all entries, of which there is one at least.
func (n *node) rect() rect {
	r := n.rects[0]
	for _, other := range n.rects[1:n.length] {
		r = r.around(other)
	}
	return r
}

// tree is an R-tree.
type tree struct {
	root *node
}

func newTree() *tree {
	return &tree{&node{}}
}

// insert adds an entry to a node of a level.
func (t *tree) insert(e entry, level uint32) {
	sibling := t.root.insert(e, level)
	if sibling == nil {
		return
	}
	root := &node{level: t.root.level + 1}
	root.append(entry{t.root.rect(), unsafe.Pointer(t.root)})
	root.append(entry{sibling.rect(), unsafe.Pointer(sibling)})
	t.root = root
}

// insertPoint adds a point.
func (t *tree) insertPoint(p *point) {
	t.insert(entry{p.rect(), unsafe.Pointer(p)}, 0)
}

// insert adds an entry at or below a node. It returns a second node, if this one was split.
func (n *node) insert(e entry, level uint32) *node {
	if n.level > level {
		i := n.choose(e.rect)
		child := n.child(i)
		sibling := child.insert(e, level)
		if sibling == nil {
			n.rects[i] = n.rects[i].around(e.rect)
			return nil
		}
		n.rects[i] = child.rect()
		e = entry{sibling.rect(), unsafe.Pointer(sibling)}
	}
	if n.length == maxEntries {
		return n.split(e)
	}
	n.append(e)
	return nil
}

// choose is the child that grows least in area, the smaller one of two, the first of equal ones.
func (n *node) choose(r rect) int {
	best, bestGrowth, bestArea := 0, ^uint64(0), ^uint64(0)
	for i := range n.len() {
		area := n.rects[i].area()
		growth := n.rects[i].around(r).area() - area
		if growth < bestGrowth || growth == bestGrowth && area < bestArea {
			best, bestGrowth, bestArea = i, growth, area
		}
	}
	return best
}

// split divides the entries of a full node and one more, along the longer side. It returns the new node.
func (n *node) split(more entry) *node {
	var entries [maxEntries + 1]entry
	for i := range maxEntries {
		entries[i] = entry{n.rects[i], n.below[i]}
	}
	entries[maxEntries] = more
	whole := n.rect().around(more.rect)
	if whole.maxX-whole.minX >= whole.maxY-whole.minY {
		slices.SortStableFunc(entries[:], func(a, b entry) int {
			return cmp.Compare(a.rect.minX+a.rect.maxX, b.rect.minX+b.rect.maxX)
		})
	} else {
		slices.SortStableFunc(entries[:], func(a, b entry) int {
			return cmp.Compare(a.rect.minY+a.rect.maxY, b.rect.minY+b.rect.maxY)
		})
	}
	n.length = 0
	clear(n.below[splitAt:])
	for _, e := range entries[:splitAt] {
		n.append(e)
	}
	sibling := &node{level: n.level}
	for _, e := range entries[splitAt:] {
		sibling.append(e)
	}
	return sibling
}

// remove takes a point out, which is in the tree.
func (t *tree) remove(p *point) {
	var short []*node
	if !t.root.remove(p, &short) {
		panic("a point that is to be removed is not in the tree")
	}
	// They come from the leaf upwards, so the lowest are inserted first.
	for _, n := range short {
		for i := range n.len() {
			t.insert(entry{n.rects[i], n.below[i]}, n.level)
		}
	}
	for t.root.level > 0 && t.root.length == 1 {
		t.root = t.root.child(0)
	}
	if t.root.length == 0 {
		t.root.level = 0
	}
}

// remove takes a point out, if it is at or below a node. Nodes that have too few entries then go to short.
func (n *node) remove(p *point, short *[]*node) bool {
	if n.level == 0 {
		for i := range n.len() {
			if n.point(i) == p {
				n.take(i)
				return true
			}
		}
		return false
	}
	for i := range n.len() {
		if !n.rects[i].contains(p) {
			continue
		}
		child := n.child(i)
		if !child.remove(p, short) {
			continue
		}
		if child.length < minEntries {
			*short = append(*short, child)
			n.take(i)
		} else {
			n.rects[i] = child.rect()
		}
		return true
	}
	return false
}

// walk calls visit for every point, and returns how many nodes there are.
func (n *node) walk(visit func(*point)) uint64 {
	nodes := uint64(1)
	for i := range n.len() {
		if n.level == 0 {
			visit(n.point(i))
		} else {
			nodes += n.child(i).walk(visit)
		}
	}
	return nodes
}
