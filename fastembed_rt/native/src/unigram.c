/* Token ids as SentencePiece's unigram models have them (Kudo 2018, arXiv:1804.10959), to the bit as the Rust library
   computes them (models/unigram, normalizers/precompiled and pre_tokenizers/metaspace of
   github.com/huggingface/tokenizers): characters are replaced by a table, words begin at blanks, and of all ways to cut a
   word into pieces the one with the greatest sum of scores is taken. A text that has an added token in it, or characters
   of which it is not certain that they stand together, is left to the library. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pieces.h"
#include "support.h"

enum {
    MOST_BYTES = 1 << 16, /* of a word */
    FEW_BYTES = 512,      /* likewise, for which no memory is asked */
    AHEAD_PIECES = 16,
    MOST_CLUSTER = 5,     /* bytes of characters that are looked up together in the table, where they stand together */
};

enum { PLAIN, JOINS, MAYBE, CONTROL }; /* of characters: whether one belongs to what stands before it */

typedef struct {
    uint32_t hash, piece; /* number of a piece + 1; 0: none */
} Slot;

typedef struct {
    double score; /* of the best way to here */
    int32_t from; /* where its last piece begins; -1: there is no way */
    int32_t piece;
} Node;

typedef struct {
    uint8_t *bytes;        /* of all pieces, then of the added tokens */
    uint32_t *starts;      /* of each piece, and the end of the last one */
    double *scores;
    Slot *slots;           /* open addressing, at least half of it empty */
    uint64_t *begins, *is; /* a bit for the hash of each beginning of a piece, and of each piece: most lookups end here */
    uint32_t mask, bits;   /* number of slots - 1; of bits - 1 */
    int32_t unknown;
    double unknown_score; /* of a character that is no piece */
    uint32_t *units;      /* of the table of characters, a double array; NULL: there is none */
    uint32_t unit_count;
    uint8_t *written; /* what characters are replaced by, each with a 0 behind */
    int64_t written_size;
    int apart;    /* words are what is between blanks of any kind; else a word begins at each space */
    int collapse; /* of several spaces one is left */
    int strip;    /* those at the end of a text are left out */
    const uint8_t *added;   /* one after the other */
    int32_t *added_lengths, *added_ids; /* of each; -1: the library has to say what becomes of it */
    int32_t added_count;
    uint8_t begins_added[256];
} Unigram;

/* ---- pieces ---- */

static int has_bit(const uint64_t *bits, uint32_t number) {
    return bits[number >> 6] >> (number & 63) & 1;
}

/* Number of a piece, or -1. */
static int32_t found(const Unigram *u, uint32_t hash, const uint8_t *piece, uint32_t length) {
    for (uint32_t k = hash & u->mask; u->slots[k].piece; k = (k + 1) & u->mask) {
        uint32_t number = u->slots[k].piece - 1, start = u->starts[number];
        if (u->slots[k].hash == hash && u->starts[number + 1] - start == length &&
            !memcmp(u->bytes + start, piece, length))
            return (int32_t)number;
    }
    return -1;
}

/* The hash of a piece, for which the bits are set. */
static uint32_t marked(Unigram *u, uint32_t number) {
    const uint8_t *piece = u->bytes + u->starts[number];
    uint32_t length = u->starts[number + 1] - u->starts[number], hash = FIRST, bit;
    for (uint32_t k = 0, end = 0; k < length; ++k) {
        if (k == end) {
            bit = mixed(hash) & u->bits;
            u->begins[bit >> 6] |= (uint64_t)1 << (bit & 63);
            end += size_of(piece[k]);
        }
        hash = grown(hash, piece[k]);
    }
    hash = mixed(hash);
    bit = hash & u->bits;
    u->is[bit >> 6] |= (uint64_t)1 << (bit & 63);
    return hash;
}

/* Of two pieces that are the same the last one counts. */
static void put(Unigram *u, uint32_t number, uint32_t hash) {
    uint32_t start = u->starts[number], k = hash & u->mask;
    int32_t same = found(u, hash, u->bytes + start, u->starts[number + 1] - start);
    while (u->slots[k].piece && (int32_t)u->slots[k].piece - 1 != same)
        k = (k + 1) & u->mask;
    u->slots[k] = (Slot){hash, number + 1};
}

