/*
 * spatial-index: a large R-tree, asked for the nearest neighbours, while some of its points move. The tree is in rtree.c.
 */
#include "rtree.h"

#include <inttypes.h>
#include <stdlib.h>

static Key keys[] = {
    KEY("points", 1000000, 1, (uint64_t)1 << 40),
    KEY("operations", 500000, 0, (uint64_t)1 << 48),
    KEY("k", 10, 1, 1024),
    END_OF_KEYS,
};

/* The square that the points are in, and the reach of a move in each direction. One operation in ten is a move. */
enum { SIDE = 1 << 24, REACH = 1 << 14, MOVE_ONE_IN = 10 };

/* What one thread has found out, in a tree of its own. */
typedef struct {
    uint64_t checksum, queries, moves, build, operate, nodes, levels;
    Histogram query_times, move_times;
} Part;

typedef struct {
    const Params *params;
    Part *parts;
} Work;

static Point *new_point(uint64_t id, uint64_t version, uint32_t x, uint32_t y)
{
    Point *point = NEW_ATOMIC(Point);
    *point = (Point){id, version, x, y, id ^ version};
    return point;
}

static uint32_t coordinate(Random *random)
{
    return (uint32_t)below(random, SIDE);
}

/* A coordinate that has moved by d, counted from the end of the reach, and has stayed in the square. */
static uint32_t moved(uint32_t x, uint64_t d)
{
    int64_t to = (int64_t)x + (int64_t)d - REACH;
    return to < 0 ? 0 : to > SIDE - 1 ? SIDE - 1 : (uint32_t)to;
}

static void move(Tree *tree, Point **table, uint64_t points, Random *random, Part *part)
{
    uint64_t id = below(random, points), dx = below(random, 2 * REACH + 1), dy = below(random, 2 * REACH + 1);
    uint64_t begun = now();
    Point *old = table[id];
    remove_point(tree, old);
    table[id] = new_point(id, old->version + 1, moved(old->x, dx), moved(old->y, dy));
    insert_point(tree, table[id]);
    record(&part->move_times, now() - begun);
    part->moves++;
}

static void query(const Tree *tree, unsigned k, Random *random, Part *part)
{
    uint32_t x = coordinate(random), y = coordinate(random);
    uint64_t begun = now();
    unsigned count;
    const Hit *hits = nearest(tree, x, y, k, &count);
    for (unsigned i = 0; i < count; i++)
        part->checksum += (i + 1) * (hits[i].distance + hits[i].point->id) + hits[i].point->version;
    record(&part->query_times, now() - begun);
    part->queries++;
}

static void drive(unsigned index, void *context)
{
    const Work *work = context;
    Part *part = &work->parts[index];
    uint64_t points = share(get(work->params, "points"), work->params->threads, index);
    uint64_t operations = share(get(work->params, "operations"), work->params->threads, index);
    unsigned k = (unsigned)get(work->params, "k");
    Random random = new_random(100 + index);
    uint64_t begun = now();
    Tree tree = new_tree();
    Point **table = new_array(points, sizeof *table);
    for (uint64_t id = 0; id < points; id++) {
        uint32_t x = coordinate(&random), y = coordinate(&random);
        table[id] = new_point(id, 0, x, y);
        insert_point(&tree, table[id]);
    }
    part->build = now() - begun;
    begun = now();
    for (uint64_t i = 0; i < operations; i++)
        if (below(&random, MOVE_ONE_IN) == 0)
            move(&tree, table, points, &random, part);
        else
            query(&tree, k, &random, part);
    part->operate = now() - begun;
    part->levels = (uint64_t)tree.root->level + 1;
    uint64_t seen = walk_tree(tree.root, &part->nodes, &part->checksum);
    if (seen != points)
        fail("a tree of %" PRIu64 " points has %" PRIu64, points, seen);
}

static void run(const Params *params, Outcome *outcome)
{
    if (params->threads > get(params, "points"))
        fail("there must be a point for each thread");
    Work work = {params, checked(calloc(params->threads, sizeof(Part)))};
    in_threads(params->threads, drive, &work);
    Part *sum = checked(calloc(1, sizeof *sum));
    for (unsigned i = 0; i < params->threads; i++) {
        const Part *part = &work.parts[i];
        sum->checksum += part->checksum;
        sum->queries += part->queries;
        sum->moves += part->moves;
        sum->nodes += part->nodes;
        sum->build = part->build > sum->build ? part->build : sum->build;
        sum->operate = part->operate > sum->operate ? part->operate : sum->operate;
        sum->levels = part->levels > sum->levels ? part->levels : sum->levels;
        merge(&outcome->latency, &part->query_times);
        merge(&sum->move_times, &part->move_times);
    }
    outcome->checksum = sum->checksum;
    outcome->operation = "query";
    real_figure("build_s", (double)sum->build / 1e9);
    real_figure("ops_per_s", (double)(sum->queries + sum->moves) / ((double)sum->operate / 1e9));
    count_figure("queries", sum->queries);
    count_figure("moves", sum->moves);
    count_figure("move_p50_ns", quantile(&sum->move_times, 5000));
    count_figure("move_p999_ns", quantile(&sum->move_times, 9990));
    count_figure("move_max_ns", quantile(&sum->move_times, 10000));
    count_figure("nodes", sum->nodes);
    count_figure("levels", sum->levels);
    free(sum);
    free(work.parts);
}

const Workload SPATIAL_INDEX = {.name = "spatial-index", .keys = keys, .run = run};
