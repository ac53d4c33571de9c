/* See live_data.h. A payload is a stretch of one pattern, which begins where the object's number says. */
#include "live_data.h"

#include <inttypes.h>
#include <string.h>

/* WEIGHT is what an item and its slot weigh in spanheap, besides the payload. */
enum { SLOTS = 128, MAX_PAYLOAD = 128 << 10, PHASES_OF_PATTERN = 251, WEIGHT = 32 };

typedef struct {
    uint64_t number;
    unsigned char *payload;
    size_t length;
} Item;

typedef struct {
    uint64_t bytes;
    Item *slots[SLOTS];
} Segment;

struct LiveData {
    Segment **segments;
    uint64_t count, room, bytes, made;
    Random random;
    unsigned char pattern[MAX_PAYLOAD + PHASES_OF_PATTERN];
};

LiveData *new_live_data(uint64_t seed)
{
    LiveData *data = new_array(1, sizeof *data);
    data->random = new_random(seed);
    for (size_t i = 0; i < sizeof data->pattern; i++)
        data->pattern[i] = (unsigned char)(i % PHASES_OF_PATTERN);
    return data;
}

/* A random size: a range first, then a size of that range. */
static size_t payload_bytes(Random *random)
{
    static const struct {
        uint64_t part, low, high;
    } RANGES[] = {
        {50, 16, 128}, {80, 128, 1 << 10}, {95, 1 << 10, 8 << 10}, {99, 8 << 10, 32 << 10}, {100, 32 << 10, MAX_PAYLOAD},
    };
    uint64_t part = below(random, 100);
    int i = 0;
    while (part >= RANGES[i].part)
        i++;
    return RANGES[i].low + below(random, RANGES[i].high - RANGES[i].low);
}

static uint64_t weight(const Item *item)
{
    return item->length + WEIGHT;
}

static Item *new_item(LiveData *data)
{
    size_t length = payload_bytes(&data->random);
    unsigned char *payload = checked(GC_MALLOC_ATOMIC(length));
    memcpy(payload, data->pattern + data->made % PHASES_OF_PATTERN, length);
    Item *item = NEW(Item);
    *item = (Item){data->made++, payload, length};
    return item;
}

static void check(const LiveData *data, const Item *item)
{
    if (memcmp(item->payload, data->pattern + item->number % PHASES_OF_PATTERN, item->length) != 0)
        fail("object %" PRIu64 " is not what it was made as", item->number);
}

void grow_to(LiveData *data, uint64_t bytes)
{
    while (data->bytes < bytes) {
        if (data->count == data->room) {
            data->room = data->room ? 2 * data->room : 16;
            Segment **larger = new_array(data->room, sizeof *larger);
            for (uint64_t i = 0; i < data->count; i++)
                larger[i] = data->segments[i];
            data->segments = larger;
        }
        Segment *segment = NEW(Segment);
        for (int i = 0; i < SLOTS; i++) {
            segment->slots[i] = new_item(data);
            segment->bytes += weight(segment->slots[i]);
        }
        data->segments[data->count++] = segment;
        data->bytes += segment->bytes;
    }
}

void shrink_to(LiveData *data, uint64_t bytes)
{
    while (data->count && data->bytes - data->segments[data->count - 1]->bytes >= bytes) {
        data->count--;
        data->bytes -= data->segments[data->count]->bytes;
        data->segments[data->count] = NULL;
    }
}

void renew(LiveData *data, uint64_t bytes)
{
    for (uint64_t renewed = 0; data->count && renewed < bytes;) {
        Segment *segment = data->segments[below(&data->random, data->count)];
        Item **slot = &segment->slots[below(&data->random, SLOTS)];
        const Item *old = *slot, *fresh = *slot = new_item(data);
        check(data, old);
        renewed += weight(fresh);
        segment->bytes += weight(fresh) - weight(old);
        data->bytes += weight(fresh) - weight(old);
    }
}

uint64_t verify_live_data(const LiveData *data)
{
    for (uint64_t s = 0; s < data->count; s++)
        for (int i = 0; i < SLOTS; i++)
            check(data, data->segments[s]->slots[i]);
    return data->count * SLOTS;
}
