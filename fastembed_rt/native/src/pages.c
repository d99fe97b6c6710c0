#include "pages.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

/* The address sanitizer knows the ends of what the C library allocates, and nothing of what lies in a chunk. */
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)

#include <sys/mman.h>
#include <unistd.h>

enum {
    LARGE = 2 << 20, /* bytes of a large page, */
    CHUNK = 32 << 20 /* and of a chunk, or more for a larger allocation; pages that nothing was written to cost nothing */
};

typedef struct Chunk {
    struct Chunk *next;
    char *begin;
    size_t size, used, users;
} Chunk;

static Chunk *chunks; /* the newest first, which is filled */

/* `size` bytes of zeros at a multiple of LARGE, or NULL. */
static char *map_aligned(size_t size) {
    char *whole = mmap(NULL, size + LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole == MAP_FAILED)
        return NULL;
    size_t before = (LARGE - (uintptr_t)whole % LARGE) % LARGE;
    if (before)
        munmap(whole, before);
    munmap(whole + before + size, LARGE - before);
#ifdef MADV_HUGEPAGE
    madvise(whole + before, size, MADV_HUGEPAGE); /* refused where the kernel has none: pages are small then */
#endif
    return whole + before;
}

static Chunk *new_chunk(size_t least) {
    Chunk *chunk = malloc(sizeof *chunk);
    size_t size = round_up(least > CHUNK ? least : CHUNK, LARGE);
    char *begin = chunk ? map_aligned(size) : NULL;
    if (!begin) {
        free(chunk);
        return NULL;
    }
    *chunk = (Chunk){.next = chunks, .begin = begin, .size = size};
    return chunks = chunk;
}

void *allocate_pages(size_t bytes) {
    size_t needed = round_up(bytes ? bytes : 1, 64);
    Chunk *chunk = chunks;
    if (!chunk || chunk->size - chunk->used < needed)
        chunk = new_chunk(needed);
    if (!chunk)
        return NULL;
    char *found = chunk->begin + chunk->used;
    chunk->used += needed;
    chunk->users++;
    return found;
}

/* A chunk goes when its last part does; until then the small pages of a part that went are given back. */
void free_pages(void *memory, size_t bytes) {
    char *begin = memory;
    Chunk **place = &chunks;
    if (!memory)
        return;
    while (begin < (*place)->begin || begin >= (*place)->begin + (*place)->size)
        place = &(*place)->next;
    Chunk *chunk = *place;
    if (--chunk->users == 0) {
        *place = chunk->next;
        munmap(chunk->begin, chunk->size);
        free(chunk);
        return;
    }
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)begin + page - 1) / page * page;
    uintptr_t to = ((uintptr_t)begin + bytes) / page * page;
    if (from >= to)
        return;
#ifdef MADV_NOHUGEPAGE
    madvise((void *)from, to - from, MADV_NOHUGEPAGE); /* or the kernel might fill it up to a large page again */
#endif
    madvise((void *)from, to - from, MADV_DONTNEED);
}

#else

void *allocate_pages(size_t bytes) {
    void *found = allocate(bytes);
    return found ? memset(found, 0, round_up(bytes ? bytes : 1, 64)) : NULL;
}

void free_pages(void *memory, size_t bytes) {
    (void)bytes;
    free(memory);
}

#endif

#if defined(__linux__)

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of an entry of /proc/self/pagemap (https://docs.kernel.org/admin-guide/mm/pagemap.html). A page of a private mapping
 * that was written to is the file's no more. */
static const uint64_t OF_FILE = 1ull << 61 | 1ull << 63; /* and in memory */
enum { ENTRIES = 512 };

void release_file_pages(const void *memory, size_t bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), next = (uintptr_t)memory / page;
    uintptr_t end = ((uintptr_t)memory + bytes + page - 1) / page;
    int pages = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC); /* some sandboxes have none */
    while (pages >= 0 && next < end) {
        uint64_t entries[ENTRIES];
        size_t wanted = min_size(end - next, ENTRIES) * sizeof entries[0];
        if (pread(pages, entries, wanted, (off_t)(next * sizeof entries[0])) != (ssize_t)wanted)
            break;
        for (size_t count = wanted / sizeof entries[0], from = 0, to; from < count; from = to + 1) {
            for (to = from; to < count && (entries[to] & OF_FILE) == OF_FILE; to++)
                ;
            if (to > from)
                madvise((void *)((next + from) * page), (to - from) * page, MADV_DONTNEED);
        }
        next += ENTRIES;
    }
    if (pages >= 0)
        close(pages);
}

#else

void release_file_pages(const void *memory, size_t bytes) {
    (void)memory;
    (void)bytes;
}

#endif
