/* Token ids as byte-pair encodings have them (Sennrich et al. 2016, arXiv:1508.07909), to the last one as the Rust library
   computes them (models/bpe and pre_tokenizers/byte_level of github.com/huggingface/tokenizers): of bytes, in words that
   a regular expression finds, as GPT-2's, RoBERTa's, ModernBERT's and Qwen's tokenizers have them; or of characters, with
   a mark for each space, as Gemma's and Llama 2's. A text with characters of which it is not certain what they are is left
   to the library. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pieces.h"
#include "support.h"
#include "words.h"

enum {
    MOST_BYTES = 1 << 16, /* of a word */
    FEW_BYTES = 256,      /* likewise, for which no memory is asked */
    MOST_ADDED = 255,     /* bytes of an added token */
};

/* Added tokens are looked for twice: in the text, and between those in the text as it is normalized. */
enum { RAW, NORMALIZED, PASSES };

typedef struct {
    int32_t left, right, rank, result; /* of a merge; a result of NONE: no merge */
} Merge;

typedef struct {
    uint32_t hash;
    int32_t offset, length, id; /* no length: none */
} Slot;

typedef struct {
    uint32_t code;
    int32_t id; /* NONE: no character */
} Character;

typedef struct {
    Merge *merges; /* open addressing, at least half of it empty */
    uint32_t mask; /* number of those - 1 */
    Character *characters;
    uint32_t characters_mask;
    int32_t bytes[256]; /* ids */
    Slot *whole; /* all pieces as bytes, where a word that is one is not merged; or NULL */
    uint32_t whole_mask;
    uint8_t *pieces; /* the bytes of those */
    Words words;
    int prepend; /* a mark in front of every text, or a space, of words that are not marked, where it begins with none */
    int apart;   /* no merge makes a mark a piece's end and another character what stands before it: marks part words */
    uint8_t *added;      /* tokens one after the other */
    Slot *added_slots[PASSES];
    uint32_t added_mask[PASSES];
    uint64_t added_lengths[PASSES][256][(MOST_ADDED + 1) / 64]; /* by first byte: a bit for each number of bytes */
} Bpe;

static Slot *slot_of(Slot *slots, uint32_t mask, const uint8_t *bytes, uint32_t hash, const uint8_t *piece,
                     int32_t length) {
    hash = mixed(hash);
    for (uint32_t k = hash & mask;; k = (k + 1) & mask) {
        Slot *slot = slots + k;
        if (!slot->length ||
            (slot->hash == hash && slot->length == length && !memcmp(bytes + slot->offset, piece, length)))
            return slot;
    }
}

static int32_t id_of(Slot *slots, uint32_t mask, const uint8_t *bytes, const uint8_t *piece, int32_t length) {
    const Slot *slot = slot_of(slots, mask, bytes, hash_of(piece, length, FIRST), piece, length);
    return slot->length ? slot->id : NONE;
}

static uint32_t pair_hash(int32_t left, int32_t right) {
    uint64_t both = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(both >> 32);
}

/* The merge of two pieces, or the place for it. */
static Merge *merge_of(const Bpe *b, int32_t left, int32_t right) {
    for (uint32_t k = pair_hash(left, right) & b->mask;; k = (k + 1) & b->mask) {
        Merge *merge = b->merges + k;
        if (merge->result == NONE || (merge->left == left && merge->right == right))
            return merge;
    }
}

static Character *character_of(const Bpe *b, uint32_t code) {
    for (uint32_t k = mixed(code * 0x9e3779b1u) & b->characters_mask;; k = (k + 1) & b->characters_mask) {
        Character *character = b->characters + k;
        if (character->id == NONE || character->code == code)
            return character;
    }
}

static uint32_t room_for(int64_t count) {
    uint32_t room = 16;
    while (room < 2 * (uint64_t)count)
        room *= 2;
    return room;
}

EXPORTED void fastembed_rt_bpe_free(void *made) {
    Bpe *b = made;
    if (!b)
        return;
    free(b->merges);
    free(b->characters);
    free(b->whole);
    free(b->pieces);
    free(b->added);
    for (int pass = 0; pass < PASSES; ++pass)
        free(b->added_slots[pass]);
    free(b);
}