EXPORTED void fastembed_rt_unigram_free(void *made) {
    Unigram *u = made;
    if (!u)
        return;
    free(u->bytes);
    free(u->starts);
    free(u->scores);
    free(u->slots);
    free(u->begins);
    free(u->is);
    free(u->units);
    free(u->written);
    free(u->added_lengths);
    free(u->added_ids);
    free(u);
}

static void *copy_of(const void *from, size_t size) {
    void *made = malloc(size ? size : 1);
    if (made && size)
        memcpy(made, from, size);
    return made;
}

/* A vocabulary: `bytes` are its `count` pieces in UTF-8 one after the other, `scores` theirs, and `added` likewise the
   tokens that are looked for in texts first, with `added_ids`; -1: the library has to say what becomes of one. `unknown` is the number of the piece for characters that are none. `units`
   is the double array of characters to replace, and `written` what they are replaced by. `apart`, `collapse` and `strip`
   as in Unigram. Sets `fits` to 0 where pieces or table are not such that this file can work with them. NULL where there
   is no memory. */
EXPORTED void *fastembed_rt_unigram_new(const uint8_t *bytes, const int32_t *lengths, const double *scores, int64_t count,
                                        const uint8_t *added, const int32_t *added_lengths,
                                        const int32_t *added_ids, int64_t added_count, int64_t unknown,
                                        const uint32_t *units, int64_t unit_count, const uint8_t *written,
                                        int64_t written_size, int32_t apart, int32_t collapse, int32_t strip,
                                        int32_t *fits) {
    Unigram *u = calloc(1, sizeof *u);
    if (!u)
        return NULL;
    int64_t size = 0, added_size = 0;
    for (int64_t k = 0; k < count; ++k)
        size += lengths[k];
    for (int64_t k = 0; k < added_count; ++k)
        added_size += added_lengths[k];
    uint32_t slots = 64;
    while (slots < 2 * (uint64_t)count)
        slots *= 2;
    u->mask = slots - 1;
    u->bits = 16 * slots - 1;
    u->bytes = malloc(size + added_size + 1);
    u->starts = malloc((count + 1) * sizeof *u->starts);
    u->scores = copy_of(scores, count * sizeof *scores);
    u->slots = calloc(slots, sizeof *u->slots);
    u->begins = calloc(16 * slots / 64, sizeof *u->begins);
    u->is = calloc(16 * slots / 64, sizeof *u->is);
    u->units = copy_of(units, unit_count * sizeof *units);
    u->written = copy_of(written, written_size);
    u->added_lengths = copy_of(added_lengths, added_count * sizeof *added_lengths);
    u->added_ids = copy_of(added_ids, added_count * sizeof *added_ids);
    uint32_t *hashes = malloc((count ? count : 1) * sizeof *hashes);
    if (!hashes || !u->bytes || !u->starts || !u->scores || !u->slots || !u->begins || !u->is || !u->units || !u->written ||
        !u->added_lengths || !u->added_ids) {
        free(hashes);
        fastembed_rt_unigram_free(u);
        return NULL;
    }
    memcpy(u->bytes, bytes, size);
    memcpy(u->bytes + size, added, added_size);
    *fits = is_utf8(written, written_size) && unknown >= 0 && unknown < count;
    double least = 0;
    uint32_t start = 0;
    for (int64_t k = 0; k < count; start += lengths[k++]) {
        u->starts[k] = start;
        *fits &= lengths[k] > 0 && is_utf8(bytes + start, lengths[k]);
        least = !k || scores[k] < least ? scores[k] : least;
    }
    u->starts[count] = start;
    for (int64_t k = 0; k < count; ++k)
        hashes[k] = marked(u, (uint32_t)k);
    for (int64_t k = 0; k < count; ++k) {
        if (k + AHEAD_PIECES < count) /* the table is larger than the caches */
            __builtin_prefetch(u->slots + (hashes[k + AHEAD_PIECES] & u->mask), 1);
        put(u, (uint32_t)k, hashes[k]);
    }
    free(hashes);
    u->unknown = (int32_t)unknown;
    u->unknown_score = least - 10;
    *fits &= least < 10; /* else characters that are none together might be a piece that scores worse */
    u->unit_count = (uint32_t)unit_count;
    u->written_size = written_size;
    u->apart = apart, u->collapse = collapse, u->strip = strip;
    u->added = u->bytes + size;
    u->added_count = (int32_t)added_count;
    const uint8_t *token = u->added;
    int32_t next = (int32_t)count;
    for (int64_t k = 0; k < added_count; token += u->added_lengths[k++]) {
        int32_t length = added_lengths[k], known = found(u, mixed(hash_of(token, length, FIRST)), token, (uint32_t)length);
        /* the library numbers those that are not in its vocabulary */
        *fits &= length > 0 && (added_ids[k] < 0 || added_ids[k] == (known < 0 ? next : known));
        next += known < 0;
        u->begins_added[token[0]] = 1;
    }
    return u;
}

