/* Token ids of ASCII texts as BERT's tokenizers have them: words apart at blanks and punctuation, in lower case where
   the model has no other, each cut into the longest pieces of the vocabulary (Devlin et al. 2018, arXiv:1810.04805;
   wordpiece of github.com/google-research/bert). Whatever else a text holds is left to the Rust library. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

enum {
    LIBRARY = -1, /* instead of a number of tokens: the text is the library's */
    MOST_CHARACTERS = 1000, /* of a word that is cut into pieces */
    FIRST = 0x811c9dc5,
    NEXT = 0x2545f491, /* where hashes begin: of pieces that begin a word, and of those that continue one */
};

enum { LETTER, BLANK, PUNCTUATION, OTHER }; /* of characters */

typedef struct {
    uint32_t hash, offset; /* of a piece, and where it stands among the vocabulary's bytes */
    int32_t length, id;    /* no length: no piece */
} Slot;

typedef struct {
    uint8_t *bytes;         /* of all pieces, then of the added tokens */
    Slot *slots;            /* open addressing, at least half of it empty */
    uint32_t mask;          /* number of slots - 1 */
    int32_t longest;        /* piece */
    int32_t most;           /* characters of a word that is cut into pieces; a longer one is unknown */
    int32_t unknown;        /* its id */
    int lower;              /* whether capitals are lower case */
    const uint8_t *added;   /* one after the other */
    int32_t *added_lengths; /* of each */
    int32_t added_count;
    uint8_t kinds[256];
    uint8_t begins_added[256];
} Wordpiece;

static uint32_t grown(uint32_t hash, uint8_t character) {
    return (hash ^ character) * 0x01000193u;
}

static uint32_t mixed(uint32_t hash) {
    hash ^= hash >> 15;
    return hash * 0x85ebca6bu;
}

static uint8_t lowered(uint8_t character) {
    return character >= 'A' && character <= 'Z' ? character + 32 : character;
}

/* The id of a piece, or -1. */
static int32_t found(const Wordpiece *w, uint32_t hash, const uint8_t *piece, int32_t length) {
    hash = mixed(hash);
    for (uint32_t k = hash & w->mask;; k = (k + 1) & w->mask) {
        const Slot *slot = w->slots + k;
        if (!slot->length)
            return -1;
        if (slot->hash == hash && slot->length == length && !memcmp(w->bytes + slot->offset, piece, length))
            return slot->id;
    }
}

static void put(Wordpiece *w, uint32_t seed, uint32_t offset, int32_t length, int32_t id) {
    uint32_t hash = seed;
    for (int32_t k = 0; k < length; ++k)
        hash = grown(hash, w->bytes[offset + k]);
    hash = mixed(hash);
    uint32_t k = hash & w->mask;
    while (w->slots[k].length)
        k = (k + 1) & w->mask;
    w->slots[k] = (Slot){hash, offset, length, id};
    if (length > w->longest)
        w->longest = length;
}

EXPORTED void fastembed_rt_wordpiece_free(void *made) {
    Wordpiece *w = made;
    if (!w)
        return;
    free(w->bytes);
    free(w->slots);
    free(w->added_lengths);
    free(w);
}

/* A vocabulary: `bytes` are its ASCII pieces one after the other, those that begin words and then, from `continuing` on
   and without the mark for it, those that continue them; then `added_count` added tokens. `lengths` and `ids` are of the
   pieces, `lengths` of the added tokens behind them. NULL where there is no memory. */
EXPORTED void *fastembed_rt_wordpiece_new(const uint8_t *bytes, int64_t size, const int32_t *lengths,
                                          const int32_t *ids, int64_t count, int64_t continuing, int64_t added_count,
                                          int32_t most, int32_t unknown, int32_t lower) {
    Wordpiece *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    uint32_t slots = 16;
    while (slots < 2 * (uint64_t)count)
        slots *= 2;
    w->bytes = malloc(size ? size : 1);
    w->slots = calloc(slots, sizeof *w->slots);
    w->added_lengths = malloc((added_count ? added_count : 1) * sizeof *w->added_lengths);
    if (!w->bytes || !w->slots || !w->added_lengths) {
        fastembed_rt_wordpiece_free(w);
        return NULL;
    }
    memcpy(w->bytes, bytes, size);
    w->mask = slots - 1;
    w->most = most < MOST_CHARACTERS ? most : MOST_CHARACTERS;
    w->unknown = unknown;
    w->lower = lower;
    uint32_t offset = 0;
    for (int64_t k = 0; k < count; offset += lengths[k++])
        put(w, k < continuing ? FIRST : NEXT, offset, lengths[k], ids[k]);
    w->added = w->bytes + offset;
    w->added_count = (int32_t)added_count;
    for (int64_t k = 0; k < added_count; offset += w->added_lengths[k++]) {
        w->added_lengths[k] = lengths[count + k];
        w->begins_added[w->bytes[offset]] = 1;
    }
    for (int c = 0; c < 256; ++c) {
        int letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        int blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
        w->kinds[c] = letter ? LETTER : blank ? BLANK : c > ' ' && c < 127 ? PUNCTUATION : OTHER;
    }
    return w;
}

