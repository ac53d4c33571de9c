package lru

import (
	"slices"
	"testing"

	"spanheap/bench/peers/go/peer"
)

func TestItForgetsWhatWasUsedLongestAgo(t *testing.T) {
	s := newCache(20, 1)[0]
	var twin []uint64
	random := peer.NewRandom(11)
	for step := range uint64(20_000) {
		k := uint64(random.Below(60))
		want := get
		if random.Below(10) == 0 {
			want = replace
		}
		// Few buckets for the keys: chains have several entries.
		hit, _ := s.operate(key{k % 7, k}, want, step)
		at := slices.Index(twin, k)
		if hit != (at >= 0) {
			t.Fatalf("step %d: the key %d is at %d, and hit is %t", step, k, at, hit)
		}
		if at >= 0 {
			twin = slices.Delete(twin, at, at+1)
		}
		twin = slices.Insert(twin, 0, k)
		twin = twin[:min(len(twin), 20)]
	}
	if count, err := s.count(); count != 20 || err != nil {
		t.Errorf("%d entries, %v", count, err)
	}
}

func TestFrequenciesFollowTheWeights(t *testing.T) {
	z, random := newZipf(1000), peer.NewRandom(3)
	counts := make([]float64, 1000)
	for range 200_000 {
		counts[z.draw(&random)]++
	}
	// The weights of 1000 ranks add up to about 7.73, and these are (rank + 1)^-0.99.
	for rank, weight := range map[int]float64{0: 1, 1: half, 9: 0.10233, 99: 0.010471} {
		if ratio := counts[rank] / (200_000 / 7.73 * weight); ratio < 0.7 || ratio > 1.3 {
			t.Errorf("rank %d: %f of what it should be", rank, ratio)
		}
	}
}

func TestFewRanksAreAllDrawnAndNoOthers(t *testing.T) {
	for _, ranks := range []uint64{1, 2, 3} {
		z, random := newZipf(ranks), peer.NewRandom(9)
		seen := make([]bool, ranks)
		for range 1000 {
			seen[z.draw(&random)] = true
		}
		if slices.Contains(seen, false) {
			t.Errorf("%d ranks: %v", ranks, seen)
		}
	}
}
