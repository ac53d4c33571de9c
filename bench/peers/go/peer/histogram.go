package peer

import "math/bits"

// Histogram counts times in nanoseconds, in buckets that are as fine as those of the other programs: each power of two
// is divided into 32 equal ones, so a value is known to about 3 %, and values below 64 have a bucket each. The
// largest value is kept exactly.
//
//	value v with its highest bit at e >= 5:   bucket = (e - 5) * 32 + (v >> (e - 5))
type Histogram struct {
	counts [buckets]uint64
	total  uint64
	max    uint64
}

const (
	subBits = 5
	sub     = 1 << subBits
	buckets = (64 - subBits + 1) * sub
)

// Record counts one value.
func (h *Histogram) Record(value uint64) {
	h.counts[bucket(value)]++
	h.total++
	h.max = max(h.max, value)
}

// Merge adds all of other.
func (h *Histogram) Merge(other *Histogram) {
	for i, count := range other.counts {
		h.counts[i] += count
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// Quantile is a value that part of 10,000 values do not exceed: the upper end of the bucket, but never more than
// the largest value. It is 0 when nothing was recorded.
func (h *Histogram) Quantile(part uint64) uint64 {
	wantedHigh, wantedLow := bits.Mul64(h.total, part)
	var seen uint64
	for i, count := range h.counts {
		seen += count
		high, low := bits.Mul64(seen, 10_000)
		if count > 0 && (high > wantedHigh || high == wantedHigh && low >= wantedLow) {
			return min(upperEnd(i), h.max)
		}
	}
	return h.max
}

func bucket(value uint64) int {
	exponent := bits.Len64(value|1) - 1
	if exponent < subBits {
		return int(value)
	}
	shift := exponent - subBits
	return shift*sub + int(value>>shift)
}

// upperEnd is the largest value of a bucket.
func upperEnd(index int) uint64 {
	if index < 2*sub {
		return uint64(index)
	}
	shift := index/sub - 1
	head := uint64(index%sub + sub)
	// One past the end of the last bucket is 2^64, which is 0 here, and the number before it is right again.
	return (head+1)<<shift - 1
}
