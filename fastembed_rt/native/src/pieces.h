/* What the tokenizers in C have in common: hashes of pieces, the tokens that are looked for in texts first, characters. */
#ifndef PIECES_H
#define PIECES_H

#include <stdint.h>

enum { LIBRARY = -1 /* instead of a number of tokens: the text is the Rust library's */ };

enum { FIRST = 0x811c9dc5 }; /* where hashes begin */

static inline uint32_t grown(uint32_t hash, uint8_t character) {
    return (hash ^ character) * 0x01000193u;
}

static inline uint32_t mixed(uint32_t hash) {
    hash ^= hash >> 15;
    return hash * 0x85ebca6bu;
}

#endif
