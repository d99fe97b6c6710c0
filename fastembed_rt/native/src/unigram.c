/* Token ids as SentencePiece's unigram models have them (Kudo 2018, arXiv:1804.10959), to the bit as the Rust library
   computes them (models/unigram, normalizers/precompiled and pre_tokenizers/metaspace of
   github.com/huggingface/tokenizers): characters are replaced by a table, words begin at blanks, and of all ways to cut a
   word into pieces the one with the greatest sum of scores is taken. Before that ALBERT's characters are folded (folding.h)
   and DeBERTa's blanks gathered. A text is left to the library where it is not certain what becomes of its characters,
   which of them stand together, or what an added token takes of those beside it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "characters.h"
#include "folding.h"
#include "pieces.h"
#include "scored.h"
#include "support.h"

enum {
    MOST_BYTES = 1 << 16, /* of a word */
    FEW_BYTES = 512,      /* likewise, for which no memory is asked */
    FOLDED_BYTES = 4096, /* of a text that are folded at once */
    SEEN = 16,           /* bytes that are looked at behind a character, at most */
    IN_NORMALIZED = -2,  /* instead of an added token's id: it is looked for in texts whose characters are replaced */
};

/* What is done about blanks. */
enum {
    APART = 1,    /* words are what is between blanks of any kind; else a word begins at each space */
    COLLAPSE = 2, /* of several spaces one is left */
    STRIP = 4,    /* those at the end of a text are left out */
    GATHER = 8,   /* of several blanks of any kind, and of the end of a line, a space is left, and none at the end */
    TRIM = 16,    /* those around a text are left out before anything else */
};

typedef struct {
    double score; /* of the best way to here */
    int32_t from; /* where its last piece begins; -1: there is no way */
    int32_t piece;
} Node;

typedef struct {
    Pieces pieces; /* their bytes, then those of the added tokens */
    int32_t unknown;
    double unknown_score; /* of a character that is no piece */
    Table table;
    Folding folding;
    int folds;            /* whether there is any */
    int blanks;           /* what is done about them, of the bits above */
    const uint8_t *added; /* one after the other */
    int32_t *added_lengths, *added_ids; /* of each; -1: the library has to say what becomes of it */
    int32_t added_count;
    uint8_t begins_added[256];
    uint8_t begins_normalized[256]; /* where it is left of a text, that is the library's */
} Unigram;

EXPORTED void fastembed_rt_unigram_free(void *made) {
    Unigram *u = made;
    if (!u)
        return;
    free_pieces(&u->pieces);
    free(u->table.units);
    free(u->table.written);
    free(u->folding.starts);
    free(u->folding.bytes);
    free(u->added_lengths);
    free(u->added_ids);
    free(u);
}

/* A vocabulary: `bytes` are its `count` pieces in UTF-8 one after the other, `scores` theirs, and `added` likewise the
   tokens that are looked for in texts first, with `added_ids`; -1: the library has to say what becomes of one, or
   IN_NORMALIZED, of signs of ASCII. `unknown` is the number of the piece for characters that are none. `units` is the
   double array of characters to replace, and `written` what they are replaced by; `folded` and `folded_starts` (FOLDED +
   1) what they become before that, NULL where they stay as they are, and `quotes` as in Folding. `blanks` as in Unigram.
   Sets `fits` to 0 where pieces or table are not such that this file can work with them. NULL where there is no memory. */
