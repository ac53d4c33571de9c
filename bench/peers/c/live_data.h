/*
 * A set of objects of mixed sizes, held at a chosen number of bytes and renewed steadily. Objects lie in segments; growing
 * adds some, and shrinking drops the newest. Every object can be checked.
 */
#ifndef LIVE_DATA_H
#define LIVE_DATA_H

#include "peer.h"

typedef struct LiveData LiveData;

/* No objects, in the collected heap. What is made later follows from the seed. */
LiveData *new_live_data(uint64_t seed);
/* Adds segments until there are so many bytes or more. */
void grow_to(LiveData *data, uint64_t bytes);
/* Drops the newest segments as long as there are so many bytes without them. */
void shrink_to(LiveData *data, uint64_t bytes);
/* Replaces random objects until so many bytes of new ones have been made, and checks what it replaces. */
void renew(LiveData *data, uint64_t bytes);
/* Checks every object and returns how many there are. */
uint64_t verify_live_data(const LiveData *data);

#endif
