/* An R-tree of points, in the collected heap, and queries for the nearest of them. */
#ifndef RTREE_H
#define RTREE_H

#include "peer.h"

/* How many entries a node has, but for the root. */
enum { MIN_ENTRIES = 12, MAX_ENTRIES = 32 };

/* Never changes. */
typedef struct {
    uint64_t id, version;
    uint32_t x, y;
    uint64_t tag;
} Point;

/* A rectangle with its edges in it. */
typedef struct {
    uint32_t min_x, min_y, max_x, max_y;
} Rect;

/* Entries are points in a leaf, which is level 0, and nodes of the level below in the others. */
typedef struct RNode {
    uint32_t level, length;
    Rect rects[MAX_ENTRIES];
    void *below[MAX_ENTRIES];
} RNode;

typedef struct {
    RNode *root;
} Tree;

typedef struct {
    uint64_t distance;
    Point *point;
} Hit;

Tree new_tree(void);
void insert_point(Tree *tree, Point *point);
/* Takes a point out, which is in the tree. */
void remove_point(Tree *tree, const Point *point);
/* The k points with the least distance and, of equal ones, the least ids, in this order, and how many there are. */
Hit *nearest(const Tree *tree, uint32_t x, uint32_t y, unsigned k, unsigned *count);
/* Adds up what all points are. Counts nodes, and returns how many points there are. */
uint64_t walk_tree(const RNode *node, uint64_t *nodes, uint64_t *checksum);

#endif
