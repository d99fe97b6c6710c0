/* The vocabulary of a tokenizer.json: Python's json and lists of its pieces were most of the time in which a tokenizer
   is read. */
#include <stdint.h>
#include <string.h>

#include "support.h"

/* The JSON that is left to read. Every step returns 0 where it is not what it has to be. */
typedef struct {
    const uint8_t *at, *end;
} Json;

static void blanks(Json *json) {
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r'))
        ++json->at;
}

static int is_next(Json *json, uint8_t character) {
    blanks(json);
    if (json->at == json->end || *json->at != character)
        return 0;
    ++json->at;
    return 1;
}

static int four_digits(Json *json, uint32_t *value) {
    if (json->end - json->at < 4)
        return 0;
    *value = 0;
    for (int k = 0; k < 4; ++k) {
        uint8_t c = *json->at++, low = c | 0x20;
        if (c >= '0' && c <= '9')
            *value = *value << 4 | (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f')
            *value = *value << 4 | (uint32_t)(low - 'a' + 10);
        else
            return 0;
    }
    return 1;
}

/* Behind a backslash and u: the character, of two of them where it has no code of four digits. */
static int escaped(Json *json, uint8_t **out) {
    uint32_t c, low;
    if (!four_digits(json, &c))
        return 0;
    if (c >= 0xd800 && c < 0xe000) {
        if (c >= 0xdc00 || json->end - json->at < 2 || json->at[0] != '\\' || json->at[1] != 'u')
            return 0;
        json->at += 2;
        if (!four_digits(json, &low) || low < 0xdc00 || low >= 0xe000)
            return 0;
        c = 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
    }
    if (c >= 0x10000)
        *(*out)++ = (uint8_t)(0xf0 | c >> 18), *(*out)++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    else if (c >= 0x800)
        *(*out)++ = (uint8_t)(0xe0 | c >> 12);
    if (c >= 0x800)
        *(*out)++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    else if (c >= 0x80)
        *(*out)++ = (uint8_t)(0xc0 | c >> 6);
    *(*out)++ = (uint8_t)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
    return 1;
}

static int string(Json *json, uint8_t **out) {
    static const char marks[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (!is_next(json, '"'))
        return 0;
    while (json->at < json->end) {
        uint8_t c = *json->at++;
        if (c == '"')
            return 1;
        if (c < 0x20)
            return 0;
        if (c != '\\') {
            *(*out)++ = c;
            continue;
        }
        if (json->at == json->end)
            return 0;
        c = *json->at++;
        const char *mark = c ? strchr(marks, c) : NULL;
        if (mark)
            *(*out)++ = (uint8_t)meant[mark - marks];
        else if (c != 'u' || !escaped(json, out))
            return 0;
    }
    return 0;
}

/* A whole number of at most nine digits. */
static int whole(Json *json, int32_t *value) {
    blanks(json);
    const uint8_t *begin = json->at;
    for (*value = 0; json->at < json->end && *json->at >= '0' && *json->at <= '9'; ++json->at) {
        if (json->at - begin == 9)
            return 0;
        *value = 10 * *value + (*json->at - '0');
    }
    return json->at > begin && (*begin != '0' || json->at == begin + 1);
}

static int is_digit(const Json *json) {
    return json->at < json->end && *json->at >= '0' && *json->at <= '9';
}

static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13,
                              1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27,
                              1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40};

enum { MOST_TENS = sizeof TENS / sizeof *TENS - 1 };

/* A number as the Rust library reads it (serde_json without float_roundtrip): its digits as one whole number, rounded,
   times or over a power of ten, rounded again; what does not go into 64 bits is left out. This is at times one bit beside
   the nearest number, and which of two ways through a word scores better may hang on that bit. */
static int decimal(Json *json, double *value) {
    blanks(json);
    int negative = json->at < json->end && *json->at == '-', places = 0, exponent = 0, full = 0;
    json->at += negative;
    const uint8_t *begin = json->at;
    uint64_t digits = 0;
    for (; is_digit(json); ++json->at) {
        if (json->at - begin == 18)
            return 0;
        digits = 10 * digits + (uint64_t)(*json->at - '0');
    }
    if (json->at == begin || (*begin == '0' && json->at > begin + 1))
        return 0;
    if (json->at < json->end && *json->at == '.') {
        begin = ++json->at;
        for (; is_digit(json); ++json->at) {
            uint64_t digit = (uint64_t)(*json->at - '0');
            full |= digits >= UINT64_MAX / 10 && (digits > UINT64_MAX / 10 || digit > UINT64_MAX % 10);
            if (!full)
                digits = 10 * digits + digit, ++places;
        }
        if (json->at == begin)
            return 0;
    }
    if (json->at < json->end && (*json->at | 0x20) == 'e') {
        ++json->at;
        int down = json->at < json->end && *json->at == '-';
        json->at += json->at < json->end && (*json->at == '-' || *json->at == '+');
        begin = json->at;
        for (; is_digit(json); ++json->at) {
            if (json->at - begin == 3)
                return 0;
            exponent = 10 * exponent + (*json->at - '0');
        }
        if (json->at == begin)
            return 0;
        exponent = down ? -exponent : exponent;
    }
    exponent -= places;
    if (exponent > MOST_TENS || -exponent > MOST_TENS)
        return 0;
    *value = exponent < 0 ? (double)digits / TENS[-exponent] : (double)digits * TENS[exponent];
    *value = negative ? -*value : *value;
    return 1;
}

/* The vocabulary of a tokenizer.json. `text` begins with the object of pieces and ids. Fills `bytes` with the pieces one
   after the other (room for `size`), `lengths` and `ids` (for a fifth of that and one). Returns their number and sets
   `used` to the object's own size; -1 where it is anything but strings and whole numbers. That the bytes are UTF-8 is not
   looked at. */
EXPORTED int64_t fastembed_rt_vocabulary_words(const uint8_t *text, int64_t size, uint8_t *bytes, int32_t *lengths,
                                               int32_t *ids, int64_t *used) {
    Json json = {text, text + size};
    int64_t count = 0;
    if (!is_next(&json, '{'))
        return -1;
    if (!is_next(&json, '}'))
        for (;;) {
            uint8_t *begin = bytes;
            if (!string(&json, &bytes) || !is_next(&json, ':') || !whole(&json, ids + count))
                return -1;
            lengths[count++] = (int32_t)(bytes - begin);
            if (is_next(&json, '}'))
                break;
            if (!is_next(&json, ','))
                return -1;
        }
    *used = json.at - text;
    return count;
}

/* Likewise where each piece has a score instead of an id, which is its place: `text` begins with an array of arrays of
   the two, and room is wanted for a sixth of `size` and one. */
EXPORTED int64_t fastembed_rt_vocabulary_scored(const uint8_t *text, int64_t size, uint8_t *bytes, int32_t *lengths,
                                                double *scores, int64_t *used) {
    Json json = {text, text + size};
    int64_t count = 0;
    if (!is_next(&json, '['))
        return -1;
    if (!is_next(&json, ']'))
        for (;;) {
            uint8_t *begin = bytes;
            if (!is_next(&json, '[') || !string(&json, &bytes) || !is_next(&json, ',') ||
                !decimal(&json, scores + count) || !is_next(&json, ']'))
                return -1;
            lengths[count++] = (int32_t)(bytes - begin);
            if (is_next(&json, ']'))
                break;
            if (!is_next(&json, ','))
                return -1;
        }
    *used = json.at - text;
    return count;
}

/* Merges of a byte-pair encoding: `text` begins with an array of pairs of pieces, in arrays or in strings with a space
   between them. Fills `bytes` with the pieces one after the other, and `lengths` with theirs (room for two thirds of
   `size` and two). Returns the number of pairs. */
EXPORTED int64_t fastembed_rt_vocabulary_merges(const uint8_t *text, int64_t size, uint8_t *bytes, int32_t *lengths,
                                                int64_t *used) {
    Json json = {text, text + size};
    int64_t count = 0;
    if (!is_next(&json, '['))
        return -1;
    if (!is_next(&json, ']'))
        for (;; ++count) {
            uint8_t *begin = bytes, *space;
            if (is_next(&json, '[')) {
                if (!string(&json, &bytes))
                    return -1;
                lengths[2 * count] = (int32_t)(bytes - begin);
                begin = bytes;
                if (!is_next(&json, ',') || !string(&json, &bytes) || !is_next(&json, ']'))
                    return -1;
                lengths[2 * count + 1] = (int32_t)(bytes - begin);
            } else {
                if (!string(&json, &bytes) || !(space = memchr(begin, ' ', bytes - begin)) ||
                    (bytes - begin >= 8 && !memcmp(begin, "#version", 8))) /* which is no merge */
                    return -1;
                lengths[2 * count] = (int32_t)(space - begin);
                lengths[2 * count + 1] = (int32_t)(bytes - space) - 1;
                memmove(space, space + 1, bytes - space - 1);
                --bytes;
                if (memchr(space, ' ', bytes - space))
                    return -1;
            }
            if (is_next(&json, ']'))
                break;
            if (!is_next(&json, ','))
                return -1;
        }
    else
        --count;
    *used = json.at - text;
    return count + 1;
}
