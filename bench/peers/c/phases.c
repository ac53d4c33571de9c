/*
 * phases: live data that grows, stays, and goes; and how soon the process is small again. What is asked is what the
 * system sees: the resident set, every 50 milliseconds.
 */
#include "live_data.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static Key keys[] = {
    {"phase_seconds", 10000000000, 1, INT64_MAX, true},
    KEY("cycles", 2, 1, 1000),
    KEY("small", 107374182, 0, INT64_MAX),
    KEY("large", (uint64_t)4 << 30, 0, INT64_MAX),
    KEY("churn", 64 << 20, 0, (uint64_t)1 << 40),
    END_OF_KEYS,
};

enum { STEP = 64 << 10, INTERVAL = 50000000 };

/* A reading of the resident set. */
typedef struct {
    uint64_t at, bytes;
} Sample;

static struct {
    pthread_mutex_t lock;
    Sample *samples;
    size_t count, room;
    atomic_bool stop;
} sampler = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Reads under the lock, so that samples are in the order of time. */
static uint64_t sample(void)
{
    pthread_mutex_lock(&sampler.lock);
    if (sampler.count == sampler.room) {
        sampler.room = sampler.room ? 2 * sampler.room : 1024;
        sampler.samples = checked(realloc(sampler.samples, sampler.room * sizeof *sampler.samples));
    }
    uint64_t bytes = resident();
    sampler.samples[sampler.count++] = (Sample){now(), bytes};
    pthread_mutex_unlock(&sampler.lock);
    return bytes;
}

static void *keep_sampling(void *unused)
{
    (void)unused;
    while (!atomic_load(&sampler.stop)) {
        nanosleep(&(struct timespec){.tv_nsec = INTERVAL}, NULL);
        sample();
    }
    return NULL;
}

static int by_bytes(const void *a, const void *b)
{
    uint64_t left = ((const Sample *)a)->bytes, right = ((const Sample *)b)->bytes;
    return (left > right) - (left < right);
}

/* What was sampled from an instant on, in the order of size. Every phase ends with a sample, so there are some. */
static Sample *sorted_since(uint64_t start, size_t *count)
{
    pthread_mutex_lock(&sampler.lock);
    size_t first = 0;
    while (first < sampler.count && sampler.samples[first].at < start)
        first++;
    *count = sampler.count - first;
    Sample *sorted = checked(calloc(*count + 1, sizeof *sorted));
    for (size_t i = 0; i < *count; i++)
        sorted[i] = sampler.samples[first + i];
    pthread_mutex_unlock(&sampler.lock);
    qsort(sorted, *count, sizeof *sorted, by_bytes);
    return sorted;
}

/* The size at a place in that order, in parts of 2: the least, the one in the middle, the largest. */
static uint64_t size_since(uint64_t start, size_t halves)
{
    size_t count;
    Sample *sorted = sorted_since(start, &count);
    size_t place = count * halves / 2;
    uint64_t bytes = sorted[place < count ? place : count - 1].bytes;
    free(sorted);
    return bytes;
}

/* How long after an instant there were so many bytes or fewer; UINT64_MAX if never. */
static uint64_t time_until(uint64_t start, uint64_t bytes)
{
    uint64_t first = UINT64_MAX;
    pthread_mutex_lock(&sampler.lock);
    for (size_t i = 0; i < sampler.count && first == UINT64_MAX; i++)
        if (sampler.samples[i].at >= start && sampler.samples[i].bytes <= bytes)
            first = sampler.samples[i].at - start;
    pthread_mutex_unlock(&sampler.lock);
    return first;
}

/* ---- the phases ---- */

static struct {
    const Params *params;
    uint64_t length;
    /* In static memory, where the collector looks for roots. */
    LiveData *parts[MAX_THREADS];
    uint64_t target;
} run_data;

static void grow_part(unsigned index, void *context)
{
    (void)context;
    grow_to(run_data.parts[index], share(run_data.target, run_data.params->threads, index));
}

