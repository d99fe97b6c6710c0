/* What an operator runs: products with all that is around them, a block of rows at a time, so that what passes from one
 * to the next stays in the second-level cache.
 *
 *     linear            out = add_norm(act(x @ w + bias))
 *     feed_forward      out = add_norm(down(act(up(x)))); gated: down(act(gate(x)) * up(x)), gate and up one layer
 *     attention_block   out = add_norm(output(attention(input(x))))
 *
 * x and out f32, row by row. Each returns 0 where there is no memory.
 */
#ifndef FASTEMBED_RT_FUSED_H
#define FASTEMBED_RT_FUSED_H

#include "add_norm.h"
#include "attention.h"
#include "product.h"

enum { BLOCK = 64 }; /* rows, at most, but for attention of longer texts */

/* Blocks of rows, as equal as can be: a last block of a few rows would read all weights for little. */
static size_t block_rows(size_t rows) {
    size_t blocks = (rows + BLOCK - 1) / BLOCK;
    return blocks ? round_up((rows + blocks - 1) / blocks, ROW_UNIT) : 1;
}

static int linear_to(const Linear *layer, const float *x, size_t rows, Activation activation, const AddNorm *norm,
                     float *out, Strides strides, const Pool *pool) {
    size_t most = block_rows(rows);
    Input input;
    int fits = allocate_rows(layer, most, &input);
    for (size_t r = 0; fits && r < rows; r += most) {
        size_t here = min_size(most, rows - r);
        float *to = out + r * strides.row;
        prepare_rows(layer, x + r * layer->inputs, here, &input);
        Gemm work = {
            .layer = layer, .input = &input, .rows = here, .activation = activation, .out = to, .strides = strides,
        };
        product(&work, pool);
        add_norm(norm, r, to, here, layer->outputs, pool);
    }
    free_input(&input);
    return fits;
}

static int linear(const Linear *layer, const float *x, size_t rows, Activation activation, const AddNorm *norm,
                  float *out, const Pool *pool) {
    return linear_to(layer, x, rows, activation, norm, out, (Strides){layer->outputs, LANES}, pool);
}

static int feed_forward(const Linear *up, const Linear *down, const float *x, size_t rows, Activation activation,
                        int gated, const AddNorm *norm, float *out, const Pool *pool) {
    size_t most = block_rows(rows);
    Input input, hidden;
    int fits = allocate_rows(up, most, &input);
    fits = allocate_rows(down, most, &hidden) && fits;
    for (size_t r = 0; fits && r < rows; r += most) {
        size_t here = min_size(most, rows - r);
        float *to = out + r * down->outputs;
        prepare_rows(up, x + r * up->inputs, here, &input);
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
    free_input(&hidden);
    free_input(&input);
    return fits;
}

/* A block is whole texts: queries, keys and values are read again while they are in the cache. Where heads are whole
 * panels, these lie panel by panel, so that a head reads memory in order. */
static int attention_block(const Linear *input, const Attention *shape, const Linear *output, const float *x,
                           const AddNorm *norm, float *out, const Pool *pool) {
    const int64_t *starts = shape->starts;
    size_t first = 0, most = 0;
    for (size_t text = 0; text < shape->texts; text++)
        most = most > (size_t)(starts[text + 1] - starts[text]) ? most : (size_t)(starts[text + 1] - starts[text]);
    most = most > BLOCK ? most : min_size(BLOCK, (size_t)starts[shape->texts]);
    size_t mixed_width = shape->heads * shape->size;
    float *projected = allocate(most * input->outputs * sizeof(float));
    float *mixed = allocate(most * mixed_width * sizeof(float));
    int64_t *local = allocate((shape->texts + 1) * sizeof(int64_t));
    int fits = projected && mixed && local;
    while (fits && first < shape->texts) {
        size_t last = first + 1, start = (size_t)starts[first];
        while (last < shape->texts && (size_t)starts[last + 1] - start <= BLOCK)
            last++;
        size_t rows = (size_t)starts[last] - start;
        for (size_t text = first; text <= last; text++)
            local[text - first] = starts[text] - (int64_t)start;
        static const AddNorm nothing;
        Strides strides = {input->outputs, LANES};
        Attention work = *shape;
        if (shape->size % LANES == 0) {
            strides = (Strides){LANES, rows * LANES};
            work.panel_stride = strides.panel;
            work.head_stride = shape->size * rows;
        } else {
            work.panel_stride = LANES;
            work.head_stride = shape->size;
        }
        fits = linear_to(input, x + start * input->inputs, rows, NO_ACTIVATION, &nothing, projected, strides, pool);
        work.query = projected;
        work.key = projected + shape->heads * work.head_stride;
        work.value = work.key + shape->kv_heads * work.head_stride;
        work.query_stride = work.key_stride = work.value_stride = strides.row;
        work.output = mixed;
        work.output_stride = mixed_width;
        work.starts = local;
        work.texts = last - first;
        fits = fits && attention(&work, pool);
        AddNorm here = *norm;
        if (here.residual)
            here.residual += start * output->outputs;
        fits = fits && linear(output, mixed, rows, NO_ACTIVATION, &here, out + start * output->outputs, pool);
        first = last;
    }
    free(local);
    free(mixed);
    free(projected);
    return fits;
}

#endif
