// Package peer is what the programs here have in common: what the system and the runtime know about the process.
//
// The stop that Stop tells is the longest stop of the world, which Go counts in buckets: the upper end of the
// highest one in use. Go does not report how long a single allocation was held up by assisting, so
// the figure is a lower bound. GCSeconds is Go's estimate: it takes the wall time of its workers for CPU
// time, which is too much on a busy machine. User and system time have no such flaw.
package peer

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"
)

// Fail ends the process with an error.
func Fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "error: "+format+"\n", args...)
	os.Exit(1)
}

// Print writes a report as one line of JSON.
func Print(report any) {
	line, err := json.Marshal(report)
	if err != nil {
		Fail("the result cannot be written: %v", err)
	}
	fmt.Println(string(line))
}

// usage is what the system has counted so far.
func usage() syscall.Rusage {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		Fail("getrusage: %v", err)
	}
	return usage
}

// Times returns the CPU time of the process, outside the kernel and in it.
func Times() (user, system time.Duration) {
	usage := usage()
	duration := func(t syscall.Timeval) time.Duration { return time.Duration(t.Nano()) }
	return duration(usage.Utime), duration(usage.Stime)
}

// CPU returns the CPU time of the process.
func CPU() time.Duration {
	user, system := Times()
	return user + system
}

// PeakResident returns the largest resident set so far, in bytes.
func PeakResident() int64 {
	return int64(usage().Maxrss) * 1024
}

// Cycles returns how many cycles the collector has completed.
func Cycles() uint32 {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return memory.NumGC
}

// Collector returns the CPU time of the collector in seconds, and the longest stop of the world.
func Collector() (seconds float64, stop time.Duration) {
	samples := []metrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/sched/pauses/total/gc:seconds"},
	}
	metrics.Read(samples)
	pauses := samples[1].Value.Float64Histogram()
	for i, count := range pauses.Counts {
		if end := pauses.Buckets[i+1]; count > 0 && !math.IsInf(end, 1) {
			stop = time.Duration(end * 1e9)
		}
	}
	return samples[0].Value.Float64(), stop
}