static void steady_part(unsigned index, void *context)
{
    uint64_t started = *(const uint64_t *)context, renewed = 0, elapsed;
    double rate = (double)share(get(run_data.params, "churn"), run_data.params->threads, index);
    while ((elapsed = now() - started) < run_data.length) {
        if ((double)(renewed + STEP) <= rate * (double)elapsed / 1e9) {
            renew(run_data.parts[index], STEP);
            renewed += STEP;
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
}

static void grow(uint64_t bytes)
{
    run_data.target = bytes;
    in_threads(run_data.params->threads, grow_part, NULL);
}

/* A phase in which the amount of data does not change. */
static void steady(void)
{
    uint64_t started = now();
    in_threads(run_data.params->threads, steady_part, &started);
}

/* One time up and down, as an object of JSON. */
static void cycle(uint64_t number, uint64_t base, char *text, size_t room)
{
    uint64_t started = now();
    grow(get(run_data.params, "large"));
    uint64_t grown = now() - started;
    steady();
    sample();
    uint64_t peak = size_since(started, 2);

    uint64_t dropped = now(), cpu = process_cpu();
    for (unsigned i = 0; i < run_data.params->threads; i++)
        shrink_to(run_data.parts[i], share(get(run_data.params, "small"), run_data.params->threads, i));
    GC_gcollect();
    uint64_t collected = now() - dropped;
    steady();
    uint64_t end = sample(), within = time_until(dropped, base + base / 10);
    char words[32] = "null";
    if (within != UINT64_MAX)
        snprintf(words, sizeof words, "%.9f", (double)within / 1e9);
    snprintf(text, room,
             "{\"cycle\":%" PRIu64 ",\"grow_s\":%.9f,\"collect_s\":%.9f,\"window_s\":%.9f,\"within_10_percent_s\":%s,"
             "\"peak_rss_bytes\":%" PRIu64 ",\"lowest_rss_bytes\":%" PRIu64 ",\"end_rss_bytes\":%" PRIu64
             ",\"cpu_s\":%.9f}",
             number, (double)grown / 1e9, (double)collected / 1e9, (double)(now() - dropped) / 1e9, words, peak,
             size_since(dropped, 0), end, (double)(process_cpu() - cpu) / 1e9);
}

static void run(const Params *params, Outcome *outcome)
{
    enum { ROOM = 512 };
    run_data.params = params;
    run_data.length = get(params, "phase_seconds");
    if (get(params, "small") > get(params, "large"))
        fail("small must not be above large");
    pthread_t thread;
    if (pthread_create(&thread, NULL, keep_sampling, NULL))
        fail("the sampler cannot start");
    for (unsigned i = 0; i < params->threads; i++)
        run_data.parts[i] = new_live_data(i);
    grow(get(params, "small"));
    uint64_t started = now(), cpu = process_cpu();
    steady();
    sample();
    uint64_t base = size_since(started + run_data.length / 2, 1), base_cpu = process_cpu() - cpu;
    uint64_t cycles = get(params, "cycles");
    char *returns = checked(calloc(cycles, ROOM)), *end = returns;
    for (uint64_t i = 1; i <= cycles; i++) {
        *end++ = i == 1 ? '[' : ',';
        cycle(i, base, end, ROOM - 2);
        while (*end)
            end++;
    }
    *end = ']';
    atomic_store(&sampler.stop, true);
    pthread_join(thread, NULL);
    uint64_t verified = 0;
    for (unsigned i = 0; i < params->threads; i++)
        verified += verify_live_data(run_data.parts[i]);
    outcome->no_checksum = true;
    count_figure("verified_objects", verified);
    count_figure("base_rss_bytes", base);
    real_figure("base_cpu_s", (double)base_cpu / 1e9);
    text_figure("returns", returns);
    free(returns);
}

const Workload PHASES = {.name = "phases", .keys = keys, .run = run};
