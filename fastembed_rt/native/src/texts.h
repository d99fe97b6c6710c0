/* Texts under attention, as both kinds of it see them. */
#ifndef FASTEMBED_RT_TEXTS_H
#define FASTEMBED_RT_TEXTS_H

#include "kernels.h"
#include "support.h"

enum {
    KEY_BLOCK = 128, /* keys; texts up to that length have one block */
    ON_STACK = 32768 /* bytes, at most, where other threads' stacks may be small */
};
static const float LOG2_E = 1.44269504f;

static size_t length_of(const Attention *work, size_t text) {
    return (size_t)(work->starts[text + 1] - work->starts[text]);
}

static size_t keys_of(const Attention *work, size_t text) {
    return work->seen ? (size_t)work->seen[text] : length_of(work, text);
}

static size_t queries_of(const Attention *work, size_t text) {
    size_t length = length_of(work, text);
    return work->first_only ? length > 0 : length;
}

/* What is added to the scores of head `number` for distance 0 of key and query; for others beside it. */
INLINE const float *bias_of(const Attention *work, size_t number) {
    return work->by_distance + number * (size_t)(2 * work->reach - 1) + work->reach - 1;
}

static void fail(const Attention *work) { __atomic_store_n(work->short_of_memory, 1, __ATOMIC_RELAXED); }

#endif
