/*
 * marking: how long a full collection takes for graphs that stay. A collection is GC_gcollect, which stops the world for
 * all of it; sweeping comes later, when something is allocated, and nothing is.
 *
 * What is needed to build a graph is freed by hand, so that no pointer that was left somewhere can keep it.
 */
#include "peer.h"

#include <stdlib.h>

static Key keys[] = {
    KEY("shape", 1, 0, 5),
    KEY("objects", 1000000, 1024, (uint64_t)1 << 32),
    KEY("rounds", 10, 1, 1000000),
    END_OF_KEYS,
};

/* What can be reached from what holds a graph. */
typedef struct {
    uint64_t checksum, objects, bytes;
} Reached;

static void reach(Reached *reached, uint64_t number, uint64_t bytes)
{
    reached->checksum += number + 1;
    reached->objects++;
    reached->bytes += bytes;
}

/* One of a tree or of a list, of 64 bytes. */
typedef struct Object Object;
struct Object {
    Object *edges[4];
    uint64_t number, unused[3];
};

/* All that holds the graph. */
static struct {
    Object *root;
    Object **lists;
    uint64_t lists_count;
    struct Medium *first;
    struct Leaf **arrays[32];
    uint64_t leaves[32];
    struct Block **blocks;
    uint64_t objects;
} held;

/* Makes so many, in the order of their numbers. */
static Object **make_objects(uint64_t count)
{
    Object **all = new_array(count, sizeof *all);
    for (uint64_t number = 0; number < count; number++) {
        all[number] = NEW(Object);
        all[number]->number = number;
    }
    return all;
}

static void make_tree(uint64_t count)
{
    Object **all = make_objects(count);
    for (uint64_t number = 0; number < count; number++)
        for (uint64_t edge = 0; edge < 3 && 3 * number + edge + 1 < count; edge++)
            all[number]->edges[edge] = all[3 * number + edge + 1];
    held.root = all[0];
    GC_FREE(all);
}

static void walk_tree(Reached *reached, const Object *object)
{
    reach(reached, object->number, sizeof *object);
    for (int edge = 0; edge < 4; edge++)
        if (object->edges[edge])
            walk_tree(reached, object->edges[edge]);
}

/* Lets each object point to the one so many further on. */
static void make_lists(uint64_t count, uint64_t lists)
{
    Object **all = make_objects(count);
    for (uint64_t number = 0; number + lists < count; number++)
        all[number]->edges[0] = all[number + lists];
    held.lists_count = lists < count ? lists : count;
    held.lists = new_array(held.lists_count, sizeof *held.lists);
    for (uint64_t i = 0; i < held.lists_count; i++)
        held.lists[i] = all[i];
    GC_FREE(all);
}

static void walk_lists(Reached *reached)
{
    for (uint64_t i = 0; i < held.lists_count; i++)
        for (const Object *object = held.lists[i]; object; object = object->edges[0])
            reach(reached, object->number, sizeof *object);
}

/* How an object of a random graph begins. */
typedef struct {
    struct Small *small;
    struct Medium *medium, *next;
    struct Large *large;
    uint64_t number;
} Head;

typedef struct Small {
    Head head;
    uint64_t unused[1];
} Small;

typedef struct Medium {
    Head head;
    uint64_t unused[3];
} Medium;

typedef struct Large {
    Head head;
    uint64_t unused[7];
} Large;

/* One of a group, and NULL if there is none. */
static void *any_of(Random *random, void **group, uint64_t count)
{
    return count ? group[below(random, count)] : NULL;
}

static void make_random(uint64_t count)
{
    static const size_t SIZES[3] = {sizeof(Small), sizeof(Medium), sizeof(Large)};
    /* Small, medium and large ones, and all together. */
    void **groups[3];
    uint64_t counts[3] = {0};
    for (int i = 0; i < 3; i++)
        groups[i] = new_array(count, sizeof(void *));
    Head **all = new_array(count, sizeof *all);
    Random random = new_random(1);
    for (uint64_t number = 0; number < count; number++) {
        uint64_t drawn = below(&random, 4);
        int size = drawn == 0 ? 0 : drawn == 3 ? 2 : 1;
        Head *head = checked(GC_MALLOC(SIZES[size]));
        head->number = number;
        groups[size][counts[size]++] = head;
        all[number] = head;
    }
    random = new_random(2);
    for (uint64_t number = 0; number < count; number++) {
        all[number]->small = any_of(&random, groups[0], counts[0]);
        all[number]->medium = any_of(&random, groups[1], counts[1]);
        all[number]->next = any_of(&random, groups[1], counts[1]);
        all[number]->large = any_of(&random, groups[2], counts[2]);
    }
    held.first = counts[1] ? groups[1][0] : NULL;
    held.objects = count;
    for (int i = 0; i < 3; i++)
        GC_FREE(groups[i]);
    GC_FREE(all);
}