/* ---- one text ---- */

typedef struct {
    const Unigram *u;
    uint8_t *word;    /* so far */
    Node *nodes;      /* of its places */
    int32_t *pieces;  /* of a word, from the last to the first */
    int32_t length, room;
    int64_t *ids, number, most;
    int64_t spaces;   /* that have not become words yet */
    int more;         /* there are more tokens than `most` */
    int lost;         /* the text is the library's */
    void *memory;     /* of long words */
    uint8_t few_word[FEW_BYTES];
    int32_t few_pieces[FEW_BYTES];
    Node few_nodes[FEW_BYTES + 1];
} Writer;

static void begin(Writer *w, const Unigram *u) {
    w->u = u;
    w->word = w->few_word, w->nodes = w->few_nodes, w->pieces = w->few_pieces;
    w->room = FEW_BYTES;
    w->memory = NULL;
}

static int grow(Writer *w) {
    int32_t room = 4 * w->room;
    size_t nodes = (size_t)(room + 1) * sizeof *w->nodes, pieces = (size_t)room * sizeof *w->pieces;
    uint8_t *memory = w->room < MOST_BYTES ? malloc(nodes + pieces + room) : NULL;
    if (!memory)
        return 0;
    w->nodes = (Node *)memory;
    w->pieces = (int32_t *)(memory + nodes);
    memcpy(memory + nodes + pieces, w->word, w->length);
    w->word = memory + nodes + pieces;
    free(w->memory);
    w->memory = memory;
    w->room = room;
    return 1;
}

static void write_id(Writer *w, int32_t id) {
    if (w->number == w->most)
        w->more = 1;
    else
        w->ids[w->number++] = id;
}

/* The word becomes ids, and there is none. */
static void flush(Writer *w) {
    const Unigram *u = w->u;
    const uint8_t *word = w->word;
    const int32_t length = w->length;
    Node *nodes = w->nodes;
    if (!length)
        return;
    w->length = 0;
    for (int32_t k = 1; k <= length; ++k)
        nodes[k].from = -1;
    nodes[0].score = 0;
    for (int32_t start = 0, size; start < length; start += size) {
        const double here = nodes[start].score;
        uint32_t hash = FIRST;
        int single = 0;
        size = size_of(word[start]);
        for (int32_t end = start; end < length && has_bit(u->begins, mixed(hash) & u->bits);) {
            for (int32_t stop = end + size_of(word[end]); end < stop; ++end)
                hash = grown(hash, word[end]);
            uint32_t whole = mixed(hash);
            int32_t piece = has_bit(u->is, whole & u->bits) ? found(u, whole, word + start, (uint32_t)(end - start)) : -1;
            if (piece < 0)
                continue;
            double score = u->scores[piece] + here;
            if (nodes[end].from < 0 || score > nodes[end].score)
                nodes[end] = (Node){score, start, piece};
            single |= end - start == size;
        }
        if (!single) {
            double score = u->unknown_score + here;
            Node *node = nodes + start + size;
            if (node->from < 0 || score > node->score)
                *node = (Node){score, start, u->unknown};
        }
    }
    int32_t count = 0;
    for (int32_t end = length; end > 0; end = nodes[end].from)
        /* what is unknown on end is one token */
        if (nodes[end].piece != u->unknown || !count || w->pieces[count - 1] != u->unknown)
            w->pieces[count++] = nodes[end].piece;
    while (count && !w->more)
        write_id(w, w->pieces[--count]);
    /* An added token behind spaces may take them with it. */
    w->lost |= w->more && length == sizeof MARK && !memcmp(word, MARK, sizeof MARK) && !u->apart;
}

