/* binary-trees: many small objects, most of them short-lived. A node is two pointers. */
#include "peer.h"

#include <inttypes.h>

enum { MIN_DEPTH = 4 };

static Key keys[] = {
    KEY("depth", 16, MIN_DEPTH, 58),
    END_OF_KEYS,
};

typedef struct Node Node;
struct Node {
    Node *left, *right;
};

/* A complete tree, children first. */
static Node *build(uint64_t depth)
{
    Node *left = depth ? build(depth - 1) : NULL;
    Node *right = depth ? build(depth - 1) : NULL;
    Node *node = NEW(Node);
    node->left = left;
    node->right = right;
    return node;
}

/* Looks at every node. */
static uint64_t count(const Node *node)
{
    return node->left ? 1 + count(node->left) + count(node->right) : 1;
}

static uint64_t nodes(uint64_t depth)
{
    return ((uint64_t)2 << depth) - 1;
}

typedef struct {
    uint64_t depth;
    unsigned threads;
    uint64_t sums[MAX_THREADS];
} Trees;

static void short_lived(unsigned index, void *context)
{
    Trees *trees = context;
    uint64_t sum = 0;
    for (uint64_t depth = MIN_DEPTH; depth <= trees->depth; depth += 2) {
        uint64_t mine = share((uint64_t)1 << (trees->depth - depth + MIN_DEPTH), trees->threads, index);
        for (uint64_t i = 0; i < mine; i++)
            sum += count(build(depth));
    }
    trees->sums[index] = sum;
}

static void run(const Params *params, Outcome *outcome)
{
    static Trees trees;
    /* Static memory is where a collector looks for roots. */
    static Node *long_lived;
    trees.depth = get(params, "depth");
    trees.threads = params->threads;
    uint64_t stretch = count(build(trees.depth + 1));
    if (stretch != nodes(trees.depth + 1))
        fail("the stretch tree has %" PRIu64 " nodes", stretch);
    long_lived = build(trees.depth);
    in_threads(params->threads, short_lived, &trees);
    outcome->checksum = count(long_lived);
    for (unsigned i = 0; i < params->threads; i++)
        outcome->checksum += trees.sums[i];
}

const Workload BINARY_TREES = {.name = "binary-trees", .keys = keys, .run = run};
