/*
 * What the workloads have in common: parameters, threads, random numbers, histograms, measuring, and the report, which
 * has the keys of spanheap's in the same order and units. The definitions are those of bench/WORKLOADS.md.
 *
 * Memory of the workloads is libgc's: GC_MALLOC, and GC_MALLOC_ATOMIC for what has no pointers. What belongs to the
 * measuring lies in static memory or comes from calloc, and never points into the heap.
 */
#ifndef PEER_H
#define PEER_H

#ifndef GC_THREADS
#define GC_THREADS
#endif
#include <gc.h>

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Ends the process with an error. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- parameters ---- */

/* A parameter of a workload: a whole number with bounds, or a time that is written in seconds and kept in nanoseconds. The
   list of a workload ends with a name of NULL. */
typedef struct {
    const char *name;
    uint64_t value, min, max;
    bool seconds;
} Key;

#define KEY(name, value, min, max) {name, value, min, max, false}
#define END_OF_KEYS {NULL, 0, 0, 0, false}

enum { MAX_THREADS = 1024 };

/* What the user set: the keys of the workload with their values, and what all workloads have. */
typedef struct {
    Key *keys;
    unsigned threads;
    /* How much the heap may grow before a collection: as libgc does it by itself, never, or in percent. */
    enum { GROWTH_DEFAULT, GROWTH_OFF, GROWTH_PERCENT } growth;
    uint64_t gc_percent;
    /* Bytes that the heap is held to, 0 if it is not. */
    uint64_t limit;
} Params;

/* The value of a key that the workload has. */
uint64_t get(const Params *params, const char *name);

/* Takes settings of the form key=value; the last one of a key counts. */
void parse(Params *params, int count, char **settings);

/* ---- times, in nanoseconds ---- */

uint64_t now(void);
/* CPU time of the process, and of the calling thread. */
uint64_t process_cpu(void);
uint64_t thread_cpu(void);

/* Bytes that are resident now; 0 where /proc cannot tell. */
uint64_t resident(void);

/* A histogram with 32 buckets in each power of two; values below 64 have one each. The largest value is exact. */
enum { SUB_BITS = 5, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB };

typedef struct {
    uint64_t counts[BUCKETS];
    uint64_t total, max;
} Histogram;

static inline void record(Histogram *h, uint64_t value)
{
    unsigned exponent = 63 - (unsigned)__builtin_clzll(value | 1);
    unsigned shift = exponent < SUB_BITS ? 0 : exponent - SUB_BITS;
    h->counts[shift * SUB + (value >> shift)]++;
    h->total++;
    if (value > h->max)
        h->max = value;
}

void merge(Histogram *h, const Histogram *other);
/* What part of 10,000 values do not exceed: the upper end of a bucket, but never more than the largest value. */
uint64_t quantile(const Histogram *h, uint64_t part);

/* ---- random numbers ---- */

__extension__ typedef unsigned __int128 Wide;

/* xorshift64*, which never is 0. */
typedef struct {
    uint64_t state;
} Random;

static inline Random new_random(uint64_t seed)
{
    uint64_t z = seed + 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    z ^= z >> 31;
    return (Random){z ? z : 1};
}

static inline uint64_t next_random(Random *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1d;
}

static inline uint64_t below(Random *r, uint64_t bound)
{
    return (uint64_t)((Wide)next_random(r) * bound >> 64);
}

/* ---- threads ---- */

/* The part of total that falls to the thread index of threads. */
static inline uint64_t share(uint64_t total, uint64_t threads, uint64_t index)
{
    return total / threads + (index < total % threads);
}

/* Calls body for each number, in a thread of its own; if there is one only, the calling thread does it. */
void in_threads(unsigned threads, void (*body)(unsigned index, void *context), void *context);

/* ---- allocation ---- */

/* The pointer, which may not be NULL. */
void *checked(void *memory);

/* Memory for an object with pointers, zeroed, and for one without, as it is. */
#define NEW(type) ((type *)checked(GC_MALLOC(sizeof(type))))
#define NEW_ATOMIC(type) ((type *)checked(GC_MALLOC_ATOMIC(sizeof(type))))
/* An array of pointers. Somebody holds its beginning, so a false pointer into a large one need not keep it. */
void *new_array(uint64_t count, size_t size);

/* ---- reports ---- */

/* What a workload has found out. */
typedef struct {
    uint64_t checksum;
    bool no_checksum;
    /* The name of what was timed, if something was. */
    const char *operation;
    Histogram latency;
} Outcome;

/* Adds a figure, behind all that were added before. */
void count_figure(const char *key, uint64_t value);
void real_figure(const char *key, double value);
/* A figure that is JSON already. */
void text_figure(const char *key, const char *json);

typedef struct {
    const char *name;
    Key *keys;
    /* Changes what libgc is told, if it is not NULL. */
    void (*settings)(Params *params);
    void (*run)(const Params *params, Outcome *outcome);
    /* It calls start_collector itself. */
    bool starts_collector;
} Workload;

/* Begins libgc, with what params say. */
void start_collector(const Params *params);

/* CPU time of collections so far, in nanoseconds, and the longest. */
uint64_t collector_cpu(void);
uint64_t longest_collection(void);

/* Runs a workload and prints one line. */
void measure(const Workload *workload, int count, char **settings);

extern const Workload BINARY_TREES, GCBENCH, MARKING, MESSAGE_BUS, LRU, SPATIAL_INDEX, WRITE_STORM, LIMITS, PHASES, START_UP;

#endif
