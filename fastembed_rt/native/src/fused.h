/* What an operator runs: products with all that is around them, a block of rows at a time, so that what passes from one
 * to the next stays in the second-level cache.
 *
 *     linear            out = add_norm(act(x @ w + bias))
 *     feed_forward      out = add_norm(down(act(up(x)))); gated: down(act(gate(x)) * up(x)), gate and up one layer
 *     attention_block   out = add_norm(output(attention(input(x)))); heads may be normalized and turned before attention
 *
 * The last two may read x normalized. x and out f32, row by row. Each returns 0 where there is no memory.
 */
#ifndef FASTEMBED_RT_FUSED_H
#define FASTEMBED_RT_FUSED_H

#include <pthread.h>

#include "attention.h"
#include "norms.h"
#include "product.h"
#include "scratch.h"
#include "turn.h"

/* Of queries, keys and values; the second-level caches of servers have one to two megabytes. Tests have their own. */
#ifndef CACHED_BYTES
#define CACHED_BYTES (384 * 1024)
#endif

enum { BLOCK = 64 }; /* rows, at most, but for attention of longer texts */

/* Blocks of rows, as equal as can be: a last block of a few rows would read all weights for little. */
static size_t block_rows(size_t rows) {
    size_t blocks = (rows + BLOCK - 1) / BLOCK;
    return blocks ? round_up((rows + blocks - 1) / blocks, ROW_UNIT) : 1;
}

static const Norm no_norm;

/* Room for `rows` normalized rows, NULL without a norm; 0 where there is no memory. */
static int allocate_normed(const Norm *norm, size_t rows, size_t width, float **room) {
    *room = norm->weight ? allocate_scratch(rows * width * sizeof(float)) : NULL;
    return *room || !norm->weight;
}

static int linear_to(const Linear *layer, const Norm *before, const float *x, size_t rows, Activation activation,
                     const AddNorm *norm, float *out, Strides strides, const Pool *pool) {
    size_t most = block_rows(rows), inputs = layer->inputs;
    Input input;
    float *room;
    int fits = allocate_rows(layer, most, &input);
    fits = allocate_normed(before, most, inputs, &room) && fits;
    for (size_t r = 0; fits && r < rows; r += most) {
        size_t here = min_size(most, rows - r);
        float *to = out + r * strides.row;
        prepare_rows(layer, normed(before, x + r * inputs, here, inputs, room, pool), here, &input);
        Gemm work = {
            .layer = layer, .input = &input, .rows = here, .activation = activation, .out = to, .strides = strides,
        };
        product(&work, pool);
        add_norm(norm, r, to, here, layer->outputs, pool);
    }
    free_scratch(room);
    free_input(&input);
    return fits;
}

static int linear(const Linear *layer, const float *x, size_t rows, Activation activation, const AddNorm *norm,
                  float *out, const Pool *pool) {
    return linear_to(layer, &no_norm, x, rows, activation, norm, out, (Strides){layer->outputs, LANES}, pool);
}

static int feed_forward(const Linear *up, const Linear *down, const Norm *before, const float *x, size_t rows,
                        Activation activation, int gated, const AddNorm *norm, float *out, const Pool *pool) {
    size_t most = block_rows(rows), inputs = up->inputs;
    Input input, hidden;
    float *room;
    int fits = allocate_rows(up, most, &input);
    fits = allocate_rows(down, most, &hidden) && fits;
    fits = allocate_normed(before, most, inputs, &room) && fits;
    for (size_t r = 0; fits && r < rows; r += most) {
        size_t here = min_size(most, rows - r);
        float *to = out + r * down->outputs;
        prepare_rows(up, normed(before, x + r * inputs, here, inputs, room, pool), here, &input);
        Gemm first = {
            .layer = up, .input = &input, .rows = here, .activation = activation, .gated = gated, .next = down,
            .next_input = &hidden,
        };
        clear_tails(down, &hidden.tails, here);
        product(&first, pool);
        gather_tails(down, &hidden.tails, here);
        Gemm second = {
            .layer = down, .input = &hidden, .rows = here, .activation = NO_ACTIVATION, .out = to,
            .strides = {down->outputs, LANES},
        };
        product(&second, pool);
        add_norm(norm, r, to, here, down->outputs, pool);
    }
    free_scratch(room);
    free_input(&hidden);
    free_input(&input);
    return fits;
}

