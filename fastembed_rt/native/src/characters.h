/* sentencepiece's table of characters (normalizers/precompiled of github.com/huggingface/tokenizers), and which characters
   are looked up in it together: those that stand together, as Unicode Standard Annex 29 has it. */
#ifndef FASTEMBED_RT_CHARACTERS_H
#define FASTEMBED_RT_CHARACTERS_H

#include "pieces.h"

enum { MOST_CLUSTER = 5 /* bytes of characters that are looked up together, where they stand together */ };

enum { PLAIN, JOINS, MAYBE, CONTROL }; /* of characters: whether one belongs to what stands before it */

typedef struct {
    uint32_t *units; /* a double array */
    uint32_t unit_count; /* 0: nothing is replaced */
    uint8_t *written; /* what characters are replaced by, each with a 0 behind */
    int64_t written_size;
} Table;

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

/* The shortest beginning of some bytes that the table of characters has, as what it is replaced by; NULL: none. */
static const uint8_t *replaced(const Table *t, const uint8_t *text, int32_t size) {
    uint32_t place = 0, unit;
    if (!t->unit_count)
        return NULL;
    unit = t->units[0];
    place ^= unit >> 10 << ((unit & 1 << 9) >> 6);
    for (int32_t k = 0; k < size && text[k]; ++k) {
        place ^= text[k];
        if (place >= t->unit_count)
            return NULL;
        unit = t->units[place];
        if ((unit & (1u << 31 | 0xff)) != text[k])
            return NULL;
        place ^= unit >> 10 << ((unit & 1 << 9) >> 6);
        if (unit >> 8 & 1) {
            if (place >= t->unit_count)
                return NULL;
            uint32_t value = t->units[place] & ((1u << 31) - 1);
            return value < t->written_size ? t->written + value : NULL;
        }
    }
    return NULL;
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

/* Of a character `c` of `size` bytes and what stands behind it, which may belong to it: how many bytes are looked up in
   the table together. -1: it is not certain, and it matters. */
static int32_t together(const Table *t, const uint8_t *text, int64_t left, uint32_t c, int32_t size, uint32_t before) {
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
    return replaced(t, text, (int32_t)(left < MOST_CLUSTER ? left : MOST_CLUSTER)) ? -1 : size;
}

#endif
