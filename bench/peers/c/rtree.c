/* See rtree.h. Rules of splitting and choosing are those of bench/WORKLOADS.md. */
#include "rtree.h"

#include <string.h>

/* How many stay when a node is split. */
enum { SPLIT_AT = 17 };

typedef struct {
    Rect rect;
    void *below;
} Entry;

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The smallest rectangle that has both in it. */
static Rect around(Rect a, Rect b)
{
    return (Rect){
        least(a.min_x, b.min_x), least(a.min_y, b.min_y), most(a.max_x, b.max_x), most(a.max_y, b.max_y),
    };
}

static Rect rect_of_point(const Point *point)
{
    return (Rect){point->x, point->y, point->x, point->y};
}

/* Around all entries, of which there is one at least. */
static Rect rect_of_node(const RNode *node)
{
    Rect rect = node->rects[0];
    for (uint32_t i = 1; i < node->length; i++)
        rect = around(rect, node->rects[i]);
    return rect;
}

static uint64_t area(Rect rect)
{
    return (uint64_t)(rect.max_x - rect.min_x) * (rect.max_y - rect.min_y);
}

static void append(RNode *node, Entry entry)
{
    node->rects[node->length] = entry.rect;
    node->below[node->length] = entry.below;
    node->length++;
}

/* Takes an entry out. The last one takes its place. */
static void take(RNode *node, uint32_t index)
{
    node->length--;
    node->rects[index] = node->rects[node->length];
    node->below[index] = node->below[node->length];
    node->below[node->length] = NULL;
}

static RNode *new_node(uint32_t level)
{
    RNode *node = NEW(RNode);
    node->level = level;
    return node;
}

Tree new_tree(void)
{
    return (Tree){new_node(0)};
}

/* The child that grows least in area, the smaller one of two, the first of equal ones. */
static uint32_t choose(const RNode *node, Rect rect)
{
    uint32_t best = 0;
    uint64_t best_growth = UINT64_MAX, best_area = UINT64_MAX;
    for (uint32_t i = 0; i < node->length; i++) {
        uint64_t own = area(node->rects[i]), growth = area(around(node->rects[i], rect)) - own;
        if (growth < best_growth || (growth == best_growth && own < best_area)) {
            best = i;
            best_growth = growth;
            best_area = own;
        }
    }
    return best;
}

/* Divides the entries of a full node and one more, along the longer side. Returns the new node. */
static RNode *split(RNode *node, Entry more)
{
    Entry entries[MAX_ENTRIES + 1];
    Rect whole = around(rect_of_node(node), more.rect);
    bool by_x = whole.max_x - whole.min_x >= whole.max_y - whole.min_y;
    /* Sorted by insertion, which keeps the order of equal ones. */
    for (int i = 0; i <= MAX_ENTRIES; i++) {
        Entry entry = i < MAX_ENTRIES ? (Entry){node->rects[i], node->below[i]} : more;
        uint32_t key = by_x ? entry.rect.min_x + entry.rect.max_x : entry.rect.min_y + entry.rect.max_y;
        int at = i;
        for (; at > 0; at--) {
            Rect before = entries[at - 1].rect;
            if ((by_x ? before.min_x + before.max_x : before.min_y + before.max_y) <= key)
                break;
            entries[at] = entries[at - 1];
        }
        entries[at] = entry;
    }
    RNode *sibling = new_node(node->level);
    memset(node->below, 0, sizeof node->below);
    node->length = 0;
    for (int i = 0; i <= MAX_ENTRIES; i++)
        append(i < SPLIT_AT ? node : sibling, entries[i]);
    return sibling;
}

/* Adds an entry at or below a node. Returns a second node, if this one was split. */
static RNode *insert_below(RNode *node, Entry entry, uint32_t level)
{
    if (node->level > level) {
        uint32_t i = choose(node, entry.rect);
        RNode *child = node->below[i], *sibling = insert_below(child, entry, level);
        if (!sibling) {
            node->rects[i] = around(node->rects[i], entry.rect);
            return NULL;
        }
        node->rects[i] = rect_of_node(child);
        entry = (Entry){rect_of_node(sibling), sibling};
    }
    if (node->length == MAX_ENTRIES)
        return split(node, entry);
    append(node, entry);
    return NULL;
}

static void insert(Tree *tree, Entry entry, uint32_t level)
{
    RNode *sibling = insert_below(tree->root, entry, level);
    if (!sibling)
        return;
    RNode *root = new_node(tree->root->level + 1);
    append(root, (Entry){rect_of_node(tree->root), tree->root});
    append(root, (Entry){rect_of_node(sibling), sibling});
    tree->root = root;
}

void insert_point(Tree *tree, Point *point)
{
    insert(tree, (Entry){rect_of_point(point), point}, 0);
}

/* Nodes with too few entries, from the leaf upwards. A tree is not as high as this. */
typedef struct {
    RNode *nodes[32];
    int count;
} Short;

