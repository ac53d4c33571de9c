/* message-bus: a large live window, and how long a single push takes. */
#include "peer.h"

#include <stdlib.h>
#include <string.h>

static Key keys[] = {
    KEY("window", 200000, 1, INT64_MAX),
    KEY("messages", 1000000, 1, INT64_MAX),
    KEY("size", 1024, 1, INT64_MAX),
    KEY("rate", 0, 0, 1000000000),
    END_OF_KEYS,
};

typedef struct {
    uint64_t number;
    unsigned char *payload;
} Message;

typedef struct {
    Message **slots;
    uint64_t length;
    size_t size;
} Ring;

/* What came of one bus. */
typedef struct {
    uint64_t checksum;
    Histogram times;
} Sent;

typedef struct {
    const Params *params;
    Sent *sent;
} Buses;

/* Puts a new message in the ring. Returns what the one that it replaces adds to the checksum. */
static uint64_t push(const Ring *ring, uint64_t number)
{
    unsigned char *payload = checked(GC_MALLOC_ATOMIC(ring->size));
    memset(payload, (int)(number & 255), ring->size);
    Message *message = NEW(Message);
    message->number = number;
    message->payload = payload;
    Message **slot = &ring->slots[number % ring->length];
    const Message *old = *slot;
    *slot = message;
    return old ? old->number + old->payload[ring->size - 1] : 0;
}

/* When a push begins: with a rate, when it is due. Waits until then. */
static uint64_t begin_push(uint64_t begun, uint64_t number, uint64_t rate)
{
    uint64_t time = now();
    if (rate == 0)
        return time;
    uint64_t due = begun + (uint64_t)((double)number * 1e9 / (double)rate);
    while (time < due)
        time = now();
    return due;
}

/* One bus: all its pushes, and its part of the checksum. */
static void drive(unsigned index, void *context)
{
    const Buses *buses = context;
    const Params *params = buses->params;
    Sent *sent = &buses->sent[index];
    uint64_t window = share(get(params, "window"), params->threads, index);
    uint64_t messages = share(get(params, "messages"), params->threads, index);
    uint64_t rate = share(get(params, "rate"), params->threads, index);
    Ring ring = {new_array(window, sizeof(Message *)), window, get(params, "size")};
    uint64_t begun = now();
    for (uint64_t number = 0; number < messages; number++) {
        uint64_t started = begin_push(begun, number, rate);
        sent->checksum += push(&ring, number);
        uint64_t ended = now();
        record(&sent->times, ended > started ? ended - started : 0);
    }
    for (uint64_t i = 0; i < window && ring.slots[i]; i++) {
        sent->checksum += ring.slots[i]->number;
        for (size_t at = 0; at < ring.size; at++)
            sent->checksum += ring.slots[i]->payload[at];
    }
}

static void run(const Params *params, Outcome *outcome)
{
    if (params->threads > get(params, "window"))
        fail("a window cannot be shared by more threads than it has messages");
    Buses buses = {params, checked(calloc(params->threads, sizeof(Sent)))};
    in_threads(params->threads, drive, &buses);
    outcome->operation = "push";
    for (unsigned i = 0; i < params->threads; i++) {
        outcome->checksum += buses.sent[i].checksum;
        merge(&outcome->latency, &buses.sent[i].times);
    }
    free(buses.sent);
}

const Workload MESSAGE_BUS = {.name = "message-bus", .keys = keys, .run = run};
