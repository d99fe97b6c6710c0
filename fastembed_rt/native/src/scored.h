/* Pieces with scores, and how they are found by their bytes. */
#ifndef FASTEMBED_RT_SCORED_H
#define FASTEMBED_RT_SCORED_H

#include <stdlib.h>
#include <string.h>

#include "pieces.h"

enum { AHEAD_PIECES = 16 };

typedef struct {
    uint32_t hash, piece; /* number of a piece + 1; 0: none */
} Slot;

typedef struct {
    uint8_t *bytes;        /* of all pieces */
    uint32_t *starts;      /* of each piece, and the end of the last one */
    double *scores;
    Slot *slots;           /* open addressing, at least half of it empty */
    uint64_t *begins, *is; /* a bit for the hash of each beginning of a piece, and of each piece: most lookups end here */
    uint32_t mask, bits;   /* number of slots - 1; of bits - 1 */
} Pieces;

static int has_bit(const uint64_t *bits, uint32_t number) {
    return bits[number >> 6] >> (number & 63) & 1;
}

/* Number of a piece, or -1. */
static int32_t found(const Pieces *p, uint32_t hash, const uint8_t *piece, uint32_t length) {
    for (uint32_t k = hash & p->mask; p->slots[k].piece; k = (k + 1) & p->mask) {
        uint32_t number = p->slots[k].piece - 1, start = p->starts[number];
        if (p->slots[k].hash == hash && p->starts[number + 1] - start == length &&
            !memcmp(p->bytes + start, piece, length))
            return (int32_t)number;
    }
    return -1;
}

/* The hash of a piece, for which the bits are set. */
static uint32_t marked(Pieces *p, uint32_t number) {
    const uint8_t *piece = p->bytes + p->starts[number];
    uint32_t length = p->starts[number + 1] - p->starts[number], hash = FIRST, bit;
    for (uint32_t k = 0, end = 0; k < length; ++k) {
        if (k == end) {
            bit = mixed(hash) & p->bits;
            p->begins[bit >> 6] |= (uint64_t)1 << (bit & 63);
            end += size_of(piece[k]);
        }
        hash = grown(hash, piece[k]);
    }
    hash = mixed(hash);
    bit = hash & p->bits;
    p->is[bit >> 6] |= (uint64_t)1 << (bit & 63);
    return hash;
}

/* Of two pieces that are the same the last one counts. */
static void put(Pieces *p, uint32_t number, uint32_t hash) {
    uint32_t start = p->starts[number], k = hash & p->mask;
    int32_t same = found(p, hash, p->bytes + start, p->starts[number + 1] - start);
    while (p->slots[k].piece && (int32_t)p->slots[k].piece - 1 != same)
        k = (k + 1) & p->mask;
    p->slots[k] = (Slot){hash, number + 1};
}

/* Makes the tables of `count` pieces, whose bytes and starts are there; 0: there is no memory. */
static int index_pieces(Pieces *p, int64_t count) {
    uint32_t slots = 64;
    while (slots < 2 * (uint64_t)count)
        slots *= 2;
    p->mask = slots - 1;
    p->bits = 16 * slots - 1;
    p->slots = calloc(slots, sizeof *p->slots);
    p->begins = calloc(16 * slots / 64, sizeof *p->begins);
    p->is = calloc(16 * slots / 64, sizeof *p->is);
    uint32_t *hashes = malloc((count ? count : 1) * sizeof *hashes);
    const int made = hashes && p->slots && p->begins && p->is;
    for (int64_t k = 0; made && k < count; ++k)
        hashes[k] = marked(p, (uint32_t)k);
    for (int64_t k = 0; made && k < count; ++k) {
        if (k + AHEAD_PIECES < count) /* the table is larger than the caches */
            __builtin_prefetch(p->slots + (hashes[k + AHEAD_PIECES] & p->mask), 1);
        put(p, (uint32_t)k, hashes[k]);
    }
    free(hashes);
    return made;
}

static void free_pieces(Pieces *p) {
    free(p->bytes);
    free(p->starts);
    free(p->scores);
    free(p->slots);
    free(p->begins);
    free(p->is);
}

static void *copy_of(const void *from, size_t size) {
    void *made = malloc(size ? size : 1);
    if (made && size)
        memcpy(made, from, size);
    return made;
}

#endif
