/*
 * lru: a large cache whose entries come and go and are moved about all the time; and limits, the same in a heap that
 * may be little larger than what lives in it.
 *
 * The limit is GC_set_max_heap_size, which is a hard one: an allocation that is refused is tried again after a
 * collection, and `refused` says how often that was needed.
 */
#include "peer.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

static Key lru_keys[] = {
    KEY("entries", 8000000, 1, INT64_MAX),
    KEY("keys", 16000000, 1, (uint64_t)1 << 32),
    KEY("operations", 20000000, 0, INT64_MAX),
    KEY("shards", 64, 1, 1 << 16),
    END_OF_KEYS,
};

static Key limits_keys[] = {
    KEY("entries", 2000000, 1, INT64_MAX),
    KEY("keys", 4000000, 1, (uint64_t)1 << 32),
    KEY("operations", 10000000, 0, INT64_MAX),
    KEY("shards", 64, 1, 1 << 16),
    KEY("percent", 110, 100, 10000),
    END_OF_KEYS,
};

enum { WORDS = 16, REPLACE_ONE_IN = 10, TRIES = 64 };

typedef struct {
    uint64_t words[WORDS];
} Value;

/* A number that is spread over all bits, and the number. */
typedef struct {
    uint64_t spread, rank;
} CacheKey;

/* An entry, of 64 bytes. */
typedef struct Node Node;
struct Node {
    CacheKey key;
    Node *chain, *newer, *older;
    Value *value;
    uint64_t hits, replaced;
};

/* A hash map and a list by age. Whoever holds the lock may change all of it. */
typedef struct {
    Node **buckets;
    uint64_t mask, capacity;
    pthread_mutex_t lock;
    Node *newest, *oldest;
    uint64_t length;
} Shard;

typedef enum { GET, REPLACE } Want;

/* What a thread has done. */
typedef struct {
    uint64_t checksum, operations, hits, refused;
    Histogram times;
} Done;

/* A cache, and what is to be done with it. */
typedef struct {
    const Params *params;
    /* In static memory, where the collector looks for roots. */
    Shard **shards;
    uint64_t entries, shards_count, keys;
    Done *done;
} Cache;

static Cache cache;

static uint64_t power_of_two(uint64_t least)
{
    uint64_t power = 1;
    while (power < least)
        power *= 2;
    return power;
}

/* ---- Zipf's distribution, in operations that have one result everywhere ---- */

#define ZETA (-99.4235129777281)
#define HALF 0.5034777750283594
#define ROOT 1.0069555500567189

typedef struct {
    uint64_t ranks;
    double sum, eta;
} Zipf;

static double hundredth(double x)
{
    double a = x * x, b = a * a, c = b * b, d = c * c, e = d * d, f = e * e;
    return f * e * b;
}

static Zipf new_zipf(uint64_t ranks)
{
    double n = (double)ranks, q = 1.25;
    for (int i = 0; i < 64; i++) {
        double p = hundredth(q);
        q = q - (p - n) * q / (100 * p);
    }
    double sum = ZETA + 100 * q + 0.5 * q / n - 0.0825 * q / (n * n);
    return (Zipf){ranks, sum, (1 - ROOT / q) / (1 - (1 + HALF) / sum)};
}

static uint64_t draw(const Zipf *zipf, Random *random)
{
    double uniform = (double)(next_random(random) >> 11) / 9007199254740992.0;
    double weight = uniform * zipf->sum;
    uint64_t last = zipf->ranks - 1, rank;
    if (weight < 1)
        return 0;
    if (weight < 1 + HALF)
        rank = 1;
    else
        rank = (uint64_t)((double)zipf->ranks * hundredth(zipf->eta * uniform - zipf->eta + 1));
    return rank < last ? rank : last;
}

/* ---- the cache ---- */

/* Calls allocate until it has memory, with a collection before each new attempt. */
static void *insist(void *(*allocate)(size_t), size_t size, Done *done)
{
    for (int i = 0; i < TRIES; i++) {
        void *memory = allocate(size);
        if (memory)
            return memory;
        done->refused++;
        GC_gcollect();
    }
    fail("after %d collections there is still no memory", TRIES);
}

static void *with_pointers(size_t size)
{
    return GC_MALLOC(size);
}

static void *without_pointers(size_t size)
{
    return GC_MALLOC_ATOMIC(size);
}

static Value *new_value(CacheKey key, uint64_t salt, Done *done)
{
    Value *value = insist(without_pointers, sizeof *value, done);
    for (int i = 0; i < WORDS - 1; i++)
        value->words[i] = key.rank ^ salt;
    value->words[WORDS - 1] = key.spread;
    return value;
}

static Node **bucket(Shard *shard, CacheKey key)
{
    return &shard->buckets[key.spread & shard->mask];
}

