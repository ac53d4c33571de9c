package spatialindex

// item is a node that a query has still to look at.
type item struct {
	distance uint64
	node     *node
}

// hit is a point that a query has found.
type hit struct {
	distance uint64
	point    *point
}

// firstQueue is how many items a queue begins with. It is no constant since a queue of constant size would lie on the
// stack: what a query makes is garbage by the rules of the workload.
var firstQueue = 32

// queue is a binary heap, the least distance first.
type queue []item

func (q *queue) push(i item) {
	if len(*q) == cap(*q) {
		*q = append(make(queue, 0, 2*cap(*q)), *q...)
	}
	items := append(*q, i)
	*q = items
	at := len(items) - 1
	for at > 0 {
		parent := (at - 1) / 2
		if items[parent].distance <= i.distance {
			break
		}
		items[at] = items[parent]
		at = parent
	}
	items[at] = i
}

// pop takes the least item. There is one.
func (q *queue) pop() item {
	items := *q
	least, last := items[0], items[len(items)-1]
	items = items[:len(items)-1]
	*q = items
	if len(items) == 0 {
		return least
	}
	at := 0
	for {
		child := 2*at + 1
		if child >= len(items) {
			break
		}
		if child+1 < len(items) && items[child+1].distance < items[child].distance {
			child++
		}
		if last.distance <= items[child].distance {
			break
		}
		items[at] = items[child]
		at = child
	}
	items[at] = last
	return least
}

// nearest finds the k points with the least distance and, of equal ones, the least ids, in this order.
func (t *tree) nearest(x, y uint32, k int) []hit {
	hits := make([]hit, 0, k)
	q := make(queue, 0, firstQueue)
	q.push(item{0, t.root})
	for len(q) > 0 {
		next := q.pop()
		if len(hits) == k && next.distance > hits[k-1].distance {
			break
		}
		n := next.node
		for i := range n.len() {
			distance := n.rects[i].distance(x, y)
			if len(hits) == k && distance > hits[k-1].distance {
				continue
			}
			if n.level > 0 {
				q.push(item{distance, n.child(i)})
			} else {
				hits = add(hits, hit{distance, n.point(i)})
			}
		}
	}
	return hits
}

// add puts a hit in its place, if it is among the best. There is memory for as many as are wanted.
func add(hits []hit, h hit) []hit {
	before := func(other hit) bool {
		return h.distance < other.distance || h.distance == other.distance && h.point.id < other.point.id
	}
	if len(hits) < cap(hits) {
		hits = append(hits, h)
	} else if !before(hits[len(hits)-1]) {
		return hits
	}
	at := len(hits) - 1
	for at > 0 && before(hits[at-1]) {
		hits[at] = hits[at-1]
		at--
	}
	hits[at] = h
	return hits
}