/* ---- attention with its projections ------------------------------------------------------------------------------ */

/* Attention of a block of texts, head after head: queries, keys and values of one are computed where they are read, and
 * stay in that thread's caches. */
typedef struct {
    const Linear *layer;
    const Input *input;         /* of the layer, all rows */
    size_t rows;
    const Attention *shape;     /* texts and output of the block */
    pthread_t caller;
    int *several;               /* see Pool */
    int *short_of_memory;
} HeadsWork;

static void run_here(const Pool *pool, void (*fn)(void *, size_t), void *argument, size_t count) {
    (void)pool;
    for (size_t index = 0; index < count; index++)
        fn(argument, index);
}

static void head_task(void *argument, size_t head) {
    const HeadsWork *work = argument;
    const Attention *shape = work->shape;
    const Pool here = {run_here, NULL, NULL};
    size_t panels = shape->size / LANES, all = shape->heads * panels, size = shape->size * work->rows;
    float *projected = allocate_scratch(3 * size * sizeof(float));
    Attention own = *shape;
    int fits = projected != NULL;
    if (work->several && !pthread_equal(pthread_self(), work->caller))
        __atomic_store_n(work->several, 1, __ATOMIC_RELAXED);
    for (size_t part = 0; fits && part < 3; part++) {
        size_t first = part * all + head * panels;
        Gemm product = {
            .layer = work->layer, .input = work->input, .rows = work->rows, .out = projected + part * size,
            .strides = {LANES, work->rows * LANES}, .first_panel = first,
        };
        product_panels(&product, first, first + panels);
    }
    if (fits && turns(&shape->turn)) {
        for (int part = QUERY; part < PARTS; part++)
            turn_head(&shape->turn, part, projected + (size_t)part * size, work->rows, shape->size);
    }
    own.heads = own.kv_heads = 1;
    own.query = projected;
    own.key = projected + size;
    own.value = projected + 2 * size;
    own.query_stride = own.key_stride = own.value_stride = LANES;
    own.panel_stride = work->rows * LANES;
    own.head_stride = size;
    own.output += head * shape->size;
    if (own.by_distance)
        own.by_distance += head * (size_t)(2 * shape->reach - 1);
    own.relative = of_head(&shape->relative, head * shape->size);
    if (!fits || !attention(&own, &here))
        __atomic_store_n(work->short_of_memory, 1, __ATOMIC_RELAXED);
    free_scratch(projected);
}

/* x -> work->output; 0 where there is no memory. */
static int attend_by_heads(const Linear *layer, const Attention *shape, const Norm *before, const float *x,
                           size_t rows, const Pool *pool) {
    int short_of_memory = 0;
    Input input;
    float *room;
    int fits = allocate_rows(layer, round_up(rows, ROW_UNIT), &input);
    fits = allocate_normed(before, rows, layer->inputs, &room) && fits;
    if (fits) {
        prepare_rows(layer, normed(before, x, rows, layer->inputs, room, pool), rows, &input);
        HeadsWork work = {layer, &input, rows, shape, pthread_self(), pool->several, &short_of_memory};
        pool->run(pool, head_task, &work, shape->heads);
    }
    free_scratch(room);
    free_input(&input);
    return fits && !short_of_memory;
}

/* Whether it pays: one thread does all of it, heads have keys of their own and are whole panels, no text is long, and
 * what all heads would project at once is more than a second-level cache keeps beside the rest. Several threads have
 * more tasks to share where all heads are projected at once. */