static Node *find(Shard *shard, CacheKey key)
{
    Node *node = *bucket(shard, key);
    while (node && (node->key.spread != key.spread || node->key.rank != key.rank))
        node = node->chain;
    return node;
}

/* Puts a node that is in no list to the front. */
static void push(Shard *shard, Node *node)
{
    node->older = shard->newest;
    if (shard->newest)
        shard->newest->newer = node;
    else
        shard->oldest = node;
    shard->newest = node;
    shard->length++;
}

/* Takes a node out of the list. */
static void unlink_node(Shard *shard, Node *node)
{
    Node *newer = node->newer, *older = node->older;
    node->newer = node->older = NULL;
    if (newer)
        newer->older = older;
    else
        shard->newest = older;
    if (older)
        older->newer = newer;
    else
        shard->oldest = newer;
    shard->length--;
}

/* Takes the oldest entry out. */
static void evict(Shard *shard)
{
    Node *oldest = shard->oldest;
    unlink_node(shard, oldest);
    Node **place = bucket(shard, oldest->key);
    while (*place != oldest)
        place = &(*place)->chain;
    *place = oldest->chain;
}

/* Makes an entry, in place of the oldest one if there are enough. Returns a word of its value. */
static uint64_t insert(Shard *shard, CacheKey key, uint64_t salt, Done *done)
{
    Value *value = new_value(key, salt, done);
    Node *node = insist(with_pointers, sizeof *node, done);
    node->key = key;
    node->value = value;
    while (shard->length >= shard->capacity)
        evict(shard);
    Node **place = bucket(shard, key);
    node->chain = *place;
    *place = node;
    push(shard, node);
    return value->words[0];
}