EXPORTED void *fastembed_rt_unigram_new(const uint8_t *bytes, const int32_t *lengths, const double *scores, int64_t count,
                                        const uint8_t *added, const int32_t *added_lengths,
                                        const int32_t *added_ids, int64_t added_count, int64_t unknown,
                                        const uint32_t *units, int64_t unit_count, const uint8_t *written,
                                        int64_t written_size, const uint8_t *folded, const uint32_t *folded_starts,
                                        int32_t quotes, int32_t blanks, int32_t *fits) {
    Unigram *u = calloc(1, sizeof *u);
    if (!u)
        return NULL;
    int64_t size = 0, added_size = 0;
    for (int64_t k = 0; k < count; ++k)
        size += lengths[k];
    for (int64_t k = 0; k < added_count; ++k)
        added_size += added_lengths[k];
    Pieces *p = &u->pieces;
    p->bytes = malloc(size + added_size + 1);
    p->starts = malloc((count + 1) * sizeof *p->starts);
    p->scores = copy_of(scores, count * sizeof *scores);
    u->table.units = copy_of(units, unit_count * sizeof *units);
    u->table.written = copy_of(written, written_size);
    if (folded_starts) {
        u->folding.starts = copy_of(folded_starts, (FOLDED + 1) * sizeof *folded_starts);
        u->folding.bytes = copy_of(folded, folded_starts[FOLDED]);
    }
    u->added_lengths = copy_of(added_lengths, added_count * sizeof *added_lengths);
    u->added_ids = copy_of(added_ids, added_count * sizeof *added_ids);
    if (!p->bytes || !p->starts || !p->scores || !u->table.units || !u->table.written || !u->added_lengths ||
        !u->added_ids || (folded_starts && (!u->folding.starts || !u->folding.bytes))) {
        fastembed_rt_unigram_free(u);
        return NULL;
    }
    memcpy(p->bytes, bytes, size);
    memcpy(p->bytes + size, added, added_size);
    *fits = is_utf8(written, written_size) && unknown >= 0 && unknown < count;
    double least = 0;
    uint32_t start = 0;
    for (int64_t k = 0; k < count; start += lengths[k++]) {
        p->starts[k] = start;
        *fits &= lengths[k] > 0 && is_utf8(bytes + start, lengths[k]);
        least = !k || scores[k] < least ? scores[k] : least;
    }
    p->starts[count] = start;
    if (!index_pieces(p, count)) {
        fastembed_rt_unigram_free(u);
        return NULL;
    }
    u->unknown = (int32_t)unknown;
    u->unknown_score = least - 10;
    *fits &= least < 10; /* else characters that are none together might be a piece that scores worse */
    u->table.unit_count = (uint32_t)unit_count;
    u->table.written_size = written_size;
    u->folding.quotes = quotes, u->folds = quotes || folded_starts, u->blanks = blanks;
    u->added = p->bytes + size;
    u->added_count = (int32_t)added_count;
    const uint8_t *token = u->added;
    int32_t next = (int32_t)count;
    for (int64_t k = 0; k < added_count; token += u->added_lengths[k++]) {
        int32_t length = added_lengths[k], known = found(p, mixed(hash_of(token, length, FIRST)), token, (uint32_t)length);
        /* the library numbers those that are not in its vocabulary */
        *fits &= length > 0 && (added_ids[k] < 0 || added_ids[k] == (known < 0 ? next : known));
        next += known < 0;
        u->begins_added[token[0]] = 1;
        for (int32_t place = 0; added_ids[k] == IN_NORMALIZED && place < length; ++place) {
            *fits &= token[place] < 0x80 && !replaced(&u->table, token + place, 1); /* it is looked for as it is replaced */
            u->begins_normalized[token[0]] = 1;
        }
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
    int64_t spaces;   /* that have not become words yet; with GATHER blanks of any kind */
    uint8_t blank[4]; /* the first of those */
    int32_t blank_size;
    uint32_t before;  /* the character before this one */
    int starts;       /* nothing of the text, or of the part of it behind an added token, has been looked at */
    int more;         /* there are more tokens than `most` */
    int lost;         /* the text is the library's */
    void *memory;     /* of long words */
    uint8_t few_word[FEW_BYTES];
    int32_t few_pieces[FEW_BYTES];
    Node few_nodes[FEW_BYTES + 1];
    uint8_t folded[FOLDED_BYTES];
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
    const Pieces *p = &u->pieces;
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
        for (int32_t end = start; end < length && has_bit(p->begins, mixed(hash) & p->bits);) {
            for (int32_t stop = end + size_of(word[end]); end < stop; ++end)
                hash = grown(hash, word[end]);
            uint32_t whole = mixed(hash);
            int32_t piece = has_bit(p->is, whole & p->bits) ? found(p, whole, word + start, (uint32_t)(end - start)) : -1;
            if (piece < 0)
                continue;
            double score = p->scores[piece] + here;
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
    w->lost |= w->more && length == sizeof MARK && !memcmp(word, MARK, sizeof MARK) && !(u->blanks & APART);
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
    for (w->spaces = w->u->blanks & COLLAPSE && w->spaces ? 1 : w->spaces; w->spaces && !w->more && !w->lost; --w->spaces)
        begin_word(w);
}

/* A character of a word. */
static void write_letter(Writer *w, const uint8_t *c, int32_t size) {
    if (size == sizeof MARK && !memcmp(c, MARK, sizeof MARK)) {
        begin_word(w);
        return;
    }
    if (!w->length)
        append(w, MARK, sizeof MARK);
    append(w, c, size);
}

/* What is left of blanks with GATHER. */
static void write_gathered(Writer *w) {
    const uint8_t first = *w->blank;
    const int64_t blanks = w->spaces;
    w->spaces = 0;
    if (blanks > 1 || (blanks && (first == ' ' || first == '\t' || first == '\n' || first == '\r')))
        begin_word(w);
    else if (blanks)
        write_letter(w, w->blank, w->blank_size);
}

/* One character of the text in which they are replaced. */
static void write_character(Writer *w, const uint8_t *c, int32_t size) {
    const int blanks = w->u->blanks;
    w->lost |= w->u->begins_normalized[*c];
    if (blanks & APART) {
        if (is_blank(c, size))
            flush(w);
        else
            write_letter(w, c, size);
        return;
    }
    if (blanks & GATHER) {
        if (!is_blank(c, size)) {
            write_gathered(w);
            write_letter(w, c, size);
        } else if (!w->spaces++)
            memcpy(w->blank, c, w->blank_size = size);
        return;
    }
    if (*c == ' ') {
        ++w->spaces;
        if (!(blanks & (STRIP | COLLAPSE)))
            write_spaces(w);
        return;
    }
    w->lost |= blanks & STRIP && is_blank(c, size); /* at the end it would be left out, too */
    write_spaces(w);
    write_letter(w, c, size);
}

static void write_replaced(Writer *w, const uint8_t *text) {
    const uint8_t *end = w->u->table.written + w->u->table.written_size;
    while (text < end && *text && !w->more && !w->lost) {
        int32_t size = size_of(*text);
        write_character(w, text, size);
        text += size;
    }
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
    if (!(w->u->blanks & (STRIP | GATHER)))
        write_spaces(w);
    w->spaces = 0;
    if (!w->more && !w->lost)
        flush(w);
    w->length = 0;
    w->before = '\n';
    w->starts = 1;
}

/* What stands at the beginning of `left` bytes, one character or several together; how many bytes that were. */
static int32_t write_first(Writer *w, const uint8_t *at, int64_t left) {
    const Table *t = &w->u->table;
    const int32_t size = size_of(*at);
    const uint32_t c = code_of(at, size);
    int32_t cluster = size;
    if (left > size && (at[size] >= 0x80 || prepends(c)) && t->unit_count)
        cluster = together(t, at, left, c, size, w->before);
    else if (c == '\r' && left > 1 && at[1] == '\n')
        cluster = 2;
    if (cluster < 0) {
        w->lost = 1;
        return size;
    }
    const uint8_t *written = replaced(t, at, cluster);
    if (written)
        write_replaced(w, written);
    else
        write_character(w, at, size), cluster = size;
    w->before = c;
    if (cluster > size) {
        int32_t last = size;
        while (last + size_of(at[last]) < cluster)
            last += size_of(at[last]);
        w->before = code_of(at + last, size_of(at[last]));
    }
    return cluster;
}

/* Number of the added token at the beginning of `left` bytes, or -1. */
static int32_t added_here(const Unigram *u, const uint8_t *at, int64_t left) {
    return u->begins_added[*at] ? added_at(u, at, left) : -1;
}

/* What is folded of `left` bytes, up to an added token; how many bytes that were. */
static int64_t write_folded(Writer *w, const uint8_t *text, int64_t left) {
    int64_t done = 0;
    int32_t filled = 0, size = 0, kept = SEEN;
    while (kept && !w->more && !w->lost) {
        while (filled <= FOLDED_BYTES - MOST_FOLDED && done < left && added_here(w->u, text + done, left - done) < 0) {
            int32_t number = fold(&w->u->folding, text + done, left - done, w->folded + filled, &size);
            if (number < 0) {
                w->lost = 1;
                return done;
            }
            filled += number, done += size;
        }
        /* What is looked at behind a character has to be there, but for the last ones. */
        kept = filled <= FOLDED_BYTES - MOST_FOLDED ? 0 : SEEN;
        int32_t used = 0;
        while (used < filled - kept && !w->more && !w->lost)
            used += write_first(w, w->folded + used, filled - used);
        memmove(w->folded, w->folded + used, filled -= used);
    }
    return done;
}

/* Blanks that TRIM leaves out or not; how many bytes they are. */
static int64_t write_blanks(Writer *w, const uint8_t *text, int64_t left) {
    int64_t end = 0, done = 0;
    while (end < left && is_blank(text + end, size_of(text[end])) && (!end || added_here(w->u, text + end, left - end) < 0))
        end += size_of(text[end]);
    if (w->starts || end == left || added_here(w->u, text + end, left - end) >= 0)
        return end;
    while (done < end && !w->more && !w->lost)
        done += write_first(w, text + done, left - done);
    return done;
}

/* Ids of a text, the first `most` of them; their number, or LIBRARY. `*more`: there were others. */
static int64_t encode(Writer *w, const uint8_t *text, int64_t length, int64_t most, int64_t *ids, int64_t *more) {
    const Unigram *u = w->u;
    const int64_t room = 2 * length + 16; /* as Python has it */
    w->length = 0, w->number = 0, w->spaces = 0, w->more = 0, w->lost = 0;
    w->before = '\n', w->starts = 1;
    w->ids = ids;
    w->most = most < room ? most : room;
    for (int64_t k = 0; k < length && !w->more && !w->lost;) {
        const uint8_t *at = text + k;
        int64_t left = length - k;
        int32_t added = added_here(u, at, left);
        if (added >= 0) {
            if (u->added_ids[added] < 0)
                return LIBRARY;
            end_part(w);
            if (!w->more && !w->lost)
                write_id(w, u->added_ids[added]);
            k += u->added_lengths[added];
            continue;
        }
        if (u->folds)
            k += write_folded(w, at, left);
        else if (u->blanks & TRIM && is_blank(at, size_of(*at)))
            k += write_blanks(w, at, left);
        else {
            k += write_first(w, at, left);
            w->starts = 0;
        }
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