static int by_heads(const Attention *shape, size_t rows, const Pool *pool) {
    size_t projected = 3 * shape->heads * shape->size * rows * sizeof(float);
    if (pool->several && __atomic_load_n(pool->several, __ATOMIC_RELAXED))
        return 0;
    return shape->size % LANES == 0 && shape->heads == shape->kv_heads && rows <= TASK_QUERIES &&
           projected > CACHED_BYTES;
}

/* All heads at once: their queries, keys and values -> projected (rows, outputs), which are read again while they are in
 * the cache. Where heads are whole panels, these lie panel by panel, so that a head reads memory in order. */
static int attend_together(const Linear *layer, const Attention *shape, const Norm *before, const float *x,
                           size_t rows, float *projected, const Pool *pool) {
    static const AddNorm nothing;
    Attention work = *shape;
    Strides strides = {layer->outputs, LANES};
    work.panel_stride = LANES;
    work.head_stride = shape->size;
    if (shape->size % LANES == 0) {
        strides = (Strides){LANES, rows * LANES};
        work.panel_stride = strides.panel;
        work.head_stride = shape->size * rows;
    }
    work.query = projected;
    work.key = projected + shape->heads * work.head_stride;
    work.value = work.key + shape->kv_heads * work.head_stride;
    work.query_stride = work.key_stride = work.value_stride = strides.row;
    if (!linear_to(layer, before, x, rows, NO_ACTIVATION, &nothing, projected, strides, pool))
        return 0;
    if (turns(&shape->turn)) {
        TurnWork turn = {&shape->turn, projected, rows, shape->size, shape->heads, shape->kv_heads};
        pool->run(pool, turn_task, &turn, shape->heads + shape->kv_heads * (shape->turn.norms[VALUE].weight ? 2 : 1));
    }
    return attention(&work, pool);
}

/* Blocks are whole texts. */
static int attention_block(const Linear *input, const Attention *shape, const Linear *output, const Norm *before,
                           const float *x, const AddNorm *norm, float *out, const Pool *pool) {
    const int64_t *starts = shape->starts;
    size_t first = 0, most = 0, width = shape->heads * shape->size;
    for (size_t text = 0; text < shape->texts; text++)
        most = most > (size_t)(starts[text + 1] - starts[text]) ? most : (size_t)(starts[text + 1] - starts[text]);
    most = most > BLOCK ? most : min_size(BLOCK, (size_t)starts[shape->texts]);
    float *projected = NULL, *mixed = allocate_scratch(most * width * sizeof(float));
    int64_t *local = allocate_scratch((shape->texts + 1) * sizeof(int64_t));
    int fits = mixed && local;
    while (fits && first < shape->texts) {
        size_t last = first + 1, start = (size_t)starts[first];
        while (last < shape->texts && (size_t)starts[last + 1] - start <= BLOCK)
            last++;
        size_t rows = (size_t)starts[last] - start;
        for (size_t text = first; text <= last; text++)
            local[text - first] = starts[text] - (int64_t)start;
        Attention work = *shape;
        work.output = mixed;
        work.output_stride = width;
        work.starts = local;
        if (work.seen)
            work.seen += first;
        work.texts = last - first;
        if (work.turn.cosine) {
            work.turn.cosine += start * (shape->size / 2);
            work.turn.sine += start * (shape->size / 2);
        }
        const float *from = x + start * input->inputs;
        if (by_heads(&work, rows, pool)) {
            fits = attend_by_heads(input, &work, before, from, rows, pool);
        } else {
            projected = projected ? projected : allocate_scratch(most * input->outputs * sizeof(float));
            fits = projected && attend_together(input, &work, before, from, rows, projected, pool);
        }
        AddNorm here = *norm;
        if (here.residual)
            here.residual += start * output->outputs;
        fits = fits && linear(output, mixed, rows, NO_ACTIVATION, &here, out + start * output->outputs, pool);
        first = last;
    }
    free_scratch(local);
    free_scratch(mixed);
    free_scratch(projected);
    return fits;
}

#endif