/* The character that stands for a byte where pieces are of bytes: itself where it can be seen, else one from 256 on. */
static int32_t write_byte(uint8_t byte, uint8_t *out) {
    uint32_t code = byte;
    if (byte <= 0x20)
        code = 0x100 + byte;
    else if (byte >= 0x7f && byte <= 0xa0)
        code = 0x121 + (byte - 0x7f);
    else if (byte == 0xad)
        code = 0x143;
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    out[0] = (uint8_t)(0xc0 | code >> 6);
    out[1] = (uint8_t)(0x80 | (code & 0x3f));
    return 2;
}

static int set_bytes(Bpe *b, Slot *slots, uint32_t mask, const uint8_t *bytes) {
    static const char digits[] = "0123456789ABCDEF";
    for (int byte = 0; byte < 256; ++byte) {
        uint8_t piece[6] = {'<', '0', 'x', (uint8_t)digits[byte >> 4], (uint8_t)digits[byte & 15], '>'};
        int32_t length = b->words.what == MARKED ? 6 : write_byte((uint8_t)byte, piece);
        if ((b->bytes[byte] = id_of(slots, mask, bytes, piece, length)) == NONE)
            return 0;
    }
    return 1;
}

/* The pieces of a vocabulary as bytes. Those with a character that stands for no byte are no word. 0 where there is no
   memory. */
static int set_whole(Bpe *b, const uint8_t *bytes, const int32_t *lengths, const int32_t *ids, int64_t count,
                     int64_t size) {
    enum { CODES = 0x144 };
    int16_t byte_of[CODES];
    uint32_t room = room_for(count);
    b->whole = calloc(room, sizeof *b->whole);
    b->pieces = malloc(size + 1);
    b->whole_mask = room - 1;
    if (!b->whole || !b->pieces)
        return 0;
    memset(byte_of, 0xff, sizeof byte_of);
    for (int byte = 0; byte < 256; ++byte) {
        uint8_t piece[2];
        byte_of[code_of(piece, write_byte((uint8_t)byte, piece))] = (int16_t)byte;
    }
    int32_t offset = 0;
    for (int64_t k = 0; k < count; bytes += lengths[k++]) {
        int32_t length = 0, taken = 0;
        for (int32_t width; taken < lengths[k]; taken += width) {
            width = size_of(bytes[taken]);
            uint32_t code = code_of(bytes + taken, width);
            if (code >= CODES || byte_of[code] < 0)
                break;
            b->pieces[offset + length++] = (uint8_t)byte_of[code];
        }
        if (taken < lengths[k])
            continue;
        const uint8_t *piece = b->pieces + offset;
        uint32_t hash = hash_of(piece, length, FIRST);
        *slot_of(b->whole, b->whole_mask, b->pieces, hash, piece, length) = (Slot){mixed(hash), offset, length, ids[k]};
        offset += length;
    }
    return 1;
}

static int is_mark(const uint8_t *piece, int32_t length) {
    return length >= 3 && !memcmp(piece, MARK, 3);
}

/* A vocabulary: `bytes` are its `count` pieces in UTF-8 one after the other, `ids` theirs; `merged` are two pieces for each
   of `merge_count` merges, by rank. `added` are the tokens that are looked for in texts first, with `added_ids`; NONE: the
   library has to say what becomes of them; and in which pass of `added_passes`. `words` is what is one, `prepend` as in
   Bpe; `whole`: words that are pieces are not merged; `kinds` are of KNOWN characters. Sets `fits` to 0 where this file
   cannot work with them, or the library would not. NULL where there is no memory. */
