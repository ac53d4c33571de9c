// The workloads of the benchmark suite on Go's heap, to hold spanheap's against.
//
//	go WORKLOAD [key=value ..]
//
// runs one of them and prints one line of JSON. What each workload does, and what the line has, is in
// bench/WORKLOADS.md; the checksums are those of spanheap bench. Programs are as one writes them in Go: ordinary structs,
// slices and pointers, no pools, and no setting of the runtime but those that a key asks for:
//
//	threads=N       goroutines that share the work
//	gc_percent=N    as GOGC; off for none
//	limit=BYTES     as GOMEMLIMIT
//
// GOGC and GOMEMLIMIT themselves work as in every program. GOMAXPROCS=2 is for whoever starts this to say.
//
// With GOEXPERIMENT=arenas in the environment of go build, binary-trees has arena=1, and request-arena and
// arena-objects the variant arena. Rows for the heap come from a program without the experiment.
package main

import (
	"fmt"
	"os"
	"strings"

	"spanheap/bench/peers/go/binarytrees"
	"spanheap/bench/peers/go/gcbench"
	"spanheap/bench/peers/go/lru"
	"spanheap/bench/peers/go/marking"
	"spanheap/bench/peers/go/messagebus"
	"spanheap/bench/peers/go/peer"
	"spanheap/bench/peers/go/phases"
	"spanheap/bench/peers/go/requestarena"
	"spanheap/bench/peers/go/spatialindex"
	"spanheap/bench/peers/go/startup"
	"spanheap/bench/peers/go/writestorm"
)

var workloads = []*peer.Workload{
	&binarytrees.Workload,
	&gcbench.Workload,
	&marking.Workload,
	&messagebus.Workload,
	&lru.Workload,
	&spatialindex.Workload,
	&requestarena.Workload,
	&requestarena.Objects,
	&writestorm.Workload,
	&lru.Limits,
	&phases.Workload,
	&startup.Workload,
}

func main() {
	line, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
	fmt.Println(string(line))
}

// run does what the arguments say, and returns the report.
func run(arguments []string) ([]byte, error) {
	var names []string
	for _, w := range workloads {
		if len(arguments) > 0 && w.Name == arguments[0] {
			return peer.Measure(w, arguments[1:])
		}
		names = append(names, w.Name)
	}
	return nil, fmt.Errorf("usage: go WORKLOAD [key=value ..]; workloads: %s", strings.Join(names, ", "))
}