/* A walk over a random graph, with a bit for each number. */
typedef struct {
    Reached *reached;
    uint64_t *seen;
    const Head **open;
    uint64_t open_count;
} Walk;

static void visit(Walk *walk, const Head *head, uint64_t bytes)
{
    if (!head || walk->seen[head->number / 64] >> head->number % 64 & 1)
        return;
    walk->seen[head->number / 64] |= (uint64_t)1 << head->number % 64;
    reach(walk->reached, head->number, bytes);
    walk->open[walk->open_count++] = head;
}

static void walk_random(Reached *reached)
{
    /* No collection runs any more, so these may point into the heap. */
    Walk walk = {reached, calloc(held.objects / 64 + 1, 8), calloc(held.objects, sizeof(Head *)), 0};
    checked(walk.seen);
    checked(walk.open);
    visit(&walk, (const Head *)held.first, sizeof(Medium));
    while (walk.open_count) {
        const Head *head = walk.open[--walk.open_count];
        visit(&walk, (const Head *)head->small, sizeof(Small));
        visit(&walk, (const Head *)head->medium, sizeof(Medium));
        visit(&walk, (const Head *)head->next, sizeof(Medium));
        visit(&walk, (const Head *)head->large, sizeof(Large));
    }
    free(walk.seen);
    free(walk.open);
}

typedef struct Leaf {
    uint64_t number, unused[3];
} Leaf;

typedef struct Block {
    uint64_t number, unused[127];
} Block;

static void make_arrays(uint64_t count)
{
    uint64_t number = 0;
    for (int a = 0; a < 32; a++) {
        uint64_t length = share(count, 32, (uint64_t)a);
        /* The leaves come first, then the array that points to them. */
        Leaf **leaves = new_array(length, sizeof *leaves);
        for (uint64_t i = 0; i < length; i++) {
            leaves[i] = NEW_ATOMIC(Leaf);
            *leaves[i] = (Leaf){.number = number++};
        }
        held.arrays[a] = new_array(length, sizeof *leaves);
        held.leaves[a] = length;
        for (uint64_t i = 0; i < length; i++)
            held.arrays[a][i] = leaves[i];
        GC_FREE(leaves);
    }
}

static void walk_arrays(Reached *reached)
{
    for (int a = 0; a < 32; a++)
        for (uint64_t i = 0; i < held.leaves[a]; i++)
            reach(reached, held.arrays[a][i]->number, sizeof(Leaf));
}

static void make_blocks(uint64_t count)
{
    held.blocks = new_array(count, sizeof *held.blocks);
    held.objects = count;
    for (uint64_t number = 0; number < count; number++) {
        held.blocks[number] = NEW_ATOMIC(Block);
        *held.blocks[number] = (Block){.number = number};
    }
}

static void walk_blocks(Reached *reached)
{
    for (uint64_t i = 0; i < held.objects; i++)
        reach(reached, held.blocks[i]->number, sizeof(Block));
}

static void make(uint64_t shape, uint64_t objects)
{
    switch (shape) {
    case 0:
        make_tree(objects);
        break;
    case 1:
        make_random(objects);
        break;
    case 2:
        make_lists(objects, 1);
        break;
    case 3:
        make_lists(objects, 1024);
        break;
    case 4:
        make_arrays(objects);
        break;
    default:
        make_blocks(objects);
    }
}

static void run(const Params *params, Outcome *outcome)
{
    uint64_t shape = get(params, "shape"), rounds = get(params, "rounds");
    make(shape, get(params, "objects"));
    GC_gcollect();
    outcome->operation = "cycle";
    uint64_t cpu = process_cpu(), started = now();
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t begun = now();
        GC_gcollect();
        record(&outcome->latency, now() - begun);
    }
    double wall = (double)(now() - started), spent = (double)(process_cpu() - cpu);
    Reached reached = {0, 0, 0};
    if (shape == 0)
        walk_tree(&reached, held.root);
    else if (shape == 1)
        walk_random(&reached);
    else if (shape < 4)
        walk_lists(&reached);
    else if (shape == 4)
        walk_arrays(&reached);
    else
        walk_blocks(&reached);
    outcome->checksum = reached.checksum;
    double visits = (double)rounds * (double)reached.objects;
    count_figure("reached", reached.objects);
    count_figure("reached_bytes", reached.bytes);
    real_figure("cpu_ns_per_object", spent / visits);
    real_figure("wall_ns_per_object", wall / visits);
    real_figure("cycle_bytes_per_s", (double)reached.bytes * (double)rounds / wall * 1e9);
}

const Workload MARKING = {.name = "marking", .keys = keys, .run = run};
