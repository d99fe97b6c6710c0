/* Where words end, as the regular expressions of byte-level tokenizers find them. */
#ifndef FASTEMBED_RT_WORDS_H
#define FASTEMBED_RT_WORDS_H

#include <string.h>

#include "pieces.h"

enum { KNOWN = 0x3000 /* characters in the table, from 0 on */, NONE = -1 };

/* Of characters. UPPER and LOWER are letters that have a case, with TEKKEN alone: to the others they are LETTER. */
enum { LETTER, NUMBER, SPACE, OTHER, UNCERTAIN, UPPER, LOWER };

/* What is a word. */
enum {
    MARKED,  /* a mark for each space, which words begin with */
    GPT2,    /* '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
    DIGITS1, /* (?i:...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
    DIGITS3, /* likewise with \p{N}{1,3} */
    TEKKEN,  /* [^\r\n\p{L}\p{N}]?U*L+|[^\r\n\p{L}\p{N}]?U+L*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
                where U are letters but for lower case, and marks; L those but for upper case, and marks */
};

typedef struct {
    int32_t what; /* is a word */
    uint8_t kinds[KNOWN];
} Words;

/* What a character is, with its size; at the end SPACE, as (?!\S) has it. */
static int kind_at(const Words *w, const uint8_t *text, int64_t left, int32_t *size) {
    *size = 0;
    if (!left)
        return SPACE;
    *size = size_of(*text);
    uint32_t c = code_of(text, *size);
    if (c < KNOWN)
        return w->kinds[c];
    if (w->what == TEKKEN && ((c >= 0xff21 && c < 0xff3b) || (c >= 0xff41 && c < 0xff5b)))
        return c < 0xff3b ? UPPER : LOWER;
    if (w->what == TEKKEN && c >= 0xfe00 && c < 0xfe10) /* marks */
        return UNCERTAIN;
    if ((c >= 0x3041 && c < 0x3097) || (c >= 0x30a1 && c < 0x30fb) || (c >= 0x3400 && c < 0x4db6) ||
        (c >= 0x4e00 && c < 0x9fa6) || (c >= 0xac00 && c < 0xd7a4) || (c >= 0xff21 && c < 0xff3b) ||
        (c >= 0xff41 && c < 0xff5b) || (c >= 0xff66 && c < 0xffa0) || (c >= 0x20000 && c < 0x2a6d7))
        return LETTER;
    if (c >= 0xff10 && c < 0xff1a)
        return NUMBER;
    if (c == 0x3000)
        return SPACE;
    /* punctuation, signs, pictures, and what chooses how they are drawn */
    if ((c >= 0x3001 && c < 0x3004) || (c >= 0x3008 && c < 0x3021) || (c >= 0xfe00 && c < 0xfe10) ||
        (c >= 0xff01 && c < 0xff10) || (c >= 0xff1a && c < 0xff21) || (c >= 0xff3b && c < 0xff41) ||
        (c >= 0xff5b && c < 0xff66) || (c >= 0x1f300 && c < 0x1fa00))
        return OTHER;
    return UNCERTAIN;
}

/* Where a run of characters of one kind ends that begins at `k`, at most `most` of them; NONE: that is not certain. */
static int64_t run(const Words *w, const uint8_t *text, int64_t length, int64_t k, int kind, int most) {
    for (int32_t size; k < length && most--; k += size) {
        int found = kind_at(w, text + k, length - k, &size);
        if (found == UNCERTAIN)
            return NONE;
        if (found != kind)
            break;
    }
    return k;
}

static int is_letter(int kind) {
    return kind == LETTER || kind == UPPER || kind == LOWER;
}

/* Where a word of letters ends that begins with the one at `k`; NONE: not certain. */
static int64_t letters_end(const Words *w, const uint8_t *text, int64_t length, int64_t k) {
    if (w->what != TEKKEN)
        return run(w, text, length, k, LETTER, 1 << 30);
    int64_t uncased = NONE; /* behind the last letter that has no case: with it the word ends if none of lower case follows */
    int lower = 0;
    for (int32_t size; k < length; k += size) {
        int kind = kind_at(w, text + k, length - k, &size);
        if (kind == UNCERTAIN)
            return NONE;
        lower |= kind == LOWER;
        if (!is_letter(kind) || (lower && kind == UPPER))
            break;
        if (kind == LETTER)
            uncased = k + size;
    }
    return lower || uncased == NONE ? k : uncased;
}

/* Length of the part of an English word behind an apostrophe: 's, 't, 'm, 'd, 're, 've, 'll; 0: none. */
static int32_t shortened(const uint8_t *text, int64_t left, int any_case) {
    if (left < 2 || *text != '\'')
        return 0;
    uint8_t first = text[1] | (any_case ? 0x20 : 0), second = left > 2 ? text[2] | (any_case ? 0x20 : 0) : 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd')
        return 2;
    return (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l') ? 3 : 0;
}

static int is_line_end(uint8_t c) {
    return c == '\r' || c == '\n';
}

/* Where the word ends that begins at `k`, each alternative of the regular expressions in turn; NONE: not certain. */
static int64_t word_end(const Words *w, const uint8_t *text, int64_t length, int64_t k) {
    const int plain = w->what == GPT2, tekken = w->what == TEKKEN, many = 1 << 30;
    const int64_t left = length - k;
    int32_t size, behind, part = tekken ? 0 : shortened(text + k, left, !plain);
    if (part)
        return k + part;
    if (!plain && !tekken && left > 2 && !memcmp(text + k, "'\xc5\xbf", 3)) /* a long s, which is one in any case */
        return NONE;
    int kind = kind_at(w, text + k, left, &size), next = kind_at(w, text + k + size, left - size, &behind);
    const int64_t after = k + size;
    if (kind == UNCERTAIN || next == UNCERTAIN)
        return NONE;
    if (is_letter(kind))
        return letters_end(w, text, length, k);
    if (after < length && is_letter(next) && (plain ? text[k] == ' ' : kind != NUMBER && !is_line_end(text[k])))
        return letters_end(w, text, length, after);
    if (kind == NUMBER)
        return run(w, text, length, k, NUMBER, plain ? many : w->what == DIGITS3 ? 3 : 1);
    if (plain && text[k] == ' ' && after < length && next == NUMBER)
        return run(w, text, length, after, NUMBER, many);
    if (kind == OTHER || (text[k] == ' ' && after < length && next == OTHER)) {
        int64_t end = run(w, text, length, kind == OTHER ? k : after, OTHER, many);
        while (!plain && end != NONE && end < length && (is_line_end(text[end]) || (tekken && text[end] == '/')))
            ++end;
        return end;
    }
    /* blanks: up to the last end of a line, else all but the last where something stands behind them */
    int64_t end = run(w, text, length, k, SPACE, many), line = NONE, last = k;
    for (int64_t place = k; place < end; place += size_of(text[place])) {
        last = place;
        if (is_line_end(text[place]))
            line = place + 1;
    }
    if (!plain && end != NONE && line != NONE)
        return line;
    return end != NONE && end < length && last > k ? last : end;
}

#endif
