package requestarena

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"strconv"
	"unicode/utf8"
)

// maxDepth bounds how many containers may lie in each other.
const maxDepth = 128

var errMalformed = errors.New("malformed JSON")

// decoder is the decoder of the other program, step for step: values go to their memory as soon as they are
// complete, and parts of containers that are not complete wait in lists that are used again.
type decoder struct {
	bytes     []byte
	at        int
	depth     int
	place     place
	values    []value
	members   []member
	unescaped []byte
}

// decode decodes all of bytes.
func (d *decoder) decode(bytes []byte, place place) (value, error) {
	d.bytes, d.at, d.depth, d.place = bytes, 0, 0, place
	d.values, d.members = d.values[:0], d.members[:0]
	d.skipBlanks()
	v, err := d.value()
	d.skipBlanks()
	if err == nil && d.at < len(bytes) {
		err = errMalformed
	}
	return v, err
}

// peek returns the next byte, or one that stands nowhere in JSON.
func (d *decoder) peek() byte {
	if d.at < len(d.bytes) {
		return d.bytes[d.at]
	}
	return 0
}

func (d *decoder) skipBlanks() {
	for {
		switch d.peek() {
		case ' ', '\n', '\r', '\t':
			d.at++
		default:
			return
		}
	}
}

func (d *decoder) value() (value, error) {
	switch c := d.peek(); c {
	case '"':
		s, err := d.string()
		return ofText(s), err
	case '{':
		return d.object()
	case '[':
		return d.array()
	case 't':
		return d.literal("true", value{nil, 1, boolean})
	case 'f':
		return d.literal("false", value{nil, 0, boolean})
	case 'n':
		return d.literal("null", value{nil, 0, null})
	default:
		if c != '-' && (c < '0' || c > '9') {
			return value{}, errMalformed
		}
		f, err := d.number()
		return ofNumber(f), err
	}
}

func (d *decoder) literal(name string, v value) (value, error) {
	if len(d.bytes)-d.at < len(name) || string(d.bytes[d.at:d.at+len(name)]) != name {
		return value{}, errMalformed
	}
	d.at += len(name)
	return v, nil
}

// open goes into a container, to its first part, and says whether it is empty.
func (d *decoder) open(end byte) (bool, error) {
	if d.depth == maxDepth {
		return false, errMalformed
	}
	d.depth++
	d.at++
	d.skipBlanks()
	return d.ends(end), nil
}

// ends goes behind the bracket, if it is what comes next.
func (d *decoder) ends(end byte) bool {
	if d.peek() != end {
		return false
	}
	d.at++
	d.depth--
	return true
}

// next goes to the next part of a container, and says whether there was none.
func (d *decoder) next(end byte) (bool, error) {
	d.skipBlanks()
	if d.ends(end) {
		return true, nil
	}
	if d.peek() != ',' {
		return false, errMalformed
	}
	d.at++
	d.skipBlanks()
	return false, nil
}

func (d *decoder) array() (value, error) {
	from := len(d.values)
	ended, err := d.open(']')
	for err == nil && !ended {
		var v value
		if v, err = d.value(); err != nil {
			break
		}
		d.values = append(d.values, v)
		ended, err = d.next(']')
	}
	if err != nil {
		return value{}, err
	}
	v := ofArray(d.place.array(d.values[from:]))
	d.values = d.values[:from]
	return v, nil
}

func (d *decoder) object() (value, error) {
	from := len(d.members)
	ended, err := d.open('}')
	for err == nil && !ended {
		var m member
		if m.key, err = d.string(); err != nil {
			break
		}
		d.skipBlanks()
		if d.peek() != ':' {
			return value{}, errMalformed
		}
		d.at++
		d.skipBlanks()
		if m.value, err = d.value(); err != nil {
			break
		}
		d.members = append(d.members, m)
		ended, err = d.next('}')
	}
	if err != nil {
		return value{}, err
	}
	v := ofObject(d.place.object(d.members[from:]))
	d.members = d.members[:from]
	return v, nil
}

func (d *decoder) string() (string, error) {
	if d.peek() != '"' {
		return "", errMalformed
	}
	d.at++
	start := d.at
	d.skipPlain()
	if d.peek() == '"' {
		plain := d.bytes[start:d.at]
		d.at++
		return d.place.text(plain), nil
	}
	return d.escaped(start)
}

