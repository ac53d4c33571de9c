// Package livedata is a set of objects of mixed sizes, held at a chosen number of bytes and renewed steadily.
//
// Most objects are small, and most bytes are in the others. Objects lie in segments; growing adds some, and shrinking
// drops the newest. An item's payload is a stretch of one pattern that begins where its number says, so every
// item can be checked.
package livedata

import (
	"bytes"
	"fmt"

	"spanheap/bench/peers/go/peer"
)

const (
	slots      = 128
	maxPayload = 128 << 10
	phases     = 251
)

type item struct {
	number  uint64
	payload []byte
}

// itemBytes is what an item and its slot weigh in spanheap, where a slice has two words. Here it has three, but equal
// parameters have to make equal objects.
const itemBytes = 32

type segment struct {
	slots []*item
	bytes uint64
}

// Data is a set of objects.
type Data struct {
	segments []*segment
	bytes    uint64
	made     uint64
	random   peer.Random
	pattern  []byte
}

// New makes no objects. What is made later follows from seed.
func New(seed uint64) *Data {
	pattern := make([]byte, maxPayload+phases)
	for i := range pattern {
		pattern[i] = byte(i % phases)
	}
	return &Data{random: peer.NewRandom(seed), pattern: pattern}
}

// GrowTo adds segments until there are so many bytes or more.
func (d *Data) GrowTo(bytes uint64) {
	for d.bytes < bytes {
		s := &segment{slots: make([]*item, slots)}
		for i := range s.slots {
			s.slots[i] = d.item()
			s.bytes += s.slots[i].weight()
		}
		d.bytes += s.bytes
		d.segments = append(d.segments, s)
	}
}

// ShrinkTo drops the newest segments as long as there are so many bytes without them.
func (d *Data) ShrinkTo(bytes uint64) {
	for n := len(d.segments); n > 0 && d.bytes-d.segments[n-1].bytes >= bytes; n-- {
		d.bytes -= d.segments[n-1].bytes
		d.segments[n-1] = nil
		d.segments = d.segments[:n-1]
	}
}

// Renew replaces random items until so many bytes of new ones have been made, and checks what it replaces.
func (d *Data) Renew(bytes uint64) error {
	if len(d.segments) == 0 {
		return nil
	}
	for renewed := uint64(0); renewed < bytes; {
		s := d.segments[d.random.Below(len(d.segments))]
		slot := &s.slots[d.random.Below(slots)]
		fresh, old := d.item(), *slot
		*slot = fresh
		if err := d.check(old); err != nil {
			return err
		}
		renewed += fresh.weight()
		s.bytes += fresh.weight() - old.weight()
		d.bytes += fresh.weight() - old.weight()
	}
	return nil
}

// Verify checks every item and returns how many there are.
func (d *Data) Verify() (uint64, error) {
	var count uint64
	for _, s := range d.segments {
		for _, i := range s.slots {
			if err := d.check(i); err != nil {
				return 0, err
			}
			count++
		}
	}
	return count, nil
}

// item makes an item of random size.
func (d *Data) item() *item {
	first := int(d.made % phases)
	i := &item{number: d.made, payload: bytes.Clone(d.pattern[first : first+d.payloadBytes()])}
	d.made++
	return i
}

func (i *item) weight() uint64 {
	return itemBytes + uint64(len(i.payload))
}

func (d *Data) check(i *item) error {
	first := int(i.number % phases)
	if bytes.Equal(i.payload, d.pattern[first:first+len(i.payload)]) {
		return nil
	}
	return fmt.Errorf("object %d is not what it was made as", i.number)
}

// payloadBytes is a random size: a range first, then a size of that range.
func (d *Data) payloadBytes() int {
	low, high := 32<<10, maxPayload
	switch part := d.random.Below(100); {
	case part < 50:
		low, high = 16, 128
	case part < 80:
		low, high = 128, 1<<10
	case part < 95:
		low, high = 1<<10, 8<<10
	case part < 99:
		low, high = 8<<10, 32<<10
	}
	return low + d.random.Below(high-low)
}
