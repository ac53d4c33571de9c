package peer

import "math/bits"

// Random is xorshift64*, the generator that all workloads share. It is never 0, from which it would not leave.
type Random struct {
	state uint64
}

// NewRandom makes a generator for one stream of choices. Neighbouring seeds give unrelated streams, since one round of
// splitmix64 spreads small seeds over all bits.
func NewRandom(seed uint64) Random {
	z := seed + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return Random{max(z^z>>31, 1)}
}

// Next returns 64 bits.
func (r *Random) Next() uint64 {
	r.state ^= r.state >> 12
	r.state ^= r.state << 25
	r.state ^= r.state >> 27
	return r.state * 0x2545f4914f6cdd1d
}

// Below returns a number below bound, which is not 0: the high half of a product of 128 bits.
func (r *Random) Below(bound int) int {
	high, _ := bits.Mul64(r.Next(), uint64(bound))
	return int(high)
}
