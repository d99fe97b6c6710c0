/* What the tokenizers in C have in common: hashes of pieces, the tokens that are looked for in texts first, characters. */
#ifndef FASTEMBED_RT_PIECES_H
#define FASTEMBED_RT_PIECES_H

#include <stdint.h>

enum { LIBRARY = -1 /* instead of a number of tokens: the text is the Rust library's */ };

enum { FIRST = 0x811c9dc5 }; /* where hashes begin */

static const uint8_t MARK[3] __attribute__((unused)) = {0xe2, 0x96, 0x81}; /* of sentencepiece, for a space */

static inline uint32_t grown(uint32_t hash, uint8_t character) {
    return (hash ^ character) * 0x01000193u;
}

static inline uint32_t mixed(uint32_t hash) {
    hash ^= hash >> 15;
    return hash * 0x85ebca6bu;
}

static inline uint32_t hash_of(const uint8_t *piece, int32_t length, uint32_t seed) {
    for (int32_t k = 0; k < length; ++k)
        seed = grown(seed, piece[k]);
    return seed;
}

/* Bytes of the character that begins here, as its first byte says. */
static inline int32_t size_of(uint8_t first) {
    return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

static inline uint32_t code_of(const uint8_t *c, int32_t size) {
    switch (size) {
    case 1: return *c;
    case 2: return (c[0] & 0x1fu) << 6 | (c[1] & 0x3fu);
    case 3: return (c[0] & 0x0fu) << 12 | (c[1] & 0x3fu) << 6 | (c[2] & 0x3fu);
    }
    return (c[0] & 0x07u) << 18 | (c[1] & 0x3fu) << 12 | (c[2] & 0x3fu) << 6 | (c[3] & 0x3fu);
}

static inline int is_utf8(const uint8_t *text, int64_t size) {
    for (int64_t k = 0; k < size;) {
        uint8_t first = text[k];
        int32_t more = first < 0x80 ? 0 : first < 0xc2 ? -1 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
        if (more < 0 || more >= size - k)
            return 0;
        for (int32_t j = 1; j <= more; ++j)
            if ((text[k + j] & 0xc0) != 0x80)
                return 0;
        uint8_t second = more ? text[k + 1] : 0;
        if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second >= 0xa0) || (first == 0xf0 && second < 0x90) ||
            (first == 0xf4 && second >= 0x90))
            return 0;
        k += more + 1;
    }
    return 1;
}

#endif