/* Does one operation with a key. Returns a word of its value, and says whether the key was there. */
static uint64_t operate(Shard *shard, CacheKey key, Want want, uint64_t salt, Done *done, bool *hit)
{
    pthread_mutex_lock(&shard->lock);
    Node *node = find(shard, key);
    *hit = node != NULL;
    uint64_t word;
    if (!node) {
        word = insert(shard, key, salt, done);
    } else {
        word = node->value->words[0];
        if (node->value->words[WORDS - 1] != key.spread)
            fail("the value of another key");
        if (want == GET) {
            node->hits++;
        } else {
            node->value = new_value(key, salt, done);
            node->replaced++;
        }
        if (shard->newest != node) {
            unlink_node(shard, node);
            push(shard, node);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    return word;
}

/* How many entries there are. What does not fit together is an error. */
static uint64_t count_entries(void)
{
    uint64_t total = 0;
    for (uint64_t i = 0; i < cache.shards_count; i++) {
        Shard *shard = cache.shards[i];
        const Node *newer = NULL;
        uint64_t count = 0;
        for (Node *node = shard->newest; node; newer = node, node = node->older) {
            count++;
            if (node->newer != newer || find(shard, node->key) != node)
                fail("the entry %#" PRIx64 " is not where it should be", node->key.spread);
        }
        if (count != shard->length)
            fail("a list of %" PRIu64 " entries has %" PRIu64, shard->length, count);
        total += count;
    }
    return total;
}

/* ---- the work ---- */

/* One operation of a thread, which has each of its shards for itself. */
static uint64_t operation(unsigned index, uint64_t rank, Want want, uint64_t salt, Done *done, bool *hit)
{
    uint64_t z = ((rank ^ rank >> 30) + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;
    CacheKey key = {z ^ z >> 27, rank};
    uint64_t threads = cache.params->threads;
    uint64_t mine = (cache.shards_count - index + threads - 1) / threads;
    Shard *shard = cache.shards[index + (key.spread >> 40) % mine * threads];
    return operate(shard, key, want, salt, done, hit);
}

/* Fills a thread's part with the most frequent keys, the most frequent one last. */
static void fill(unsigned index, void *context)
{
    (void)context;
    bool hit;
    for (uint64_t rank = share(cache.entries, cache.params->threads, index); rank > 0; rank--)
        operation(index, rank - 1, GET, 0, &cache.done[index], &hit);
}

static void churn(unsigned index, void *context)
{
    const Zipf *zipf = context;
    Done *done = &cache.done[index];
    Random random = new_random(index);
    uint64_t mine = share(get(cache.params, "operations"), cache.params->threads, index);
    for (uint64_t number = 0; number < mine; number++) {
        uint64_t rank = draw(zipf, &random);
        Want want = below(&random, REPLACE_ONE_IN) == 0 ? REPLACE : GET;
        uint64_t begun = now();
        bool hit;
        uint64_t word = operation(index, rank, want, number, done, &hit);
        record(&done->times, now() - begun);
        done->operations++;
        done->hits += hit;
        done->checksum += word + hit;
    }
}

static void start(const Params *params)
{
    cache.params = params;
    cache.entries = get(params, "entries");
    cache.keys = get(params, "keys");
    cache.shards_count = get(params, "shards");
    if (params->threads > cache.shards_count || cache.shards_count > cache.entries)
        fail("there must be a shard for each thread and an entry for each shard");
    cache.done = checked(calloc(params->threads, sizeof *cache.done));
    cache.shards = new_array(cache.shards_count, sizeof *cache.shards);
    for (uint64_t i = 0; i < cache.shards_count; i++) {
        Shard *shard = cache.shards[i] = NEW(Shard);
        uint64_t capacity = share(cache.entries, cache.shards_count, i);
        shard->capacity = capacity ? capacity : 1;
        shard->mask = power_of_two(shard->capacity) - 1;
        shard->buckets = new_array(shard->mask + 1, sizeof *shard->buckets);
        pthread_mutex_init(&shard->lock, NULL);
    }
}

/* All operations behind the filling. Returns how long they took. */
static uint64_t churn_all(void)
{
    Zipf zipf = new_zipf((cache.keys + cache.params->threads - 1) / cache.params->threads);
    uint64_t started = now();
    in_threads(cache.params->threads, churn, &zipf);
    return now() - started;
}

/* Adds up what the threads have done. */
static void report(Outcome *outcome, uint64_t wall, uint64_t refused_filling)
{
    uint64_t operations = 0, hits = 0, refused = 0;
    outcome->operation = "op";
    for (unsigned i = 0; i < cache.params->threads; i++) {
        outcome->checksum += cache.done[i].checksum;
        operations += cache.done[i].operations;
        hits += cache.done[i].hits;
        refused += cache.done[i].refused;
        merge(&outcome->latency, &cache.done[i].times);
    }
    real_figure("ops_per_s", (double)operations / ((double)wall / 1e9));
    real_figure("hit_ratio", (double)hits / (double)operations);
    count_figure("refused", refused - refused_filling);
}

static uint64_t refused_so_far(void)
{
    uint64_t refused = 0;
    for (unsigned i = 0; i < cache.params->threads; i++)
        refused += cache.done[i].refused;
    return refused;
}

static void run_lru(const Params *params, Outcome *outcome)
{
    uint64_t before = resident();
    start(params);
    in_threads(params->threads, fill, NULL);
    uint64_t refused = refused_so_far();
    uint64_t wall = churn_all();
    uint64_t grown = resident();
    grown = grown > before ? grown - before : 0;
    report(outcome, wall, refused);
    uint64_t entries = count_entries(), live = entries * (sizeof(Node) + sizeof(Value));
    for (uint64_t i = 0; i < cache.shards_count; i++)
        live += (cache.shards[i]->mask + 1) * sizeof(Node *);
    count_figure("entries_left", entries);
    count_figure("live_bytes", live);
    count_figure("resident_bytes", grown);
    real_figure("resident_over_live", (double)grown / (double)live);
}

/* ---- limits ---- */

static uint64_t limit(const Params *params)
{
    uint64_t entries = get(params, "entries"), shards = get(params, "shards");
    uint64_t fixed = power_of_two(entries / shards + 1) * 8 + 72;
    return (entries * (sizeof(Node) + sizeof(Value)) + shards * fixed) * get(params, "percent") / 100;
}

static void set_limit(Params *params)
{
    params->limit = limit(params);
}

/* What the watching thread has seen, and whether it is to end. */
static atomic_bool watched;
static uint64_t peak, samples;

static void *watch(void *unused)
{
    (void)unused;
    do {
        uint64_t size = resident();
        peak = size > peak ? size : peak;
        samples++;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    } while (!atomic_load(&watched));
    return NULL;
}

static void run_limits(const Params *params, Outcome *outcome)
{
    uint64_t before = resident(), most = limit(params);
    pthread_t watcher;
    if (pthread_create(&watcher, NULL, watch, NULL))
        fail("the watching thread cannot start");
    start(params);
    in_threads(params->threads, fill, NULL);
    uint64_t refused = refused_so_far(), cpu = process_cpu(), collector = collector_cpu();
    uint64_t wall = churn_all();
    double part = (double)(collector_cpu() - collector) / (double)(process_cpu() - cpu);
    atomic_store(&watched, true);
    pthread_join(watcher, NULL);
    count_entries();
    report(outcome, wall, refused);
    uint64_t grown = peak > before ? peak - before : 0;
    count_figure("refused_filling", refused);
    count_figure("limit_bytes", most);
    count_figure("peak_heap_resident_bytes", grown);
    real_figure("overshoot", grown > most ? (double)(grown - most) / (double)most : 0);
    real_figure("collector_share", part);
    count_figure("samples", samples);
}

const Workload LRU = {.name = "lru", .keys = lru_keys, .run = run_lru};
const Workload LIMITS = {.name = "limits", .keys = limits_keys, .settings = set_limit, .run = run_limits};
