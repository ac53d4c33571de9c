/*
 * The workloads of the benchmark suite on libgc (Boehm, Demers, Weiser), to hold spanheap's against.
 *
 *     libgc WORKLOAD [key=value ..]
 *
 * runs one of them and prints one line of JSON. What each workload does, and what the line has, is in
 * bench/WORKLOADS.md; the checksums are those of spanheap bench. Common keys:
 *
 *     threads=N       threads that share the work
 *     gc_percent=N    how much the heap may grow over what was live: the nearest whole free space divisor;
 *                     off for none. Without the key, the divisor is libgc's own, 3, which is 50 percent.
 *     limit=BYTES     GC_set_max_heap_size; with gc_percent=off, the least divisor that there is, 1
 *
 * GC_MAXIMUM_HEAP_SIZE=BYTES in the environment is limit=BYTES gc_percent=off.
 * GC_MARKERS=2 is for whoever starts this to say.
 */
#include "peer.h"

#include <stdio.h>
#include <string.h>

static const Workload *const WORKLOADS[] = {
    &BINARY_TREES, &GCBENCH,     &MARKING, &MESSAGE_BUS, &LRU,
    &SPATIAL_INDEX, &WRITE_STORM, &LIMITS,  &PHASES,      &START_UP,
};

int main(int count, char **arguments)
{
    enum { NUMBER = sizeof WORKLOADS / sizeof *WORKLOADS };
    for (size_t i = 0; count > 1 && i < NUMBER; i++)
        if (strcmp(arguments[1], WORKLOADS[i]->name) == 0) {
            measure(WORKLOADS[i], count - 2, arguments + 2);
            return 0;
        }
    fprintf(stderr, "error: usage: libgc WORKLOAD [key=value ..]; workloads:");
    for (size_t i = 0; i < NUMBER; i++)
        fprintf(stderr, " %s", WORKLOADS[i]->name);
    fprintf(stderr, "\n");
    return 1;
}
