/*
 * write-storm: what a store of a pointer costs, while nothing is collected and while collections run.
 *
 * libgc has no barrier, and its collections stop the world: a store costs what it costs anywhere, and `marking` says what
 * is left of that while another thread collects all the time. Nothing is allocated during the stores, so no collection
 * begins by itself.
 */
#include "peer.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static Key keys[] = {
    KEY("slots", 16000000, 1, (uint64_t)1 << 31),
    KEY("nodes", 1000000, 1, (uint64_t)1 << 31),
    KEY("stores", 100000000, 1, INT64_MAX),
    END_OF_KEYS,
};

enum { REPEATS = 4 };

typedef struct Node Node;
struct Node {
    uint64_t number;
    Node *left, *right;
};

/* One size of the table. All that points into the heap lies in static memory. */
static struct {
    Node **nodes;
    uint64_t nodes_count;
    Node **tables[MAX_THREADS];
    /* Slots of a thread, and stores of a way in one repetition. */
    uint64_t each, stores;
    unsigned threads;
    uint64_t repeat;
    /* What one repetition has found out. */
    uint64_t spent[MAX_THREADS];
    uint64_t sums[MAX_THREADS];
} storm;

/* The choices of a thread in a repetition; the one with collections is the last. */
static Random choices(unsigned index, uint64_t repeat)
{
    return new_random((uint64_t)index << 8 | repeat);
}

static uint64_t mine(unsigned index)
{
    return share(storm.stores, storm.threads, index);
}

static void plain(unsigned index, void *context)
{
    (void)context;
    size_t *table = checked(calloc(storm.each, sizeof *table));
    for (uint64_t i = 0; i < storm.each; i++)
        table[i] = i;
    Random random = choices(index, storm.repeat);
    uint64_t begun = thread_cpu();
    for (uint64_t left = mine(index); left > 0; left--) {
        uint64_t i = below(&random, storm.each), j = below(&random, storm.each);
        table[i] = table[j];
        __asm__ volatile("" : : "r"(table) : "memory");
    }
    storm.spent[index] = thread_cpu() - begun;
    free(table);
}

static void atomic(unsigned index, void *context)
{
    (void)context;
    _Atomic size_t *table = checked(calloc(storm.each, sizeof *table));
    for (uint64_t i = 0; i < storm.each; i++)
        atomic_init(&table[i], i);
    Random random = choices(index, storm.repeat);
    uint64_t begun = thread_cpu();
    for (uint64_t left = mine(index); left > 0; left--) {
        uint64_t i = below(&random, storm.each), j = below(&random, storm.each);
        size_t value = atomic_load_explicit(&table[j], memory_order_acquire);
        atomic_store_explicit(&table[i], value, memory_order_release);
    }
    storm.spent[index] = thread_cpu() - begun;
    free(table);
}

static void in_heap(unsigned index, void *context)
{
    (void)context;
    Node **table = storm.tables[index];
    Random random = choices(index, storm.repeat);
    uint64_t begun = thread_cpu();
    for (uint64_t left = mine(index); left > 0; left--) {
        uint64_t i = below(&random, storm.each), j = below(&random, storm.each);
        table[i] = table[j];
        __asm__ volatile("" : : "r"(table) : "memory");
    }
    storm.spent[index] = thread_cpu() - begun;
}

/* One repetition in all threads. Returns nanoseconds for each store. */
static double repetition(void (*way)(unsigned, void *), uint64_t repeat)
{
    storm.repeat = repeat;
    in_threads(storm.threads, way, NULL);
    uint64_t spent = 0;
    for (unsigned i = 0; i < storm.threads; i++)
        spent += storm.spent[i];
    return (double)spent / (double)storm.stores;
}

/* The time of a store in the best repetition. */
static double least(void (*way)(unsigned, void *))
{
    double best = INFINITY;
    for (uint64_t repeat = 0; repeat < REPEATS; repeat++)
        best = fmin(best, repetition(way, repeat));
    return best;
}

static atomic_bool done;