// skipPlain goes to the next byte that cannot stand for itself in a string, or to the end.
func (d *decoder) skipPlain() {
	for d.at+8 <= len(d.bytes) {
		if found := special(binary.LittleEndian.Uint64(d.bytes[d.at:])); found != 0 {
			d.at += bits.TrailingZeros64(found) / 8
			return
		}
		d.at += 8
	}
	for d.at < len(d.bytes) {
		if c := d.bytes[d.at]; c < ' ' || c == '"' || c == '\\' {
			return
		}
		d.at++
	}
}

// special has its lowest set bit in the lowest byte of word that ends a plain piece of a string.
func special(word uint64) uint64 {
	const ones = 0x0101010101010101
	quote, slash := word^(ones*'"'), word^(ones*'\\')
	return ((quote-ones)&^quote | (slash-ones)&^slash | (word-ones*0x20)&^word) & (ones << 7)
}

// escaped is the rest of a string that began at start; up to the next byte there is nothing special.
func (d *decoder) escaped(start int) (string, error) {
	d.unescaped = d.unescaped[:0]
	for {
		d.unescaped = append(d.unescaped, d.bytes[start:d.at]...)
		switch d.peek() {
		case '"':
			d.at++
			return d.place.text(d.unescaped), nil
		case '\\':
			r, err := d.escape()
			if err != nil {
				return "", err
			}
			d.unescaped = utf8.AppendRune(d.unescaped, r)
		default:
			return "", errMalformed
		}
		start = d.at
		d.skipPlain()
	}
}

func (d *decoder) escape() (rune, error) {
	d.at++
	r := rune(d.peek())
	switch r {
	case '"', '\\', '/':
	case 'b':
		r = '\b'
	case 'f':
		r = '\f'
	case 'n':
		r = '\n'
	case 'r':
		r = '\r'
	case 't':
		r = '\t'
	case 'u':
		return d.codePoint()
	default:
		return 0, errMalformed
	}
	d.at++
	return r, nil
}

// codePoint is what begins with the u of an escape: one number of 16 bits, or the two halves of a pair.
func (d *decoder) codePoint() (rune, error) {
	first, err := d.hexadecimal()
	if err != nil || first < 0xd800 || first > 0xdfff {
		return first, err
	}
	if first > 0xdbff || d.peek() != '\\' {
		return 0, errMalformed
	}
	d.at++
	if d.peek() != 'u' {
		return 0, errMalformed
	}
	second, err := d.hexadecimal()
	if err != nil || second < 0xdc00 || second > 0xdfff {
		return 0, errMalformed
	}
	return 0x10000 + (first-0xd800)<<10 + (second - 0xdc00), nil
}

// hexadecimal reads four digits behind the u, which is the next byte.
func (d *decoder) hexadecimal() (rune, error) {
	if d.at+5 > len(d.bytes) {
		return 0, errMalformed
	}
	n, err := strconv.ParseUint(string(d.bytes[d.at+1:d.at+5]), 16, 16)
	if err != nil {
		return 0, errMalformed
	}
	d.at += 5
	return rune(n), nil
}

var powersOfTen = [16]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// number reads a number. With up to fifteen digits and no exponent it is a quotient of two numbers that are exact.
func (d *decoder) number() (float64, error) {
	start := d.at
	negative := d.peek() == '-'
	if negative {
		d.at++
	}
	first := d.at
	mantissa, ok := d.digits(0)
	if !ok || d.at-first > 1 && d.bytes[first] == '0' {
		return 0, errMalformed
	}
	places := 0
	if d.peek() == '.' {
		d.at++
		point := d.at
		if mantissa, ok = d.digits(mantissa); !ok {
			return 0, errMalformed
		}
		places = d.at - point
	}
	if c := d.peek(); c == 'e' || c == 'E' || d.at-first > 15 {
		return d.longNumber(start)
	}
	f := float64(mantissa) / powersOfTen[places]
	if negative {
		f = -f
	}
	return f, nil
}

// digits takes digits, at least one, behind those of before.
func (d *decoder) digits(before uint64) (uint64, bool) {
	start := d.at
	for {
		c := d.peek() - '0'
		if c > 9 {
			return before, d.at > start
		}
		before = before*10 + uint64(c)
		d.at++
	}
}

func (d *decoder) longNumber(start int) (float64, error) {
	if c := d.peek(); c == 'e' || c == 'E' {
		d.at++
		if c := d.peek(); c == '+' || c == '-' {
			d.at++
		}
		if _, ok := d.digits(0); !ok {
			return 0, errMalformed
		}
	}
	f, err := strconv.ParseFloat(string(d.bytes[start:d.at]), 64)
	if err != nil {
		return 0, errMalformed
	}
	return f, nil
}
