/* Token ids as BERT's tokenizers have them: words apart at blanks and punctuation, in lower case and without accents
   where the model has no other, each cut into the longest pieces of the vocabulary (Devlin et al. 2018,
   arXiv:1810.04805; wordpiece of github.com/google-research/bert). For characters that a table knows, each of which is
   one character whatever stands beside it; a text with any other one is left to the Rust library. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pieces.h"
#include "support.h"

enum {
    KNOWN = 0x3100, /* characters in the table, from 0 on */
    MOST_CHARACTERS = 1000, /* of a word that is cut into pieces */
    MOST_BYTES = 3 * MOST_CHARACTERS,
    NEXT = 0x2545f491, /* where hashes of pieces begin that continue a word */
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
    const uint8_t *added;   /* one after the other */
    int32_t *added_lengths; /* of each */
    int32_t added_count;
    int han; /* kind of Chinese characters, which stand alone where the model says so */
    int hangul;
    uint8_t kinds[KNOWN];
    uint16_t folded[KNOWN]; /* what each is in a word */
    uint8_t begins_added[256];
} Wordpiece;

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

/* What a piece is without the mark of those that continue a word, which stands alone or in front; its seed. */
static uint32_t unmarked(const uint8_t **piece, int32_t *length) {
    if (*length < 3 || (*piece)[0] != '#' || (*piece)[1] != '#')
        return FIRST;
    *piece += 2, *length -= 2;
    return NEXT;
}

/* A piece as it is in the vocabulary; of two that are the same the last one counts, as in JSON. */
static void put(Wordpiece *w, uint32_t offset, int32_t length, int32_t id) {
    const uint8_t *piece = w->bytes + offset;
    uint32_t seed = unmarked(&piece, &length), hash = mixed(hash_of(piece, length, seed)), k = hash & w->mask;
    if (!length)
        return;
    while (w->slots[k].length) {
        const Slot *slot = w->slots + k;
        if (slot->hash == hash && slot->length == length && !memcmp(w->bytes + slot->offset, piece, length))
            break;
        k = (k + 1) & w->mask;
    }
    w->slots[k] = (Slot){hash, (uint32_t)(piece - w->bytes), length, id};
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

/* A vocabulary: `bytes` are its `count` pieces in UTF-8 one after the other, and `added` likewise the tokens that are
   looked for in texts first; `unknown` stands for words that it does not have, and `unknown_id` becomes its id, -1 where
   it is not among the pieces. `kinds` and `folded` are of KNOWN characters, `han` and `hangul` kinds of those. NULL where there is no memory. */
EXPORTED void *fastembed_rt_wordpiece_new(const uint8_t *bytes, const int32_t *lengths, const int32_t *ids, int64_t count,
                                          const uint8_t *added, const int32_t *added_lengths, int64_t added_count,
                                          const uint8_t *unknown, int32_t unknown_length, int32_t *unknown_id,
                                          int32_t most, const uint8_t *kinds, const uint16_t *folded, int32_t han,
                                          int32_t hangul) {
    Wordpiece *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    int64_t size = 0, added_size = 0;
    for (int64_t k = 0; k < count; ++k)
        size += lengths[k];
    for (int64_t k = 0; k < added_count; ++k)
        added_size += added_lengths[k];
    uint32_t slots = 16;
    while (slots < 2 * (uint64_t)count)
        slots *= 2;
    w->bytes = malloc(size + added_size + 1);
    w->slots = calloc(slots, sizeof *w->slots);
    w->added_lengths = malloc((added_count ? added_count : 1) * sizeof *w->added_lengths);
    if (!w->bytes || !w->slots || !w->added_lengths) {
        fastembed_rt_wordpiece_free(w);
        return NULL;
    }
    memcpy(w->bytes, bytes, size);
    memcpy(w->bytes + size, added, added_size);
    w->mask = slots - 1;
    w->most = most < MOST_CHARACTERS ? most : MOST_CHARACTERS;
    memcpy(w->kinds, kinds, sizeof w->kinds);
    memcpy(w->folded, folded, sizeof w->folded);
    w->han = han, w->hangul = hangul;
    uint32_t offset = 0;
    for (int64_t k = 0; k < count; offset += lengths[k++])
        put(w, offset, lengths[k], ids[k]);
    uint32_t seed = unmarked(&unknown, &unknown_length);
    *unknown_id = w->unknown = found(w, hash_of(unknown, unknown_length, seed), unknown, unknown_length);
    w->added = w->bytes + size;
    w->added_count = (int32_t)added_count;
    const uint8_t *token = w->added;
    for (int64_t k = 0; k < added_count; token += w->added_lengths[k++]) {
        w->added_lengths[k] = added_lengths[k];
        w->begins_added[token[0]] = 1;
    }
    return w;
}

/* Whether an added token stands here, in capitals or not, or might if accents were left out: the library says then what
   becomes of the text. */
static int is_added(const Wordpiece *w, const uint8_t *text, int64_t left) {
    const uint8_t *token = w->added;
    for (int32_t k = 0; k < w->added_count; token += w->added_lengths[k++]) {
        int32_t length = w->added_lengths[k], same = 0;
        while (same < length && same < left && lowered(token[same]) == lowered(text[same]))
            ++same;
        /* Chinese, Japanese and Korean characters become no other ones */
        if (same == length || (same < left && text[same] >= 0x80 && text[same] < 0xe3))
            return 1;
    }
    return 0;
}

/* The character at the beginning of `left` bytes, its kind, and how many bytes are its own. */
static uint32_t character(const Wordpiece *w, const uint8_t *text, int64_t left, uint8_t *kind, int64_t *size) {
    *size = size_of(text[0]);
    *kind = OTHER;
    if (*size > left || *size > 3)
        return 0;
    uint32_t c = code_of(text, (int32_t)*size);
    if (c < KNOWN)
        *kind = w->kinds[c];
    else if ((c >= 0x4e00 && c < 0x9fa6) || (c >= 0x3400 && c < 0x4db6))
        *kind = (uint8_t)w->han;
    else if (c >= 0xac00 && c < 0xd7a4)
        *kind = (uint8_t)w->hangul;
    else if ((c >= 0xff01 && c < 0xff10) || c == 0xff1a || c == 0xff1b || c == 0xff1f) /* ！ to ／, ：, ； and ？ */
        *kind = c == 0xff04 || c == 0xff0b ? LETTER : PUNCTUATION;
    return c;
}

/* Its bytes, at most 3; their number. */
static int32_t write_character(uint32_t c, uint8_t *out) {
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    out[0] = (uint8_t)(0xe0 | c >> 12);
    out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c & 0x3f));
    return 3;
}

