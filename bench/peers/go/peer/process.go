// Package peer is what the workloads have in common: parameters, measuring, and the report, which has the keys of
// spanheap's in the same order and units.
//
// # What is measured
// Wall time and CPU time are those of the workload, from the system. The peak of the resident set is that of the
// process, from /proc/self/status: what getrusage says of it may be a parent's, since it outlives an exec.
//
// longest_stall_ns is the longest stop of the world, which Go counts in buckets: the upper end of the highest one
// in use. Go does not report how long a single allocation was held up by assisting, so the figure is a lower
// bound; the latencies of an operation have no such flaw.
//
// gc_cpu_s is an estimate. Go counts the time of its processors by what they did (/cpu/classes), and takes wall time
// for CPU time, which can be several times too much on a busy machine. So only the collector's share of it is
// taken, and that share of the CPU time that the system has counted.
package peer

import (
	"bytes"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// usage is what the system has counted so far. It cannot fail with these arguments.
func usage() syscall.Rusage {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return usage
}

// Times returns the CPU time of the process, outside the kernel and in it.
func Times() (user, system time.Duration) {
	usage := usage()
	return time.Duration(usage.Utime.Nano()), time.Duration(usage.Stime.Nano())
}

// CPU returns the CPU time of the process.
func CPU() time.Duration {
	user, system := Times()
	return user + system
}

// ThreadCPU returns the CPU time of the calling thread. A goroutine that compares two readings is locked to its thread.
func ThreadCPU() time.Duration {
	const clockThreadCPU = 3
	var now syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPU, uintptr(unsafe.Pointer(&now)), 0)
	if errno != 0 {
		panic(errno)
	}
	return time.Duration(now.Nano())
}

// PeakResident returns the largest resident set so far in bytes, or 0 where /proc cannot tell.
func PeakResident() uint64 {
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	return firstNumber(rest) << 10
}

// ResetPeakResident lets PeakResident begin anew with what is resident now. Where the system does not do that, the peak
// stays what it was.
func ResetPeakResident() {
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

// Resident returns the resident set in bytes now, or 0 where /proc cannot tell.
func Resident() uint64 {
	sizes, _ := os.ReadFile("/proc/self/statm")
	_, rest, _ := bytes.Cut(sizes, []byte(" "))
	return firstNumber(rest) * uint64(os.Getpagesize())
}

func firstNumber(text []byte) uint64 {
	fields := bytes.Fields(text)
	if len(fields) == 0 {
		return 0
	}
	value, _ := strconv.ParseUint(string(fields[0]), 10, 64)
	return value
}

// Cycles returns how many cycles the collector has completed.
func Cycles() uint64 {
	return read("/gc/cycles/total:gc-cycles").Uint64()
}

// Busy is what Go has counted of the time of its processors, up to the end of the last cycle. It is wall time: a
// worker that waits for a processor of the machine's counts as busy.
type Busy struct {
	collector, total float64
	// all has the time of idle processors too.
	all float64
}

// NowBusy reads it.
func NowBusy() Busy {
	all := read("/cpu/classes/total:cpu-seconds").Float64()
	return Busy{
		collector: read("/cpu/classes/gc/total:cpu-seconds").Float64(),
		total:     all - read("/cpu/classes/idle:cpu-seconds").Float64(),
		all:       all,
	}
}

// ShareSince is the part of the collector's in what was counted since then.
func (b Busy) ShareSince(before Busy) float64 {
	if b.total <= before.total {
		return 0
	}
	return (b.collector - before.collector) / (b.total - before.total)
}

// partOf is the collector's part of all work in so much time since then. What came after the last cycle was no collection.
func (b Busy) partOf(before Busy, wall time.Duration) float64 {
	counted := (b.all - before.all) / (wall.Seconds() * float64(runtime.GOMAXPROCS(0)))
	return b.ShareSince(before) * min(counted, 1)
}

// LiveBytes is what the last cycle has found alive.
func LiveBytes() uint64 {
	return read("/gc/heap/live:bytes").Uint64()
}

// LongestStop returns the longest stop of the world for a collection.
func LongestStop() time.Duration {
	var stop time.Duration
	pauses := read("/sched/pauses/total/gc:seconds").Float64Histogram()
	for i, count := range pauses.Counts {
		if end := pauses.Buckets[i+1]; count > 0 && !math.IsInf(end, 1) {
			stop = time.Duration(end * 1e9)
		}
	}
	return stop
}

func read(name string) metrics.Value {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value
}

// currentPercent is what GOGC said. There is no way to ask but to set.
func currentPercent() int {
	percent := debug.SetGCPercent(-1)
	debug.SetGCPercent(percent)
	return percent
}

// currentLimit is what GOMEMLIMIT said.
func currentLimit() int64 {
	return debug.SetMemoryLimit(-1)
}

// apply tells the runtime what p says. It returns what undoes that.
func apply(p *Params) (undo func()) {
	percent, limit := debug.SetGCPercent(p.GCPercent), debug.SetMemoryLimit(p.Limit)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}
