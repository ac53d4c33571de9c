package spatialindex

import (
	"cmp"
	"slices"
	"testing"

	"spanheap/bench/peers/go/peer"
)

// check looks at everything that a node and what is below it have to be.
func check(t *testing.T, n *node, isRoot bool) {
	t.Helper()
	if !isRoot && n.length < minEntries || n.length > maxEntries {
		t.Fatalf("a node of level %d has %d entries", n.level, n.length)
	}
	for i := range n.below {
		if i >= n.len() {
			if n.below[i] != nil {
				t.Fatal("there is something behind the last entry")
			}
		} else if n.level == 0 {
			if n.rects[i] != n.point(i).rect() {
				t.Fatal("a point is not where its entry says")
			}
		} else {
			child := n.child(i)
			if child.level != n.level-1 || n.rects[i] != child.rect() {
				t.Fatal("a child is not what its entry says")
			}
			check(t, child, false)
		}
	}
}

// A small square, so that many distances are equal.
func TestQueriesFindWhatAListFinds(t *testing.T) {
	random := peer.NewRandom(5)
	index, list := newTree(), []*point{}
	for step := range 3000 {
		if len(list) > 500 || step%3 == 2 {
			at := random.Below(len(list))
			index.remove(list[at])
			list[at] = list[len(list)-1]
			list = list[:len(list)-1]
		} else {
			p := newPoint(uint64(step), 0, uint32(random.Below(64)), uint32(random.Below(64)))
			index.insertPoint(p)
			list = append(list, p)
		}
		if step%10 != 0 {
			continue
		}
		check(t, index.root, true)
		x, y := uint32(random.Below(64)), uint32(random.Below(64))
		sorted := slices.SortedFunc(slices.Values(list), func(a, b *point) int {
			order := cmp.Compare(a.rect().distance(x, y), b.rect().distance(x, y))
			return cmp.Or(order, cmp.Compare(a.id, b.id))
		})
		hits := index.nearest(x, y, 10)
		if len(hits) != min(10, len(list)) {
			t.Fatalf("%d hits among %d points", len(hits), len(list))
		}
		for i, h := range hits {
			if h.point != sorted[i] || h.distance != sorted[i].rect().distance(x, y) {
				t.Fatalf("step %d: hit %d is point %d, and not %d", step, i, h.point.id, sorted[i].id)
			}
		}
	}
	for _, p := range list {
		index.remove(p)
	}
	if index.root.length != 0 || index.root.level != 0 {
		t.Error("a tree without points has something")
	}
}
