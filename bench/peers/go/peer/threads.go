package peer

import (
	"errors"
	"sync"
)

// Share is the part of total that falls to the thread index of threads: parts differ by at most one.
func Share(total uint64, threads, index int) uint64 {
	part := total / uint64(threads)
	if uint64(index) < total%uint64(threads) {
		part++
	}
	return part
}

// InThreads runs body for each number in a goroutine of its own and returns the results in that order. If there is
// only one, the calling goroutine runs it.
func InThreads[T any](threads int, body func(index int) (T, error)) ([]T, error) {
	results := make([]T, threads)
	failures := make([]error, threads)
	if threads == 1 {
		results[0], failures[0] = body(0)
		return results, failures[0]
	}
	var group sync.WaitGroup
	for index := range threads {
		group.Go(func() {
			results[index], failures[index] = body(index)
		})
	}
	group.Wait()
	return results, errors.Join(failures...)
}