static void append(Writer *w, const uint8_t *character, int32_t size) {
    if (w->length + size > w->room && !grow(w)) {
        w->lost = 1;
        return;
    }
    for (int32_t k = 0; k < size; ++k)
        w->word[w->length + k] = character[k];
    w->length += size;
}

static void begin_word(Writer *w) {
    flush(w);
    append(w, MARK, sizeof MARK);
}

static void write_spaces(Writer *w) {
    for (w->spaces = w->u->collapse && w->spaces ? 1 : w->spaces; w->spaces && !w->more && !w->lost; --w->spaces)
        begin_word(w);
}

/* Whether Unicode calls a character a blank. */
static int is_blank(const uint8_t *c, int32_t size) {
    if (size == 1)
        return *c == ' ' || (*c >= 9 && *c <= 13);
    if (size == 2)
        return c[0] == 0xc2 && (c[1] == 0x85 || c[1] == 0xa0);
    if (size > 3)
        return 0;
    uint32_t code = (c[0] & 0x0fu) << 12 | (c[1] & 0x3fu) << 6 | (c[2] & 0x3fu);
    return code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f ||
           code == 0x205f || code == 0x3000;
}

/* One character of the text in which they are replaced. */
static void write_character(Writer *w, const uint8_t *c, int32_t size) {
    if (w->u->apart) {
        if (is_blank(c, size))
            flush(w);
        else if (size == 3 && !memcmp(c, MARK, 3))
            begin_word(w);
        else {
            if (!w->length)
                append(w, MARK, sizeof MARK);
            append(w, c, size);
        }
        return;
    }
    if (*c == ' ') {
        ++w->spaces;
        if (!w->u->strip && !w->u->collapse)
            write_spaces(w);
        return;
    }
    w->lost |= w->u->strip && is_blank(c, size); /* at the end it would be left out, too */
    write_spaces(w);
    if (size == 3 && !memcmp(c, MARK, 3)) {
        begin_word(w);
        return;
    }
    if (!w->length)
        append(w, MARK, sizeof MARK);
    append(w, c, size);
}

/* The shortest beginning of some bytes that the table of characters has, as what it is replaced by; NULL: none. */
static const uint8_t *replaced(const Unigram *u, const uint8_t *text, int32_t size) {
    uint32_t place = 0, unit;
    if (!u->unit_count)
        return NULL;
    unit = u->units[0];
    place ^= unit >> 10 << ((unit & 1 << 9) >> 6);
    for (int32_t k = 0; k < size && text[k]; ++k) {
        place ^= text[k];
        if (place >= u->unit_count)
            return NULL;
        unit = u->units[place];
        if ((unit & (1u << 31 | 0xff)) != text[k])
            return NULL;
        place ^= unit >> 10 << ((unit & 1 << 9) >> 6);
        if (unit >> 8 & 1) {
            if (place >= u->unit_count)
                return NULL;
            uint32_t value = u->units[place] & ((1u << 31) - 1);
            return value < u->written_size ? u->written + value : NULL;
        }
    }
    return NULL;
}

static void write_replaced(Writer *w, const uint8_t *text) {
    const uint8_t *end = w->u->written + w->u->written_size;
    while (text < end && *text && !w->more && !w->lost) {
        int32_t size = size_of(*text);
        write_character(w, text, size);
        text += size;
    }
}

/* Whether a character belongs to what stands before it (Unicode Standard Annex 29: Grapheme_Cluster_Break). JOINS and
   CONTROL are certain and PLAIN is, whatever version of Unicode; it is all that matters of texts whose clusters are
   longer than the table's. */