/* Whether an added token stands here, in capitals or not: the library says then what becomes of the text. */
static int is_added(const Wordpiece *w, const uint8_t *text, int64_t left) {
    const uint8_t *token = w->added;
    for (int32_t k = 0; k < w->added_count; token += w->added_lengths[k++]) {
        int32_t length = w->added_lengths[k], same = 0;
        if (length > left)
            continue;
        while (same < length && lowered(token[same]) == lowered(text[same]))
            ++same;
        if (same == length)
            return 1;
    }
    return 0;
}

/* Pieces of a word, at most as many as it has characters; their number. */
static int32_t cut(const Wordpiece *w, const uint8_t *word, int32_t length, int32_t *pieces) {
    uint32_t hashes[MOST_CHARACTERS + 1];
    int32_t number = 0;
    for (int32_t start = 0; start < length;) {
        int32_t end = length - start > w->longest ? start + w->longest : length;
        hashes[start] = start ? NEXT : FIRST;
        for (int32_t k = start; k < end; ++k)
            hashes[k + 1] = grown(hashes[k], word[k]);
        int32_t id = -1;
        while (end > start && (id = found(w, hashes[end], word + start, end - start)) < 0)
            --end;
        if (id < 0) {
            pieces[0] = w->unknown;
            return 1;
        }
        pieces[number++] = id;
        start = end;
    }
    return number;
}

/* Ids of a text, the first `most` of them; their number, or LIBRARY. `*more`: there were others. */
static int64_t encode(const Wordpiece *w, const uint8_t *text, int64_t length, int64_t most, int64_t *ids, uint8_t *more) {
    uint8_t word[MOST_CHARACTERS];
    int32_t pieces[MOST_CHARACTERS];
    int64_t number = 0;
    *more = 0;
    for (int64_t k = 0; k < length;) {
        uint8_t character = text[k], kind = w->kinds[character];
        if (kind == BLANK) {
            ++k;
            continue;
        }
        if (kind == OTHER || (w->begins_added[character] && is_added(w, text + k, length - k)))
            return LIBRARY;
        int32_t size = 0;
        int64_t end = k + 1;
        if (kind == LETTER) {
            while (end < length && w->kinds[text[end]] == LETTER)
                ++end;
            if (end < length && w->kinds[text[end]] == OTHER) /* what is left out of a text joins what is around it */
                return LIBRARY;
        }
        int32_t count = 1;
        if (end - k > w->most) {
            pieces[0] = w->unknown;
        } else {
            for (; k < end; ++k)
                word[size++] = w->lower ? lowered(text[k]) : text[k];
            count = cut(w, word, size, pieces);
        }
        k = end;
        for (int32_t piece = 0; piece < count; ++piece) {
            if (number == most) {
                *more = 1;
                return number;
            }
            ids[number++] = pieces[piece];
        }
    }
    return number;
}

/* Rows of `n` texts of ASCII characters, which stand one after the other and are `lengths` long: the ids of `around`,
   `before` of them in front and `after` behind, and between them at most `most` of the text, one row after the other.
   `counts` has the length of each row, -1 for a text that is the library's, `more` whether it was cut. */
EXPORTED void fastembed_rt_wordpiece_encode(const void *made, const uint8_t *texts, const int64_t *lengths, int64_t n,
                                            int64_t most, const int64_t *around, int64_t before, int64_t after,
                                            int64_t *ids, int64_t *counts, uint8_t *more) {
    for (int64_t k = 0; k < n; texts += lengths[k++]) {
        int64_t number = encode(made, texts, lengths[k], most, ids + before, more + k);
        counts[k] = number;
        if (number == LIBRARY)
            continue;
        for (int64_t place = 0; place < before; ++place)
            ids[place] = around[place];
        ids += before + number;
        for (int64_t place = 0; place < after; ++place)
            *ids++ = around[before + place];
        counts[k] += before + after;
    }
}
