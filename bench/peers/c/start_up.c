/*
 * start-up: what the first objects of a process cost. A process has one heap of libgc's, which the first round begins and
 * none ends; what is left of the others is a list that is made, walked and dropped.
 */
#include "peer.h"

static Key keys[] = {
    KEY("rounds", 1000, 1, (uint64_t)1 << 32),
    KEY("objects", 1000, 0, (uint64_t)1 << 32),
    END_OF_KEYS,
};

typedef struct Object Object;
struct Object {
    uint64_t number;
    Object *next;
};

static uint64_t make_and_walk(uint64_t first, uint64_t objects)
{
    Object *last = NULL;
    for (uint64_t i = 0; i < objects; i++) {
        Object *object = NEW(Object);
        object->number = first + i;
        object->next = last;
        last = object;
    }
    uint64_t sum = 0;
    for (; last; last = last->next)
        sum += last->number;
    return sum;
}

static void run(const Params *params, Outcome *outcome)
{
    uint64_t rounds = get(params, "rounds"), objects = get(params, "objects");
    uint64_t before = resident(), first = 0, first_resident = 0;
    outcome->operation = "round";
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t begun = now();
        if (round == 0)
            start_collector(params);
        outcome->checksum += make_and_walk(round, objects);
        uint64_t took = now() - begun;
        record(&outcome->latency, took);
        if (round == 0) {
            first = took;
            first_resident = resident();
        }
    }
    uint64_t after = resident();
    count_figure("first_round_ns", first);
    count_figure("first_resident_bytes", first_resident > before ? first_resident - before : 0);
    count_figure("grown_resident_bytes", after > first_resident ? after - first_resident : 0);
}

const Workload START_UP = {.name = "start-up", .keys = keys, .run = run, .starts_collector = true};