static int kind_of(uint32_t c) {
    static const struct {
        uint16_t end, kind; /* from the one before on */
    } ranges[] = {
        {0x20, CONTROL}, {0x7f, PLAIN}, {0xa0, CONTROL}, {0xad, PLAIN}, {0xae, CONTROL}, {0x300, PLAIN},
        {0x370, JOINS}, {0x483, PLAIN}, {0x48a, JOINS}, {0x590, PLAIN}, {0x591, MAYBE}, {0x5be, JOINS},
        {0x5bf, PLAIN}, {0x5c0, JOINS}, {0x5c1, PLAIN}, {0x5c3, JOINS}, {0x5c4, PLAIN}, {0x5c6, JOINS},
        {0x5c7, PLAIN}, {0x5c8, JOINS}, {0x600, PLAIN}, {0x606, MAYBE}, {0x610, PLAIN}, {0x61b, JOINS},
        {0x61c, PLAIN}, {0x61d, MAYBE}, {0x64b, PLAIN}, {0x660, JOINS}, {0x670, PLAIN}, {0x671, JOINS},
        {0x6d6, PLAIN}, {0x6dd, JOINS}, {0x6de, MAYBE}, {0x6df, PLAIN}, {0x6e5, JOINS}, {0x6e7, PLAIN},
        {0x6e9, JOINS}, {0x6ea, PLAIN}, {0x6ee, JOINS}, {0x700, PLAIN}, {0x904, MAYBE}, {0x93a, PLAIN},
        {0x985, MAYBE}, {0x9ba, PLAIN}, {0xa05, MAYBE}, {0xa3a, PLAIN}, {0xa85, MAYBE}, {0xaba, PLAIN},
        {0xb05, MAYBE}, {0xb3a, PLAIN}, {0xb85, MAYBE}, {0xbba, PLAIN}, {0xc05, MAYBE}, {0xc3a, PLAIN},
        {0xc85, MAYBE}, {0xcba, PLAIN}, {0xd05, MAYBE}, {0xd3a, PLAIN}, {0xe01, MAYBE}, {0xe31, PLAIN},
        {0xe40, MAYBE}, {0xe47, PLAIN}, {0xe81, MAYBE}, {0xeb1, PLAIN}, {0x1000, MAYBE}, {0x102b, PLAIN},
        {0x10a0, MAYBE}, {0x1100, PLAIN}, {0x1200, MAYBE}, {0x135b, PLAIN}, {0x1780, MAYBE}, {0x17b4, PLAIN},
        {0x1e00, MAYBE}, {0x200b, PLAIN}, {0x200c, CONTROL}, {0x200e, JOINS}, {0x2010, CONTROL}, {0x2028, PLAIN},
        {0x202f, CONTROL}, {0x2060, PLAIN}, {0x2070, MAYBE}, {0x20d0, PLAIN}, {0x2100, MAYBE}, {0x2c00, PLAIN},
        {0x2e00, MAYBE}, {0x302a, PLAIN}, {0x3030, MAYBE}, {0x3099, PLAIN}, {0x309b, JOINS}, {0xa000, PLAIN},
        {0xac00, MAYBE}, {0xd7a4, PLAIN}, {0xf900, MAYBE}, {0xfb00, PLAIN}, {0xfe00, MAYBE}, {0xfe10, JOINS},
        {0xfeff, MAYBE}, {0xff00, CONTROL}, {0xff9e, PLAIN}, {0xffff, MAYBE},
    };
    uint32_t low = 0, high = sizeof ranges / sizeof *ranges - 1;
    if (c >= ranges[high].end) /* pictures but for colours of skin, which join; Chinese characters */
        return (c >= 0x1f000 && c < 0x1fb00 && (c < 0x1f3fb || c >= 0x1f400)) || (c >= 0x20000 && c < 0x40000) ? PLAIN : MAYBE;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (c < ranges[middle].end)
            high = middle;
        else
            low = middle + 1;
    }
    return ranges[low].kind;
}

/* Whether what stands behind a character belongs to it, or may. */
static int prepends(uint32_t c) {
    return (c >= 0x600 && c < 0x606) || c == 0x6dd || c == 0x70f || c == 0x890 || c == 0x891 || c == 0x8e2 || c == 0xd4e ||
           (c >= 0x11000 && c < 0x12000);
}

/* Number of the longest added token that stands here, or -1. */
static int32_t added_at(const Unigram *u, const uint8_t *text, int64_t left) {
    const uint8_t *token = u->added;
    int32_t best = -1;
    for (int32_t k = 0; k < u->added_count; token += u->added_lengths[k++])
        if (u->added_lengths[k] <= left && (best < 0 || u->added_lengths[k] > u->added_lengths[best]) &&
            !memcmp(token, text, u->added_lengths[k]))
            best = k;
    return best;
}

