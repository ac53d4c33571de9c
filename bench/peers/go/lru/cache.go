package lru

import (
	"fmt"
	"math/bits"
	"sync"
	"unsafe"
)

// words of a value: 128 bytes.
const words = 16

type value [words]uint64

// key is a number that is spread over all bits, and the number.
type key [2]uint64

// node is an entry, of 64 bytes.
type node struct {
	key      key
	chain    *node
	newer    *node
	older    *node
	value    *value
	hits     uint64
	replaced uint64
}

// shard is a hash map and a list by age. Whoever holds the lock may change all of it.
type shard struct {
	buckets  []*node
	capacity uint64
	lock     sync.Mutex
	newest   *node
	oldest   *node
	length   uint64
}

// cache is a cache in shards.
type cache []*shard

// want is what an operation is to do.
type want int

const (
	// get reads the value, and makes it if it is not there.
	get want = iota
	// replace gives the key another value.
	replace
)

// weight is what a full cache weighs in bytes. The shards are counted with what they weigh in spanheap, so that equal
// parameters make equal limits.
func weight(entries, shards uint64) uint64 {
	fixed := powerOfTwo(entries/shards+1)*8 + 72
	return entries*uint64(unsafe.Sizeof(node{})+unsafe.Sizeof(value{})) + shards*fixed
}

// powerOfTwo is the least power of two that is not below n.
func powerOfTwo(n uint64) uint64 {
	return 1 << bits.Len64(max(n, 1)-1)
}

func newCache(entries, shards uint64) cache {
	all := make(cache, shards)
	for i := range all {
		capacity := entries / shards
		if uint64(i) < entries%shards {
			capacity++
		}
		all[i] = &shard{buckets: make([]*node, powerOfTwo(capacity)), capacity: max(capacity, 1)}
	}
	return all
}

// count is how many entries there are. What does not fit together is an error.
func (c cache) count() (uint64, error) {
	var total uint64
	for _, s := range c {
		count, err := s.count()
		if err != nil {
			return 0, err
		}
		total += count
	}
	return total, nil
}

func valueOf(key key, salt uint64) *value {
	var v value
	for i := range v {
		v[i] = key[1] ^ salt
	}
	v[words-1] = key[0]
	return &v
}

func (s *shard) bucket(key key) **node {
	return &s.buckets[key[0]&uint64(len(s.buckets)-1)]
}

func (s *shard) find(key key) *node {
	n := *s.bucket(key)
	for n != nil && n.key != key {
		n = n.chain
	}
	return n
}

// operate does one operation with a key. It returns whether the key was there, and a word of the value that it had
// or has got.
func (s *shard) operate(key key, want want, salt uint64) (hit bool, word uint64) {
	s.lock.Lock()
	defer s.lock.Unlock()
	n := s.find(key)
	if n == nil {
		return false, s.insert(key, salt)
	}
	word = n.value[0]
	if n.value[words-1] != key[0] {
		panic("the value of another key")
	}
	if want == get {
		n.hits++
	} else {
		n.value = valueOf(key, salt)
		n.replaced++
	}
	if s.newest != n {
		s.unlink(n)
		s.push(n)
	}
	return true, word
}

// insert makes an entry, in place of the oldest one if there are enough. It returns a word of its value.
func (s *shard) insert(key key, salt uint64) uint64 {
	for s.length >= s.capacity {
		s.evict()
	}
	bucket := s.bucket(key)
	n := &node{key: key, value: valueOf(key, salt), chain: *bucket}
	*bucket = n
	s.push(n)
	return n.value[0]
}

// evict takes the oldest entry out.
func (s *shard) evict() {
	oldest := s.oldest
	s.unlink(oldest)
	place := s.bucket(oldest.key)
	for *place != oldest {
		place = &(*place).chain
	}
	*place = oldest.chain
}

// push puts a node that is in no list to the front.
func (s *shard) push(n *node) {
	n.older = s.newest
	if s.newest != nil {
		s.newest.newer = n
	} else {
		s.oldest = n
	}
	s.newest = n
	s.length++
}

// unlink takes a node out of the list.
func (s *shard) unlink(n *node) {
	newer, older := n.newer, n.older
	n.newer, n.older = nil, nil
	if newer != nil {
		newer.older = older
	} else {
		s.newest = older
	}
	if older != nil {
		older.newer = newer
	} else {
		s.oldest = newer
	}
	s.length--
}

func (s *shard) count() (uint64, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	var count uint64
	var newer *node
	for n := s.newest; n != nil; newer, n = n, n.older {
		count++
		if n.newer != newer || s.find(n.key) != n {
			return 0, fmt.Errorf("the entry %#x is not where it should be", n.key[0])
		}
	}
	if count != s.length {
		return 0, fmt.Errorf("a list of %d entries has %d", s.length, count)
	}
	return count, nil
}
