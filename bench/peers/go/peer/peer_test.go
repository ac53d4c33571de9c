package peer

import "testing"

func TestBucketsAreContiguousAndNarrow(t *testing.T) {
	for index := range buckets {
		end := upperEnd(index)
		if bucket(end) != index {
			t.Errorf("%d is the end of bucket %d and in bucket %d", end, index, bucket(end))
		}
		if next := end + 1; next != 0 && bucket(next) != index+1 {
			t.Errorf("%d is behind bucket %d and in bucket %d", next, index, bucket(next))
		}
	}
}

func TestQuantilesAreWithinABucketOfTheTruth(t *testing.T) {
	var h, other Histogram
	for value := uint64(1); value <= 100_000; value++ {
		if value%3 == 0 {
			other.Record(value)
		} else {
			h.Record(value)
		}
	}
	h.Merge(&other)
	for _, part := range []uint64{5_000, 9_900, 9_990, 9_999} {
		exact := part * 10
		if found := h.Quantile(part); found < exact || found > exact+exact/32 {
			t.Errorf("%d of 10,000: %d, and not %d", part, found, exact)
		}
	}
	if h.Quantile(10_000) != 100_000 || new(Histogram).Quantile(5_000) != 0 {
		t.Error("the largest value is not exact, or nothing is not 0")
	}
}

func TestRandomIsTheOneOfAllPrograms(t *testing.T) {
	random := NewRandom(7)
	for i, wanted := range []int{81, 258, 354, 553, 651, 603, 414, 621} {
		if found := random.Below(1000); found != wanted {
			t.Errorf("number %d is %d, and not %d", i, found, wanted)
		}
	}
}

func TestSharesAddUpAndAreEven(t *testing.T) {
	for _, total := range []uint64{0, 1, 10, 1_000_003} {
		for _, threads := range []int{1, 3, 7, 1024} {
			sum := uint64(0)
			for index := range threads {
				sum += Share(total, threads, index)
			}
			if most, least := Share(total, threads, 0), Share(total, threads, threads-1); sum != total || most-least > 1 {
				t.Errorf("%d in %d: %d together, from %d to %d", total, threads, sum, least, most)
			}
		}
	}
}

func TestNumbersMayHaveUnits(t *testing.T) {
	key := Key{Name: "live", Max: 1 << 40}
	for text, wanted := range map[string]uint64{
		"0": 0, "4096": 4096, "17B": 17, "64MiB": 64 << 20, "0.5GiB": 1 << 29, "1.5GB": 1_500_000_000,
	} {
		if found, err := number(key, text); err != nil || found != wanted {
			t.Errorf("%s is %d (%v), and not %d", text, found, err, wanted)
		}
	}
	for _, text := range []string{"", "MiB", "64M", "-1", "-1MiB", "1e3", "NaNB", "9TiB"} {
		if found, err := number(key, text); err == nil {
			t.Errorf("%q is not refused, it is %d", text, found)
		}
	}
}