/* At the end of a text, or of the part of it before an added token. */
static void end_part(Writer *w) {
    if (!w->u->strip)
        write_spaces(w);
    w->spaces = 0;
    if (!w->more && !w->lost)
        flush(w);
    w->length = 0;
}

/* Of a character `c` of `size` bytes and what stands behind it, which may belong to it: how many bytes are looked up in
   the table together. -1: it is not certain, and it matters. */
static int32_t together(const Unigram *u, const uint8_t *text, int64_t left, uint32_t c, int32_t size, uint32_t before) {
    int32_t next = size_of(text[size]), kind = kind_of(c), behind = kind_of(code_of(text + size, next));
    if (size + next > MOST_CLUSTER || behind == CONTROL || (behind == PLAIN && !prepends(c)))
        return size;
    if (kind == CONTROL)
        return size;
    int certain = kind == PLAIN && behind == JOINS, earlier = kind_of(before);
    if (size > 2)
        certain &= earlier == PLAIN || earlier == CONTROL;
    else
        certain &= !prepends(before) && before != 0x200d;
    int32_t total = size;
    for (; total < left && total <= MOST_CLUSTER; total += next) {
        next = size_of(text[total]);
        behind = kind_of(code_of(text + total, next));
        if (behind != JOINS) {
            certain &= behind != MAYBE;
            break;
        }
    }
    if (certain)
        return total > MOST_CLUSTER ? size : total;
    /* in the midst of a long cluster, or alone: what the two are in the table may be the same */
    return replaced(u, text, (int32_t)(left < MOST_CLUSTER ? left : MOST_CLUSTER)) ? -1 : size;
}

/* Ids of a text, the first `most` of them; their number, or LIBRARY. `*more`: there were others. */
static int64_t encode(Writer *w, const uint8_t *text, int64_t length, int64_t most, int64_t *ids, int64_t *more) {
    const Unigram *u = w->u;
    const int64_t room = 2 * length + 16; /* as Python has it */
    uint32_t before = '\n';
    w->length = 0, w->number = 0, w->spaces = 0, w->more = 0, w->lost = 0;
    w->ids = ids;
    w->most = most < room ? most : room;
    for (int64_t k = 0; k < length && !w->more && !w->lost;) {
        const uint8_t *at = text + k;
        int32_t size = size_of(*at);
        int64_t left = length - k;
        int32_t added = u->begins_added[*at] ? added_at(u, at, left) : -1;
        if (added >= 0) {
            if (u->added_ids[added] < 0)
                return LIBRARY;
            end_part(w);
            if (!w->more && !w->lost)
                write_id(w, u->added_ids[added]);
            before = '\n';
            k += u->added_lengths[added];
            continue;
        }
        uint32_t c = code_of(at, size);
        int32_t cluster = size;
        if (left > size && (at[size] >= 0x80 || prepends(c)) && u->unit_count)
            cluster = together(u, at, left, c, size, before);
        else if (c == '\r' && left > 1 && at[1] == '\n')
            cluster = 2;
        if (cluster < 0)
            return LIBRARY;
        const uint8_t *written = replaced(u, at, cluster);
        if (written)
            write_replaced(w, written);
        else
            write_character(w, at, size), cluster = size;
        before = code_of(at, size);
        if (cluster > size) {
            int32_t last = size;
            while (last + size_of(at[last]) < cluster)
                last += size_of(at[last]);
            before = code_of(at + last, size_of(at[last]));
        }
        k += cluster;
    }
    if (!w->more && !w->lost)
        end_part(w);
    if (w->lost || (w->more && most > room))
        return LIBRARY;
    *more = w->more;
    return w->number;
}

/* Rows of `n` texts in UTF-8, as fastembed_rt_wordpiece_rows. A text has at most two tokens a byte and 16 more, or is the
   library's. */
EXPORTED void fastembed_rt_unigram_rows(const void *made, const uint8_t *texts, int64_t n, int64_t most,
                                        const int64_t *around, int64_t before, int64_t after, int64_t *memory) {
    const int64_t *lengths = memory;
    int64_t *counts = memory + n, *more = counts + n, *ids = more + n;
    Writer writer;
    begin(&writer, made);
    for (int64_t k = 0; k < n; texts += lengths[k++]) {
        more[k] = 0;
        int64_t number = encode(&writer, texts, lengths[k], most, ids + before, more + k);
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
    free(writer.memory);
}