EXPORTED void *fastembed_rt_bpe_new(const uint8_t *bytes, const int32_t *lengths, const int32_t *ids, int64_t count,
                                    const uint8_t *merged, const int32_t *merged_lengths, int64_t merge_count,
                                    const uint8_t *added, const int32_t *added_lengths, const int32_t *added_ids,
                                    const uint8_t *added_passes, int64_t added_count, int32_t words, int32_t prepend,
                                    int32_t whole, const uint8_t *kinds, int32_t *fits) {
    Bpe *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    int64_t added_size = 0, characters = 0, offset = 0;
    for (int64_t k = 0; k < added_count; ++k)
        added_size += added_lengths[k];
    for (int64_t k = 0; k < count; offset += lengths[k++])
        characters += lengths[k] && lengths[k] == size_of(bytes[offset]);
    uint32_t room = room_for(count), merge_room = room_for(merge_count), characters_room = room_for(characters);
    Slot *slots = calloc(room, sizeof *slots);
    b->merges = malloc(merge_room * sizeof *b->merges);
    b->characters = malloc(characters_room * sizeof *b->characters);
    b->added = malloc(added_size + 1);
    for (int pass = 0; pass < PASSES; ++pass) {
        uint32_t places = room_for(added_count);
        b->added_slots[pass] = calloc(places, sizeof **b->added_slots);
        b->added_mask[pass] = places - 1;
    }
    if (!slots || !b->merges || !b->characters || !b->added || !b->added_slots[RAW] || !b->added_slots[NORMALIZED]) {
        free(slots);
        fastembed_rt_bpe_free(b);
        return NULL;
    }
    memset(b->merges, 0xff, merge_room * sizeof *b->merges);
    memset(b->characters, 0xff, characters_room * sizeof *b->characters);
    b->mask = merge_room - 1, b->characters_mask = characters_room - 1;
    b->words.what = words, b->prepend = prepend, b->apart = words == MARKED;
    memcpy(b->words.kinds, kinds, sizeof b->words.kinds);
    memcpy(b->added, added, added_size);
    *fits = 1;
    offset = 0;
    for (int64_t k = 0; k < count; offset += lengths[k++]) {
        const uint8_t *piece = bytes + offset;
        *fits &= lengths[k] > 0 && is_utf8(piece, lengths[k]);
        if (!lengths[k])
            continue;
        uint32_t hash = hash_of(piece, lengths[k], FIRST);
        Slot *slot = slot_of(slots, room - 1, bytes, hash, piece, lengths[k]);
        *slot = (Slot){mixed(hash), (int32_t)offset, lengths[k], ids[k]};
        if (lengths[k] == size_of(*piece)) {
            uint32_t code = code_of(piece, lengths[k]);
            *character_of(b, code) = (Character){code, ids[k]};
        }
    }
    *fits &= offset < INT32_MAX && set_bytes(b, slots, room - 1, bytes);
    if (*fits && whole && !set_whole(b, bytes, lengths, ids, count, offset)) {
        free(slots);
        fastembed_rt_bpe_free(b);
        return NULL;
    }
    const uint8_t *left = merged;
    for (int64_t k = 0; k < merge_count && *fits; ++k) {
        int32_t first = merged_lengths[2 * k], second = merged_lengths[2 * k + 1];
        const uint8_t *right = left + first;
        int32_t pair[2] = {id_of(slots, room - 1, bytes, left, first), id_of(slots, room - 1, bytes, right, second)};
        int32_t result = id_of(slots, room - 1, bytes, left, first + second);
        *fits &= pair[0] != NONE && pair[1] != NONE && result != NONE;
        if (*fits)
            *merge_of(b, pair[0], pair[1]) = (Merge){pair[0], pair[1], (int32_t)k, result};
        if (is_mark(right, second) && !(first >= 3 && is_mark(right - 3, 3)))
            b->apart = 0;
        left = right + second;
    }
    const uint8_t *token = b->added;
    int32_t next = (int32_t)count;
    for (int64_t k = 0; k < added_count; token += added_lengths[k++]) {
        int pass = added_passes[k] ? NORMALIZED : RAW, known = id_of(slots, room - 1, bytes, token, added_lengths[k]);
        *fits &= added_lengths[k] > 0 && added_lengths[k] <= MOST_ADDED;
        /* the library numbers those that are not in its vocabulary */
        *fits &= added_ids[k] == NONE || added_ids[k] == (known == NONE ? next : known);
        next += known == NONE;
        if (!*fits)
            break;
        uint32_t hash = hash_of(token, added_lengths[k], FIRST);
        Slot *slot = slot_of(b->added_slots[pass], b->added_mask[pass], b->added, hash, token, added_lengths[k]);
        *slot = (Slot){mixed(hash), (int32_t)(token - b->added), added_lengths[k], added_ids[k]};
        b->added_lengths[pass][*token][added_lengths[k] / 64] |= (uint64_t)1 << added_lengths[k] % 64;
    }
    free(slots);
    return b;
}

/* ---- one text ---- */

typedef struct {
    int32_t id, previous, next; /* next: NONE at the end; an id of NONE: merged into the one before */
} Symbol;

typedef struct {
    int32_t rank, place, result;
} Waiting;

typedef struct {
    const Bpe *b;
    Symbol *symbols;
    Waiting *heap;
    int32_t length, waiting, room;
    int64_t *ids, number, most;
    int more; /* there are more tokens than `most` */
    int lost; /* the text is the library's */
    void *memory;
    Symbol few_symbols[FEW_BYTES];
    Waiting few_heap[3 * FEW_BYTES];
} Writer;