/* Takes a point out, if it is at or below a node. */
static bool remove_below(RNode *node, const Point *point, Short *few)
{
    for (uint32_t i = 0; i < node->length; i++) {
        Rect rect = node->rects[i];
        if (node->level == 0) {
            if (node->below[i] != point)
                continue;
            take(node, i);
            return true;
        }
        RNode *child = node->below[i];
        bool contains = rect.min_x <= point->x && point->x <= rect.max_x && rect.min_y <= point->y && point->y <= rect.max_y;
        if (!contains || !remove_below(child, point, few))
            continue;
        if (child->length < MIN_ENTRIES) {
            few->nodes[few->count++] = child;
            take(node, i);
        } else {
            node->rects[i] = rect_of_node(child);
        }
        return true;
    }
    return false;
}

void remove_point(Tree *tree, const Point *point)
{
    Short few = {.count = 0};
    if (!remove_below(tree->root, point, &few))
        fail("a point that is to be removed is not in the tree");
    for (int n = 0; n < few.count; n++)
        for (uint32_t i = 0; i < few.nodes[n]->length; i++)
            insert(tree, (Entry){few.nodes[n]->rects[i], few.nodes[n]->below[i]}, few.nodes[n]->level);
    while (tree->root->level > 0 && tree->root->length == 1)
        tree->root = tree->root->below[0];
    if (tree->root->length == 0)
        tree->root->level = 0;
}

/* ---- queries ---- */

/* A node that a query has still to look at. */
typedef struct {
    uint64_t distance;
    const RNode *node;
} Item;

/* A binary heap, the least distance first. */
typedef struct {
    Item *items;
    unsigned count, room;
} Queue;

static Queue new_queue(void)
{
    enum { FIRST = 32 };
    return (Queue){checked(GC_MALLOC(FIRST * sizeof(Item))), 0, FIRST};
}

static void push(Queue *queue, Item item)
{
    if (queue->count == queue->room) {
        queue->room *= 2;
        Item *larger = checked(GC_MALLOC(queue->room * sizeof *larger));
        memcpy(larger, queue->items, queue->count * sizeof *larger);
        queue->items = larger;
    }
    unsigned at = queue->count++;
    while (at > 0 && queue->items[(at - 1) / 2].distance > item.distance) {
        queue->items[at] = queue->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    queue->items[at] = item;
}

/* Takes the least item. There is one. */
static Item pop(Queue *queue)
{
    Item *items = queue->items, first = items[0], last = items[--queue->count];
    unsigned at = 0, child;
    while ((child = 2 * at + 1) < queue->count) {
        if (child + 1 < queue->count && items[child + 1].distance < items[child].distance)
            child++;
        if (last.distance <= items[child].distance)
            break;
        items[at] = items[child];
        at = child;
    }
    items[at] = last;
    return first;
}

static uint64_t beyond(uint32_t x, uint32_t low, uint32_t high)
{
    return x < low ? low - x : x > high ? x - high : 0;
}

/* The square of the distance of a place, 0 inside. */
static uint64_t distance(Rect rect, uint32_t x, uint32_t y)
{
    uint64_t dx = beyond(x, rect.min_x, rect.max_x), dy = beyond(y, rect.min_y, rect.max_y);
    return dx * dx + dy * dy;
}

static bool before(const Hit *a, const Hit *b)
{
    return a->distance < b->distance || (a->distance == b->distance && a->point->id < b->point->id);
}

/* Puts a hit in its place, if it is among the best k. */
static void add(Hit *hits, unsigned *count, unsigned k, Hit hit)
{
    if (*count == k && !before(&hit, &hits[k - 1]))
        return;
    unsigned at = *count < k ? (*count)++ : k - 1;
    for (; at > 0 && before(&hit, &hits[at - 1]); at--)
        hits[at] = hits[at - 1];
    hits[at] = hit;
}

Hit *nearest(const Tree *tree, uint32_t x, uint32_t y, unsigned k, unsigned *count)
{
    Hit *hits = checked(GC_MALLOC(k * sizeof *hits));
    Queue queue = new_queue();
    *count = 0;
    push(&queue, (Item){0, tree->root});
    while (queue.count > 0) {
        Item next = pop(&queue);
        if (*count == k && next.distance > hits[k - 1].distance)
            break;
        for (uint32_t i = 0; i < next.node->length; i++) {
            uint64_t far = distance(next.node->rects[i], x, y);
            if (*count == k && far > hits[k - 1].distance)
                continue;
            if (next.node->level > 0)
                push(&queue, (Item){far, next.node->below[i]});
            else
                add(hits, count, k, (Hit){far, next.node->below[i]});
        }
    }
    return hits;
}

uint64_t walk_tree(const RNode *node, uint64_t *nodes, uint64_t *checksum)
{
    uint64_t points = 0;
    ++*nodes;
    for (uint32_t i = 0; i < node->length; i++) {
        if (node->level > 0) {
            points += walk_tree(node->below[i], nodes, checksum);
        } else {
            const Point *point = node->below[i];
            *checksum += (point->id + 1) * (point->version + 1) + point->x + point->y;
            points++;
        }
    }
    return points;
}
