package lru

import "spanheap/bench/peers/go/peer"

// zipf draws ranks of which few come often and many rarely: rank k has a probability in proportion to 1 / (k + 1)^0.99.
// The method is that of Gray and others (1994), in operations that have one result everywhere: products are rounded
// before something is added, and powers are products.
type zipf struct {
	ranks uint64
	// sum of all weights.
	sum float64
	eta float64
}

const (
	// zeta is the value of Riemann's function at 0.99.
	zeta = -99.4235129777281
	// half is 0.5^0.99.
	half = 0.5034777750283594
	// root is 2^0.01.
	root = 1.0069555500567189
)

func newZipf(ranks uint64) *zipf {
	n := float64(ranks)
	// The 100th root of n, by Newton's method.
	q := 1.25
	for range 64 {
		p := hundredth(q)
		q -= float64(float64(p-n)*q) / float64(100*p)
	}
	// The sum of the first n weights, by Euler's and Maclaurin's formula.
	sum := zeta + float64(100*q) + float64(0.5*q)/n - float64(0.0825*q)/float64(n*n)
	return &zipf{ranks, sum, (1 - root/q) / (1 - (1+half)/sum)}
}

// draw returns a rank; 0 is the most frequent.
func (z *zipf) draw(random *peer.Random) uint64 {
	uniform := float64(random.Next()>>11) / (1 << 53)
	weight := uniform * z.sum
	if weight < 1 {
		return 0
	}
	if weight < 1+half {
		return min(1, z.ranks-1)
	}
	rank := float64(z.ranks) * hundredth(float64(z.eta*uniform)-z.eta+1)
	return min(uint64(rank), z.ranks-1)
}

// hundredth is the power of 100.
func hundredth(x float64) float64 {
	a := x * x
	b := a * a
	c := b * b
	d := c * c
	e := d * d
	f := e * e
	return f * e * b
}