static int grow(Writer *w) {
    int32_t room = 4 * w->room;
    uint8_t *memory = w->room < MOST_BYTES ? malloc(room * (sizeof *w->symbols + 3 * sizeof *w->heap)) : NULL;
    if (!memory)
        return 0;
    memcpy(memory, w->symbols, w->length * sizeof *w->symbols);
    w->symbols = (Symbol *)memory;
    w->heap = (Waiting *)(memory + room * sizeof *w->symbols);
    free(w->memory);
    w->memory = memory;
    w->room = room;
    return 1;
}

static void append(Writer *w, int32_t id) {
    if (w->length == w->room && !grow(w)) {
        w->lost = 1;
        return;
    }
    w->symbols[w->length] = (Symbol){id, w->length - 1, w->length + 1};
    ++w->length;
}

static int before(const Waiting *a, const Waiting *b) {
    return a->rank < b->rank || (a->rank == b->rank && a->place < b->place);
}

static void push(Writer *w, int32_t place) {
    const Symbol *left = w->symbols + place;
    const Merge *merge = merge_of(w->b, left->id, w->symbols[left->next].id);
    if (merge->result == NONE)
        return;
    Waiting new = {merge->rank, place, merge->result};
    int32_t k = w->waiting++;
    for (; k && before(&new, w->heap + (k - 1) / 2); k = (k - 1) / 2)
        w->heap[k] = w->heap[(k - 1) / 2];
    w->heap[k] = new;
}

static Waiting pop(Writer *w) {
    Waiting first = w->heap[0], last = w->heap[--w->waiting];
    int32_t k = 0;
    for (int32_t child; (child = 2 * k + 1) < w->waiting; k = child) {
        if (child + 1 < w->waiting && before(w->heap + child + 1, w->heap + child))
            ++child;
        if (!before(w->heap + child, &last))
            break;
        w->heap[k] = w->heap[child];
    }
    w->heap[k] = last;
    return first;
}

static void write_id(Writer *w, int32_t id) {
    if (w->number == w->most)
        w->more = 1;
    else
        w->ids[w->number++] = id;
}

/* The word becomes ids, and there is none: of all merges the one of the lowest rank is done first, the leftmost of them. */
static void flush(Writer *w) {
    Symbol *symbols = w->symbols;
    if (!w->length)
        return;
    symbols[w->length - 1].next = NONE;
    w->waiting = 0;
    for (int32_t k = 0; k + 1 < w->length; ++k)
        push(w, k);
    while (w->waiting) {
        Waiting best = pop(w);
        Symbol *left = symbols + best.place, *right = symbols + left->next;
        if (left->id == NONE || left->next == NONE || merge_of(w->b, left->id, right->id)->result != best.result)
            continue; /* one of the two has become another since */
        left->id = best.result;
        left->next = right->next;
        right->id = NONE;
        if (left->next != NONE)
            symbols[left->next].previous = best.place;
        if (left->previous >= 0)
            push(w, left->previous);
        if (left->next != NONE)
            push(w, best.place);
    }
    for (int32_t k = 0; k != NONE && !w->more; k = symbols[k].next)
        write_id(w, symbols[k].id);
    w->length = 0;
}

static void write_marked(Writer *w, const uint8_t *text, int64_t length) {
    const Bpe *b = w->b;
    const uint32_t mark = 0x2581;
    int marked = 1; /* the last character */
    if (b->prepend && length)
        append(w, character_of(b, mark)->id);
    for (int64_t k = 0; k < length && !w->lost && !w->more;) {
        int32_t size = size_of(text[k]);
        uint32_t code = text[k] == ' ' ? mark : code_of(text + k, size);
        if (code == mark && !marked && b->apart)
            flush(w);
        marked = code == mark;
        int32_t id = character_of(b, code)->id;
        if (id != NONE)
            append(w, id);
        else
            for (int32_t byte = 0; byte < size; ++byte)
                append(w, b->bytes[text[k + byte]]);
        k += size;
    }
    if (!w->lost && !w->more)
        flush(w);
}

/* Of a word that is a piece; NONE: it is none. */
static int32_t whole_id(const Bpe *b, const uint8_t *word, int32_t length) {
    return length > 0 ? id_of(b->whole, b->whole_mask, b->pieces, word, length) : NONE;
}

