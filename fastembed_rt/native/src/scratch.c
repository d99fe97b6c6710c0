#include "scratch.h"

#include <stdint.h>

#include "support.h"

/* The address sanitizer and tests that let allocations fail know what the C library allocates, and nothing of blocks. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(PLAIN_SCRATCH)

#include <pthread.h>
#include <sys/mman.h>

enum {
    HEAD = 64,           /* bytes before what is given out, which keep it at a multiple of 64 */
    SMALLEST = 16,       /* block, as a power of 2: below it the C library's heap is as good */
    SIZES = 9,           /* of blocks, each twice as large as the one before */
    KEPT = 16 << 20      /* bytes at most of those that nobody uses, and of the largest size */
};

typedef struct Block {
    struct Block *next;  /* of those of a size that nobody uses */
    size_t bytes;        /* a power of 2, or more than KEPT, this head among them; 0: of the C library */
} Block;

static Block *unused[SIZES];
static size_t unused_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void lock_blocks(void) { pthread_mutex_lock(&lock); }
void unlock_blocks(void) { pthread_mutex_unlock(&lock); }

/* Which size has so many bytes, KEPT at most. */
static int size_of(size_t bytes) {
    int power = 64 - __builtin_clzll((unsigned long long)bytes - 1);
    return power > SMALLEST ? power - SMALLEST : 0;
}

static Block *take(int size) {
    lock_blocks();
    Block *block = unused[size];
    if (block) {
        unused[size] = block->next;
        unused_bytes -= block->bytes;
    }
    unlock_blocks();
    return block;
}

static int keep(Block *block, int size) {
    lock_blocks();
    int fits = unused_bytes + block->bytes <= KEPT;
    if (fits) {
        block->next = unused[size];
        unused[size] = block;
        unused_bytes += block->bytes;
    }
    unlock_blocks();
    return fits;
}

/* One of at least so many bytes, or NULL. */
static Block *whole_block(size_t bytes) {
    Block *block = NULL;
    if (bytes <= KEPT) {
        int size = size_of(bytes);
        block = take(size);
        bytes = (size_t)1 << (SMALLEST + size);
    }
    if (block)
        return block;
    block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return NULL;
    block->bytes = bytes;
    return block;
}

void *allocate_scratch(size_t bytes) {
    if (bytes > SIZE_MAX / 4)
        return NULL;
    size_t needed = round_up(bytes, 64) + HEAD;
    Block *block = needed >= (size_t)1 << SMALLEST ? whole_block(needed) : NULL;
    if (!block) { /* small, or a process with as many mappings as it may have */
        block = aligned_alloc(64, needed);
        if (!block)
            return NULL;
        block->bytes = 0;
    }
    return (char *)block + HEAD;
}

void free_scratch(void *memory) {
    if (!memory)
        return;
    Block *block = (Block *)((char *)memory - HEAD);
    if (!block->bytes) {
        free(block);
        return;
    }
    if (block->bytes > KEPT || !keep(block, size_of(block->bytes)))
        munmap(block, block->bytes);
}

/* What Python calls: give back what nobody uses. */
EXPORTED void fastembed_rt_trim(void) {
    for (int size = 0; size < SIZES; size++)
        for (Block *block; (block = take(size));)
            munmap(block, block->bytes);
}

#else

void lock_blocks(void) {}
void unlock_blocks(void) {}
void *allocate_scratch(size_t bytes) { return allocate(bytes); }
void free_scratch(void *memory) { free(memory); }
EXPORTED void fastembed_rt_trim(void) {}

#endif