/* Pieces of a word, at most as many as it has bytes; their number. */
static int32_t cut(const Wordpiece *w, const uint8_t *word, int32_t length, int32_t *pieces) {
    uint32_t hashes[MOST_BYTES + 1];
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
static int64_t encode(const Wordpiece *w, const uint8_t *text, int64_t length, int64_t most, int64_t *ids, int64_t *more) {
    uint8_t word[MOST_BYTES];
    int32_t pieces[MOST_BYTES];
    int64_t number = 0, size;
    *more = 0;
    for (int64_t k = 0; k < length;) {
        uint8_t kind;
        uint32_t c = character(w, text + k, length - k, &kind, &size);
        if (kind == BLANK) {
            k += size;
            continue;
        }
        if (kind == OTHER || (w->begins_added[text[k]] && is_added(w, text + k, length - k)))
            return LIBRARY;
        int32_t bytes = 0, characters = 0;
        do { /* a sign of punctuation is a word */
            if (++characters <= w->most)
                bytes += write_character(c < KNOWN ? w->folded[c] : c, word + bytes);
            k += size;
            if (k == length || kind == PUNCTUATION)
                break;
            c = character(w, text + k, length - k, &kind, &size);
        } while (kind == LETTER);
        if (kind == OTHER) /* what is left out of a text joins what is around it */
            return LIBRARY;
        int32_t count = 1;
        if (characters > w->most)
            pieces[0] = w->unknown;
        else
            count = cut(w, word, bytes, pieces);
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

/* Rows of `n` texts in UTF-8, which stand one after the other: the ids of `around`, `before` of them in front and `after`
   behind, and between them at most `most` of the text. `memory` has, n numbers each, the lengths of the texts in bytes
   and room for those of their rows, -1 for a text that is the library's, and for whether a text was cut; behind them is
   room for the rows, one after the other. */
EXPORTED void fastembed_rt_wordpiece_rows(const void *made, const uint8_t *texts, int64_t n, int64_t most,
                                          const int64_t *around, int64_t before, int64_t after, int64_t *memory) {
    const int64_t *lengths = memory;
    int64_t *counts = memory + n, *more = counts + n, *ids = more + n;
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