/* As if a space stood in front: where the first word ends. */
static int64_t write_spaced(Writer *w, const uint8_t *text, int64_t length) {
    const Words *words = &w->b->words;
    int32_t size;
    int kind = kind_at(words, text, length, &size);
    /* a blank that is none begins no word with a space */
    int64_t end = kind == SPACE || kind == UNCERTAIN ? NONE : run(words, text, length, 0, kind, 1 << 30);
    w->lost |= end == NONE;
    append(w, w->b->bytes[' ']);
    for (int64_t k = 0; k < end; ++k)
        append(w, w->b->bytes[text[k]]);
    if (!w->lost)
        flush(w);
    return end;
}

static void write_words(Writer *w, const uint8_t *text, int64_t length) {
    const Bpe *b = w->b;
    int64_t k = b->prepend && length && *text != ' ' ? write_spaced(w, text, length) : 0;
    while (k < length && !w->lost && !w->more) {
        int64_t end = word_end(&b->words, text, length, k);
        w->lost |= end == NONE;
        int32_t whole = b->whole && end - k <= MOST_BYTES ? whole_id(b, text + k, (int32_t)(end - k)) : NONE;
        if (whole != NONE) {
            write_id(w, whole);
            k = end;
        }
        for (; k < end; ++k)
            append(w, b->bytes[text[k]]);
        if (!w->lost)
            flush(w);
    }
}

/* The longest added token of a pass that stands here; NULL: none. */
static const Slot *added_at(const Bpe *b, int pass, const uint8_t *text, int64_t left) {
    for (int part = MOST_ADDED / 64; part >= 0; --part)
        for (uint64_t lengths = b->added_lengths[pass][*text][part]; lengths;) {
            int32_t bit = 63 - __builtin_clzll(lengths), length = 64 * part + bit;
            lengths &= ~((uint64_t)1 << bit);
            if (length > left)
                continue;
            const Slot *slot = slot_of(b->added_slots[pass], b->added_mask[pass], b->added,
                                       hash_of(text, length, FIRST), text, length);
            if (slot->length)
                return slot;
        }
    return NULL;
}

static void write_parts(Writer *w, const uint8_t *text, int64_t length, int pass) {
    const Bpe *b = w->b;
    if (pass == PASSES) {
        if (b->words.what == MARKED)
            write_marked(w, text, length);
        else
            write_words(w, text, length);
        return;
    }
    int64_t begin = 0;
    for (int64_t k = 0; k < length && !w->more && !w->lost;) {
        const Slot *token = added_at(b, pass, text + k, length - k);
        if (!token) {
            ++k;
            continue;
        }
        if (token->id == NONE) {
            w->lost = 1;
            return;
        }
        write_parts(w, text + begin, k - begin, pass + 1);
        if (!w->more && !w->lost)
            write_id(w, token->id);
        begin = k += token->length;
    }
    if (!w->more && !w->lost)
        write_parts(w, text + begin, length - begin, pass + 1);
}

/* Rows of `n` texts in UTF-8, as fastembed_rt_wordpiece_rows. A text has at most one token a byte and 16 more, or is the
   library's. */
EXPORTED void fastembed_rt_bpe_rows(const void *made, const uint8_t *texts, int64_t n, int64_t most,
                                    const int64_t *around, int64_t before_it, int64_t after, int64_t *memory) {
    const int64_t *lengths = memory;
    int64_t *counts = memory + n, *more = counts + n, *ids = more + n;
    Writer w;
    w.b = made;
    w.symbols = w.few_symbols, w.heap = w.few_heap, w.room = FEW_BYTES;
    w.memory = NULL;
    for (int64_t k = 0; k < n; texts += lengths[k++]) {
        const int64_t room = lengths[k] + 16;
        w.length = 0, w.number = 0, w.more = 0, w.lost = 0;
        w.ids = ids + before_it, w.most = most < room ? most : room;
        write_parts(&w, texts, lengths[k], RAW);
        more[k] = w.more && !w.lost;
        counts[k] = LIBRARY;
        if (w.lost || (w.more && most > room))
            continue;
        for (int64_t place = 0; place < before_it; ++place)
            ids[place] = around[place];
        ids += before_it + w.number;
        for (int64_t place = 0; place < after; ++place)
            *ids++ = around[before_it + place];
        counts[k] = w.number + before_it + after;
    }
    free(w.memory);
}
