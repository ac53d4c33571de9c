/* gcbench: old objects that point at young ones, and a large object. */
#include "peer.h"

static Key keys[] = {
    KEY("stretch", 18, 1, 56),
    KEY("longlived", 16, 1, 56),
    KEY("array", 500000, 1, (uint64_t)1 << 48),
    KEY("min", 4, 1, 56),
    KEY("max", 16, 1, 56),
    END_OF_KEYS,
};

typedef struct Node Node;
struct Node {
    Node *left, *right;
    uint32_t i, j;
};

static uint64_t nodes(uint64_t depth)
{
    return ((uint64_t)2 << depth) - 1;
}

/* Gives a node subtrees of a depth one less, from the top down. */
static void populate(Node *node, uint64_t depth)
{
    if (depth == 0)
        return;
    node->left = NEW(Node);
    node->right = NEW(Node);
    populate(node->left, depth - 1);
    populate(node->right, depth - 1);
}

static Node *top_down(uint64_t depth)
{
    Node *root = NEW(Node);
    populate(root, depth);
    return root;
}

static Node *bottom_up(uint64_t depth)
{
    Node *left = depth ? bottom_up(depth - 1) : NULL;
    Node *right = depth ? bottom_up(depth - 1) : NULL;
    Node *node = NEW(Node);
    node->left = left;
    node->right = right;
    return node;
}

/* How many nodes lie on the way to the leftmost leaf, plus the numbers found there, which are 0. */
static uint64_t spine(const Node *node)
{
    uint64_t length = 0;
    for (; node; node = node->left)
        length += 1 + (uint64_t)node->i + node->j;
    return length;
}

static uint64_t count(const Node *node)
{
    return node ? 1 + count(node->left) + count(node->right) : 0;
}

static double reciprocal(uint64_t index)
{
    return 1.0 / (double)(index + 1);
}

typedef struct {
    const Params *params;
    uint64_t sums[MAX_THREADS], top_down[MAX_THREADS], bottom_up[MAX_THREADS];
} Trees;

static void temporary(unsigned index, void *context)
{
    Trees *trees = context;
    const Params *params = trees->params;
    uint64_t sum = 0;
    for (uint64_t depth = get(params, "min"); depth <= get(params, "max"); depth += 2) {
        /* At least one, if the trees are larger than the stretch tree. */
        uint64_t all = 2 * nodes(get(params, "stretch")) / nodes(depth);
        uint64_t mine = share(all ? all : 1, params->threads, index);
        uint64_t begun = now();
        for (uint64_t i = 0; i < mine; i++)
            sum += spine(top_down(depth));
        uint64_t half = now();
        for (uint64_t i = 0; i < mine; i++)
            sum += spine(bottom_up(depth));
        trees->top_down[index] += half - begun;
        trees->bottom_up[index] += now() - half;
    }
    trees->sums[index] = sum;
}

static void run(const Params *params, Outcome *outcome)
{
    static Trees trees;
    static Node *tree;
    static double *array;
    uint64_t length = get(params, "array");
    if (get(params, "min") > get(params, "max"))
        fail("min must not be above max");
    trees.params = params;
    if (spine(bottom_up(get(params, "stretch"))) != get(params, "stretch") + 1)
        fail("the spine of the stretch tree has the wrong length");
    tree = top_down(get(params, "longlived"));
    array = checked(GC_MALLOC_ATOMIC_IGNORE_OFF_PAGE(length * sizeof *array));
    for (uint64_t i = 0; i < length; i++)
        array[i] = reciprocal(i);
    in_threads(params->threads, temporary, &trees);
    outcome->checksum = count(tree);
    for (uint64_t i = 0; i < length; i++)
        outcome->checksum += array[i] == reciprocal(i);
    double down = 0, up = 0;
    for (unsigned i = 0; i < params->threads; i++) {
        outcome->checksum += trees.sums[i];
        down += (double)trees.top_down[i] / 1e9 / params->threads;
        up += (double)trees.bottom_up[i] / 1e9 / params->threads;
    }
    real_figure("top_down_s", down);
    real_figure("bottom_up_s", up);
}

const Workload GCBENCH = {.name = "gcbench", .keys = keys, .run = run};
