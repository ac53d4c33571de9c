package requestarena

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"
)

// kind says what a value is.
type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	array
	object
)

// value is a JSON value in three words, as in the other program: a pointer if it has one, a word that is its
// length or the number itself, and what it is. An interface would need an allocation for each number and one more
// for each string and container, and a struct with a field for each kind would be three times as large.
type value struct {
	data unsafe.Pointer
	word uint64
	kind kind
}

// member is a key of an object, and its value.
type member struct {
	key   string
	value value
}

func (v *value) text() string {
	return unsafe.String((*byte)(v.data), int(v.word))
}

func (v *value) values() []value {
	return unsafe.Slice((*value)(v.data), int(v.word))
}

func (v *value) members() []member {
	return unsafe.Slice((*member)(v.data), int(v.word))
}

func ofText(s string) value {
	return value{unsafe.Pointer(unsafe.StringData(s)), uint64(len(s)), text}
}

func ofArray(values []value) value {
	return value{unsafe.Pointer(unsafe.SliceData(values)), uint64(len(values)), array}
}

func ofObject(members []member) value {
	return value{unsafe.Pointer(unsafe.SliceData(members)), uint64(len(members)), object}
}

// sum looks at every value and at every byte of every string.
func sum(v *value) uint64 {
	return add(0, v)
}

func add(sum uint64, v *value) uint64 {
	switch v.kind {
	case null:
		return mix(sum, 1)
	case boolean:
		return mix(sum, 2+v.word)
	case number:
		return mix(mix(sum, 4), v.word)
	case text:
		return addText(mix(sum, 5), v.text())
	case array:
		values := v.values()
		sum = mix(mix(sum, 6), uint64(len(values)))
		for i := range values {
			sum = add(sum, &values[i])
		}
	case object:
		members := v.members()
		sum = mix(mix(sum, 7), uint64(len(members)))
		for i := range members {
			sum = add(addText(sum, members[i].key), &members[i].value)
		}
	}
	return sum
}

func addText(sum uint64, s string) uint64 {
	sum = mix(sum, uint64(len(s)))
	bytes := unsafe.Slice(unsafe.StringData(s), len(s))
	for len(bytes) >= 8 {
		sum = mix(sum, binary.LittleEndian.Uint64(bytes))
		bytes = bytes[8:]
	}
	for _, b := range bytes {
		sum = mix(sum, uint64(b))
	}
	return sum
}

func mix(sum, word uint64) uint64 {
	return bits.RotateLeft64((sum^word)*0x9e3779b97f4a7c15, 29)
}

// objects counts strings, keys, and the contents of containers.
func objects(v *value) uint64 {
	var count uint64
	switch v.kind {
	case text:
		count = 1
	case array:
		count = 1
		values := v.values()
		for i := range values {
			count += objects(&values[i])
		}
	case object:
		members := v.members()
		count = 1 + uint64(len(members))
		for i := range members {
			count += objects(&members[i].value)
		}
	}
	return count
}

func ofNumber(f float64) value {
	return value{nil, math.Float64bits(f), number}
}
