/* Characters as ALBERT's tokenizers and XLNet's have them before anything else: two quotation marks as one sign, letters
   decomposed (NFKD), without marks, and in lower case where the model has no other. Marks are all that the order of a
   decomposed text hangs on, so that each character is folded by itself. */
#ifndef FASTEMBED_RT_FOLDING_H
#define FASTEMBED_RT_FOLDING_H

#include <string.h>

#include "pieces.h"

enum {
    FOLDED = 0x3100, /* characters in the table, from 0 on, as in Python */
    MOST_FOLDED = 32, /* bytes that one becomes, likewise */
    UNCERTAIN = 0xff, /* in the table: instead of what a character becomes */
};

typedef struct {
    int quotes;       /* `` and '' are " */
    uint32_t *starts; /* of what each character becomes, and the end of the last one; NULL: all stay as they are */
    uint8_t *bytes;   /* of all */
} Folding;

/* Hangul's parts, by Unicode's arithmetic (section 3.12). */
static int32_t hangul_folded(uint32_t c, uint8_t *out) {
    uint32_t syllable = c - 0xac00, last = syllable % 28;
    uint32_t parts[3] = {0x1100 + syllable / (21 * 28), 0x1161 + syllable / 28 % 21, 0x11a7 + last};
    int32_t number = last ? 3 : 2;
    for (int32_t k = 0; k < number; ++k, out += 3) {
        out[0] = (uint8_t)(0xe0 | parts[k] >> 12);
        out[1] = (uint8_t)(0x80 | (parts[k] >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (parts[k] & 0x3f));
    }
    return 3 * number;
}

/* Whether a character beyond the table stays as it is: Chinese ones, and pictures. */
static int folds_to_itself(uint32_t c) {
    return (c >= 0x3400 && c < 0x4db6) || (c >= 0x4e00 && c < 0x9fa6) || (c >= 0x20000 && c < 0x2a6d7) ||
           (c >= 0x1f300 && c < 0x1f650) || (c >= 0x1f680 && c < 0x1f700) || (c >= 0x1f900 && c < 0x1fa00);
}

/* What the character at `at` becomes, at most MOST_FOLDED bytes at `out`; their number, or -1 where it is not certain.
   `*size`: bytes of the text that this was. */
static int32_t fold(const Folding *f, const uint8_t *at, int64_t left, uint8_t *out, int32_t *size) {
    uint32_t c = *at;
    *size = 1;
    if (f->quotes && (c == '`' || c == '\'') && left > 1 && at[1] == c) {
        *size = 2;
        *out = '"';
        return 1;
    }
    if (c >= 0x80)
        c = code_of(at, *size = size_of(*at));
    if (f->starts && c >= 0xff01 && c < 0xff5f) /* as wide as Chinese ones */
        c -= 0xfee0;
    else if (f->starts && c >= 0xac00 && c < 0xd7a4)
        return hangul_folded(c, out);
    else if (f->starts && c >= 0xfe00 && c < 0xfe10) /* they choose pictures, and are marks */
        return 0;
    else if (!f->starts || c >= FOLDED) {
        memcpy(out, at, *size);
        return !f->starts || folds_to_itself(c) ? *size : -1;
    }
    const uint8_t *from = f->bytes + f->starts[c];
    int32_t length = (int32_t)(f->starts[c + 1] - f->starts[c]);
    if (length && *from == UNCERTAIN)
        return -1;
    for (int32_t k = 0; k < length; ++k)
        out[k] = from[k];
    return length;
}

#endif
