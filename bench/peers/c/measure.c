/*
 * Measuring, and the report.
 *
 * CPU time of a collection is that of the process from when the world stands to when it moves again, the markers' threads
 * included, and that of the collecting thread before and after. What libgc sweeps while it allocates is not in it,
 * and nobody can tell it from allocating. longest_stall_ns is the longest collection: the world stands for nearly all of it.
 */
#include "peer.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "error: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    /* Other threads may still run, so nothing is cleaned up. */
    _exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

uint64_t now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t process_cpu(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t thread_cpu(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* The first number behind the first place where a file has a text. */
static uint64_t number_in(const char *path, const char *text)
{
    char content[8192];
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    size_t length = fread(content, 1, sizeof content - 1, file);
    fclose(file);
    content[length] = '\0';
    const char *place = strstr(content, text);
    return place ? strtoull(place + strlen(text), NULL, 10) : 0;
}

uint64_t resident(void)
{
    return number_in("/proc/self/statm", " ") * (uint64_t)sysconf(_SC_PAGESIZE);
}

void merge(Histogram *h, const Histogram *other)
{
    for (int i = 0; i < BUCKETS; i++)
        h->counts[i] += other->counts[i];
    h->total += other->total;
    if (other->max > h->max)
        h->max = other->max;
}

/* The largest value of a bucket. One past the last bucket's end is 2^64, which is 0 here, and the number before it is
   right again. */
static uint64_t upper_end(unsigned index)
{
    if (index < 2 * SUB)
        return index;
    unsigned shift = index / SUB - 1;
    return ((uint64_t)(index % SUB + SUB + 1) << shift) - 1;
}

uint64_t quantile(const Histogram *h, uint64_t part)
{
    Wide seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += (Wide)h->counts[i] * 10000;
        if (h->counts[i] && seen >= (Wide)h->total * part)
            return upper_end(i) < h->max ? upper_end(i) : h->max;
    }
    return h->max;
}

/* ---- threads and memory ---- */

typedef struct {
    void (*body)(unsigned, void *);
    void *context;
    unsigned index;
} Start;

static void *begin(void *argument)
{
    Start *start = argument;
    start->body(start->index, start->context);
    return NULL;
}

void in_threads(unsigned threads, void (*body)(unsigned, void *), void *context)
{
    if (threads == 1) {
        body(0, context);
        return;
    }
    /* On the stack, so that the context, which may lie in the heap, is seen. */
    Start starts[MAX_THREADS];
    pthread_t all[MAX_THREADS];
    for (unsigned i = 0; i < threads; i++) {
        starts[i] = (Start){body, context, i};
        if (pthread_create(&all[i], NULL, begin, &starts[i]))
            fail("thread %u cannot start", i);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(all[i], NULL);
}

void *checked(void *memory)
{
    if (!memory)
        fail("out of memory");
    return memory;
}

void *new_array(uint64_t count, size_t size)
{
    if (count > SIZE_MAX / size)
        fail("so many objects have no addresses");
    return checked(GC_MALLOC_IGNORE_OFF_PAGE(count ? count * size : 1));
}

/* ---- the collector ---- */

static uint64_t spent, longest, begun, cpu_mark;

/* libgc calls this on the collecting thread, and holds its lock meanwhile. */
static void GC_CALLBACK event(GC_EventType type)
{
    switch (type) {
    case GC_EVENT_START:
        begun = now();
        cpu_mark = thread_cpu();
        break;
    case GC_EVENT_POST_STOP_WORLD:
        spent += thread_cpu() - cpu_mark;
        cpu_mark = process_cpu();
        break;
    case GC_EVENT_PRE_START_WORLD:
        spent += process_cpu() - cpu_mark;
        cpu_mark = thread_cpu();
        break;
    case GC_EVENT_END:
        spent += thread_cpu() - cpu_mark;
        if (now() - begun > longest)
            longest = now() - begun;
        break;
    default:
        break;
    }
}

uint64_t collector_cpu(void)
{
    return spent;
}

uint64_t longest_collection(void)
{
    return longest;
}

static void GC_CALLBACK ignore_warning(char *text, GC_word argument)
{
    (void)text;
    (void)argument;
}

void start_collector(const Params *params)
{
    /* All objects are held by pointers to their beginning, so pointers to other places need not count, and no object
       needs a byte more than it has: a node of two pointers would have 32 bytes otherwise. */
    GC_set_all_interior_pointers(0);
    GC_INIT();
    GC_allow_register_threads();
    /* What it would say: that an array is large. */
    GC_set_warn_proc(ignore_warning);
    GC_set_on_collection_event(event);
    /* By default an allocation fails as soon as the heap may not grow. With this it collects first. */
    GC_set_max_retries(4);
    if (params->limit)
        GC_set_max_heap_size(params->limit);
    if (params->growth == GROWTH_PERCENT) {
        /* A heap that may grow by p percent of what is live may allocate p / (100 + p) of itself. */
        uint64_t divisor = (100 + params->gc_percent + params->gc_percent / 2) / params->gc_percent;
        GC_set_free_space_divisor(divisor ? divisor : 1);
    } else if (params->growth == GROWTH_OFF && params->limit) {
        /* The limit alone is to say when; the least that there is. */
        GC_set_free_space_divisor(1);
    } else if (params->growth == GROWTH_OFF) {
        GC_disable();
    }
}

/* ---- the report ---- */

static char figures[1 << 20];
static size_t figures_length;

static void append(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void append(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t room = sizeof figures - figures_length;
    int length = vsnprintf(figures + figures_length, room, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= room)
        fail("the report is too long");
    figures_length += (size_t)length;
}

void count_figure(const char *key, uint64_t value)
{
    append(",\"%s\":%" PRIu64, key, value);
}

void real_figure(const char *key, double value)
{
    append(",\"%s\":%.17g", key, isfinite(value) ? value : 0);
}

void text_figure(const char *key, const char *json)
{
    append(",\"%s\":%s", key, json);
}

static void print_params(const Params *params)
{
    printf("\"params\":{");
    for (const Key *key = params->keys; key->name; key++)
        if (key->seconds)
            printf("\"%s\":%g,", key->name, (double)key->value / 1e9);
        else
            printf("\"%s\":%" PRIu64 ",", key->name, key->value);
    printf("\"threads\":%u,", params->threads);
    if (params->growth == GROWTH_PERCENT)
        printf("\"gc_percent\":%" PRIu64 ",", params->gc_percent);
    else
        printf("\"gc_percent\":null,");
    if (params->limit)
        printf("\"limit\":%" PRIu64 "},", params->limit);
    else
        printf("\"limit\":null},");
}

static void print_latency(const Outcome *outcome)
{
    static const struct {
        const char *name;
        uint64_t part;
    } POINTS[] = {{"p50", 5000}, {"p99", 9900}, {"p999", 9990}, {"p9999", 9999}, {"max", 10000}};
    for (size_t i = 0; outcome->operation && i < sizeof POINTS / sizeof *POINTS; i++) {
        uint64_t value = quantile(&outcome->latency, POINTS[i].part);
        printf(",\"%s_%s_ns\":%" PRIu64, outcome->operation, POINTS[i].name, value);
    }
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

void measure(const Workload *workload, int count, char **settings)
{
    static Outcome outcome;
    Params params = {.keys = workload->keys, .threads = 1};
    /* libgc reads this by itself, too. A heap that may have so much is to make use of it. */
    const char *limit = getenv("GC_MAXIMUM_HEAP_SIZE");
    if (limit) {
        params.limit = strtoull(limit, NULL, 10);
        params.growth = GROWTH_OFF;
    }
    parse(&params, count, settings);
    if (workload->settings)
        workload->settings(&params);
    if (!workload->starts_collector)
        start_collector(&params);
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    uint64_t started = now();
    workload->run(&params, &outcome);
    uint64_t wall = now() - started;
    getrusage(RUSAGE_SELF, &after);
    printf("{\"workload\":\"%s\",\"subject\":\"libgc\",", workload->name);
    print_params(&params);
    if (outcome.no_checksum)
        printf("\"checksum\":null,");
    else
        printf("\"checksum\":%" PRIu64 ",", outcome.checksum);
    printf("\"wall_s\":%.9f,", (double)wall / 1e9);
    printf("\"user_s\":%.6f,", seconds(after.ru_utime) - seconds(before.ru_utime));
    printf("\"sys_s\":%.6f,", seconds(after.ru_stime) - seconds(before.ru_stime));
    printf("\"peak_rss_bytes\":%" PRIu64 ",", number_in("/proc/self/status", "VmHWM:") << 10);
    printf("\"gc_cycles\":%" PRIu64 ",", (uint64_t)GC_get_gc_no());
    printf("\"gc_cpu_s\":%.9f,\"longest_stall_ns\":%" PRIu64, (double)spent / 1e9, longest);
    print_latency(&outcome);
    printf("%s}\n", figures);
}
