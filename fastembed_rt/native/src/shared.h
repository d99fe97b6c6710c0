/* Packed weights in files of a folder, so that processes which name the same folder have them in memory once.
 *
 * A file has its name only when it is complete, and is not written to after that. What is found is held against a
 * checksum here, and against the model's own weights by who asks. Linux; elsewhere nothing is shared. One thread at a
 * time is in any of these functions.
 */
#ifndef FASTEMBED_RT_SHARED_H
#define FASTEMBED_RT_SHARED_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *kernels; /* whose order the weights are in */
    uint64_t hash;       /* of what they are made from, see hashed */
    size_t bytes;
} SharedName;

/* Names the folder of what is packed from now on, "" for none. 0: its name is too long, or there are no such files here. */
int share_in(const char *name);

/* Layers since the last call that only this process has: the folder had no room, took no file without a name, or gave it
 * none. */
int count_unshared(void);

/* Whether a folder is named. */
int sharing(void);

/* A hash that goes on with more bytes. */
uint64_t hashed(uint64_t hash, const void *bytes, size_t count);

/* What another process, or this one, has under a name, to be read only; NULL where there is nothing, or nothing sound. */
void *find_shared(const SharedName *name);

/* A file is in use, as its time says to who looks for those that are not. */
void touch_shared(const SharedName *name);

/* Zeros to be written to, at a page; NULL where nothing is shared or there is no room. */
void *begin_shared(const SharedName *name);

/* What was begun last and is written now: found by others from here on, to be read only. Gives the memory to use, which
 * is another process's where that was first; never NULL. */
void *publish_shared(const SharedName *name, void *memory);

void free_shared(void *memory, size_t bytes);

#endif