static void *collect(void *unused)
{
    (void)unused;
    while (!atomic_load(&done))
        GC_gcollect();
    return NULL;
}

static double while_collecting(void)
{
    pthread_t thread;
    atomic_store(&done, false);
    if (pthread_create(&thread, NULL, collect, NULL))
        fail("the collecting thread cannot start");
    double time = repetition(in_heap, REPEATS);
    atomic_store(&done, true);
    pthread_join(thread, NULL);
    return time;
}

/* Does the same stores with numbers, and compares. */
static void verify(unsigned index, void *context)
{
    (void)context;
    uint32_t *twin = checked(calloc(storm.each, sizeof *twin));
    for (uint64_t i = 0; i < storm.each; i++)
        twin[i] = (uint32_t)(i % storm.nodes_count);
    for (uint64_t repeat = 0; repeat <= REPEATS; repeat++) {
        Random random = choices(index, repeat);
        for (uint64_t left = mine(index); left > 0; left--) {
            uint64_t i = below(&random, storm.each), j = below(&random, storm.each);
            twin[i] = twin[j];
        }
    }
    storm.sums[index] = 0;
    for (uint64_t i = 0; i < storm.each; i++) {
        uint64_t number = storm.tables[index][i]->number;
        if (number != twin[i])
            fail("slot %" PRIu64 " has %" PRIu64 " and not %u: a store was lost", i, number, twin[i]);
        storm.sums[index] += number * (i + 1);
    }
    free(twin);
}

/* A tree, from the leaves up, and all of its nodes by number. */
static void make_tree(uint64_t count)
{
    storm.nodes_count = count;
    storm.nodes = new_array(count, sizeof *storm.nodes);
    for (uint64_t number = count; number-- > 0;) {
        Node *node = storm.nodes[number] = NEW(Node);
        node->number = number;
        node->left = 2 * number + 1 < count ? storm.nodes[2 * number + 1] : NULL;
        node->right = 2 * number + 2 < count ? storm.nodes[2 * number + 2] : NULL;
    }
}

static void real_of(const char *table, const char *key, double value)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%s", table, key);
    real_figure(name, value);
}

static void count_of(const char *table, const char *key, uint64_t value)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%s", table, key);
    count_figure(name, value);
}

static void run(const Params *params, Outcome *outcome)
{
    static const struct {
        const char *name;
        uint64_t part;
    } PARTS[] = {{"small", 4096}, {"medium", 64}, {"large", 1}};
    make_tree(get(params, "nodes"));
    storm.threads = params->threads;
    storm.stores = get(params, "stores") / 3 / REPEATS;
    storm.stores = storm.stores ? storm.stores : 1;
    uint64_t cycles = 0;
    for (int p = 0; p < 3; p++) {
        storm.each = get(params, "slots") / PARTS[p].part / params->threads;
        storm.each = storm.each < 2 ? 2 : storm.each;
        count_of(PARTS[p].name, "slots", storm.each * params->threads);
        real_of(PARTS[p].name, "plain_ns", least(plain));
        real_of(PARTS[p].name, "atomic_ns", least(atomic));
        for (unsigned t = 0; t < params->threads; t++) {
            storm.tables[t] = new_array(storm.each, sizeof(Node *));
            for (uint64_t i = 0; i < storm.each; i++)
                storm.tables[t][i] = storm.nodes[i % storm.nodes_count];
        }
        real_of(PARTS[p].name, "idle_ns", least(in_heap));
        uint64_t before = GC_get_gc_no();
        real_of(PARTS[p].name, "marking_ns", while_collecting());
        cycles += GC_get_gc_no() - before;
        count_of(PARTS[p].name, "stores_while_marking", storm.stores);
        in_threads(params->threads, verify, NULL);
        for (unsigned t = 0; t < params->threads; t++)
            outcome->checksum += storm.sums[t];
    }
    count_figure("cycles_while_storing", cycles);
}

const Workload WRITE_STORM = {.name = "write-storm", .keys = keys, .run = run};
