/* What the operators compute in a call: feeds in, checked, and through the kernels to the output. */
#include <string.h>

#include "operators.h"
#include "scratch.h"

/* ---- inputs and outputs ----------------------------------------------------------------------------------------- */

/* x, and what is added to a call's outputs and how they are normalized. */
static OrtStatus *get_rows(const Kernel *kernel, OrtKernelContext *context, size_t inputs, size_t outputs, Tensor *x,
                           AddNorm *norm) {
    const Form x_form = {"x", FLOAT_TYPE, 2, ANY, (int64_t)inputs};
    OrtStatus *error = get_input(&kernel->node, context, 0, &x_form, 0, x);
    *norm = kernel->norm;
    if (!error && kernel->has_residual) {
        const Form form = {"residual", FLOAT_TYPE, 2, (int64_t)x->rows, (int64_t)outputs};
        Tensor residual;
        error = get_input(&kernel->node, context, kernel->residual_input, &form, 0, &residual);
        if (!error)
            norm->residual = residual.data;
    }
    return error;
}

/* Starts that rise from 0 to the number of tokens; that they only rise keeps their differences within bounds. */
static OrtStatus *get_starts(const Kernel *kernel, OrtKernelContext *context, size_t index, size_t tokens,
                             Attention *work) {
    static const Form form = {"starts", INT64_TYPE, 1, 1, ANY};
    Tensor found;
    OrtStatus *error = get_input(&kernel->node, context, index, &form, 0, &found);
    if (error)
        return error;
    if (!found.columns)
        return refusal(&kernel->node, "starts is empty; without texts it is [0]");
    const int64_t *starts = found.data;
    size_t texts = found.columns - 1;
    if (starts[0] != 0 || starts[texts] != (int64_t)tokens)
        return refusal(&kernel->node, "starts go from %lld to %lld and have to go from 0 to the number of tokens, %zu",
                       (long long)starts[0], (long long)starts[texts], tokens);
    for (size_t text = 0; text < texts; text++) {
        int64_t from = starts[text], to = starts[text + 1];
        if (to < from)
            return refusal(&kernel->node, "starts fall from %lld to %lld at text %zu", (long long)from, (long long)to,
                           text);
        if ((work->by_distance || work->relative.row) && to - from > work->reach)
            return refusal(&kernel->node, "text %zu has %lld tokens, what it knows of distances reaches over %lld", text,
                           (long long)(to - from), (long long)work->reach);
    }
    work->starts = starts;
    work->texts = texts;
    return NULL;
}

/* How many tokens of each text are seen: at least one where there are any, and by each of them. */
static OrtStatus *get_seen(const Kernel *kernel, OrtKernelContext *context, Attention *work) {
    const Form form = {"seen", INT64_TYPE, 1, 1, (int64_t)work->texts};
    Tensor found;
    OrtStatus *error = get_input(&kernel->node, context, kernel->seen_input, &form, 0, &found);
    if (error)
        return error;
    const int64_t *seen = found.data;
    for (size_t text = 0; text < work->texts; text++) {
        int64_t length = work->starts[text + 1] - work->starts[text];
        if (seen[text] > length || seen[text] < (length > 0))
            return refusal(&kernel->node, "text %zu has %lld tokens, of which %lld cannot be seen", text,
                           (long long)length, (long long)seen[text]);
        if (work->before >= 0 && length - seen[text] > work->before)
            return refusal(&kernel->node, "text %zu has %lld tokens, and the last of them sees none of the first %lld",
                           text, (long long)length, (long long)seen[text]);
    }
    work->seen = seen;
    return NULL;
}

/* Cosines and sines of the tokens. */
static OrtStatus *get_angles(const Kernel *kernel, OrtKernelContext *context, size_t tokens, Attention *work) {
    const Form form = {"what turns heads", FLOAT_TYPE, 2, (int64_t)tokens, (int64_t)work->size / 2};
    Tensor cosine, sine;
    OrtStatus *error = get_input(&kernel->node, context, kernel->rotary_input, &form, 0, &cosine);
    if (!error)
        error = get_input(&kernel->node, context, kernel->rotary_input + 1, &form, 0, &sine);
    if (error)
        return error;
    work->turn.cosine = cosine.data;
    work->turn.sine = sine.data;
    return NULL;
}

/* Tables that distances are rows of. */
static OrtStatus *get_relative(const Kernel *kernel, OrtKernelContext *context, Attention *work) {
    Tensor found;
    OrtStatus *error = NULL;
    if (kernel->has_c2p) {
        error = get_input(&kernel->node, context, kernel->c2p_input, &kernel->c2p_form, 1, &found);
        work->relative.c2p = error ? NULL : found.data;
    }
    if (!error && kernel->has_p2c) {
        error = get_input(&kernel->node, context, kernel->p2c_input, &kernel->p2c_form, 1, &found);
        work->relative.p2c = error ? NULL : found.data;
    }
    return error;
}

typedef struct {
    const OrtApi *api;
    OrtKernelContext *context;
    OrtStatus *error;
} Running;

/* Pieces of a call, which the session's threads take one after another, as many threads as it has up to this number.
 * One costs some hundred instructions, so thousands of tasks are not as many pieces. Where one ends changes no bits. */
enum { MOST_PIECES = 32 };

static void run_parallel(const Pool *pool, void (*fn)(void *, size_t), void *argument, size_t count) {
    Running *running = pool->context;
    size_t pieces = count < MOST_PIECES ? count : MOST_PIECES;
    OrtStatus *error =
        CALL(running->api, ParallelFor, PARALLEL_FOR)(running->context, fn, count, pieces, argument);
    if (error && !running->error)
        running->error = error;
    else if (error)
        CALL(running->api, ReleaseStatus, RELEASE_STATUS)(error);
}

/* ---- what runs --------------------------------------------------------------------------------------------------- */

static Running running_in(const Kernel *kernel, OrtKernelContext *context) {
    return (Running){kernel->node.api, context, NULL};
}

static Pool pool_of(Running *running, const Kernel *kernel) {
    return (Pool){run_parallel, running, (int *)&kernel->several}; /* of what is never const itself */
}

/* The status of a call whose kernels say whether they had the memory they need. */
static OrtStatus *status_of(const Kernel *kernel, const Running *running, int had_memory) {
    return running->error || had_memory ? running->error : no_memory(&kernel->node);
}

/* The largest of each column of rows that were just made, into those of their texts. */
typedef struct {
    const float *made;     /* (count, width), the rows from `first` on */
    size_t first, count, width;
    const int64_t *starts; /* of the text of row `first`, and of those behind it */
    float *out;            /* of that text */
} Largest;

enum {
    /* Rows of a layer at a time, a multiple of every MR: few enough to stay in the caches, so many that reading the
     * weights again for the next ones, which are four times as large in float, costs little. */
    LARGEST_ROWS = 48,
    LARGEST_FLOAT_ROWS = 96,
    LARGEST_COLUMNS = 512 /* of one task */
};

static void largest_columns(void *argument, size_t index) {
    const Largest *work = argument;
    size_t width = work->width, from = index * LARGEST_COLUMNS;
    size_t columns = width - from < LARGEST_COLUMNS ? width - from : LARGEST_COLUMNS;
    const int64_t *start = work->starts;
    float *out = work->out + from;
    for (size_t r = 0; r < work->count; r++) {
        const float *row = work->made + r * width + from;
        for (; start[1] <= (int64_t)(work->first + r); start++) /* over texts without tokens too */
            out += width;
        if (*start == (int64_t)(work->first + r))
            memcpy(out, row, columns * sizeof(float));
        else
            for (size_t k = 0; k < columns; k++)
                out[k] = row[k] > out[k] ? row[k] : out[k];
    }
}

/* As run_linear, of which only the largest of each text is kept: nobody ever holds all rows. */
static OrtStatus *run_largest(const Kernel *kernel, OrtKernelContext *context) {
    const Linear *layer = kernel->first;
    const Form form = {"x", FLOAT_TYPE, 2, ANY, (int64_t)layer->inputs};
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running, kernel);
    Attention cut = {0};
    Tensor x;
    float *out;
    OrtStatus *error = get_input(&kernel->node, context, 0, &form, 0, &x);
    if (!error)
        error = get_starts(kernel, context, 1, x.rows, &cut);
    if (!error)
        error = get_output(&kernel->node, context, cut.texts, layer->outputs, &out);
    if (error || !cut.texts)
        return error;
    for (size_t text = 0; text < cut.texts; text++)
        if (cut.starts[text] == cut.starts[text + 1])
            memset(out + text * layer->outputs, 0, layer->outputs * sizeof(float));
    size_t most = layer->weights == INT8_WEIGHTS ? LARGEST_ROWS : LARGEST_FLOAT_ROWS;
    most = x.rows < most ? x.rows : most;
    float *made = allocate_scratch(most * layer->outputs * sizeof(float));
    int had_memory = made || !x.rows;
    Largest work = {made, 0, 0, layer->outputs, cut.starts, out};
    for (; had_memory && !running.error && work.first < x.rows; work.first += work.count) {
        work.count = x.rows - work.first < most ? x.rows - work.first : most;
        had_memory = kernel->kernels->linear(layer, (const float *)x.data + work.first * layer->inputs, work.count,
                                             kernel->activation, &kernel->norm, made, &pool);
        if (had_memory && !running.error)
            run_parallel(&pool, largest_columns, &work, (layer->outputs + LARGEST_COLUMNS - 1) / LARGEST_COLUMNS);
        for (; work.starts[1] <= (int64_t)(work.first + work.count) && work.first + work.count < x.rows; work.starts++)
            work.out += layer->outputs;
    }
    free_scratch(made);
    return status_of(kernel, &running, had_memory);
}

OrtStatus *run_linear(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    if (kernel->largest)
        return run_largest(kernel, context);
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running, kernel);
    Tensor x;
    AddNorm norm;
    float *out;
    OrtStatus *error = get_rows(kernel, context, kernel->first->inputs, kernel->first->outputs, &x, &norm);
    if (!error)
        error = get_output(&kernel->node, context, x.rows, kernel->first->outputs, &out);
    if (error || !x.rows)
        return error;
    int had_memory =
        kernel->kernels->linear(kernel->first, x.data, x.rows, kernel->activation, &norm, out, &pool);
    return status_of(kernel, &running, had_memory);
}

OrtStatus *run_feed_forward(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running, kernel);
    Tensor x;
    AddNorm norm;
    float *out;
    OrtStatus *error = get_rows(kernel, context, kernel->first->inputs, kernel->second->outputs, &x, &norm);
    if (!error)
        error = get_output(&kernel->node, context, x.rows, kernel->second->outputs, &out);
    if (error || !x.rows)
        return error;
    int had_memory = kernel->kernels->feed_forward(kernel->first, kernel->second, &kernel->before, x.data, x.rows,
                                                   kernel->activation, kernel->gated, &norm, out, &pool);
    return status_of(kernel, &running, had_memory);
}

OrtStatus *run_packed_attention(void *self, OrtKernelContext *context) {
    static const Form query_form = {"query", FLOAT_TYPE, 2, ANY, ANY};
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running, kernel);
    Attention work = kernel->shape;
    Tensor query, key, value;
    OrtStatus *error = get_input(&kernel->node, context, 0, &query_form, 0, &query);
    if (error)
        return error;
    size_t size = query.columns / work.heads, width = work.heads * size, kv_width = work.kv_heads * size;
    if (!size || size > MOST_SIZE || query.columns != width || (work.size && work.size != size))
        return refusal(&kernel->node, "query is %zu wide, which is not that of %zu heads", query.columns, work.heads);
    const Form key_form = {"key", FLOAT_TYPE, 2, ANY, (int64_t)kv_width};
    error = get_input(&kernel->node, context, 1, &key_form, 0, &key);
    if (error)
        return error;
    const Form value_form = {"value", FLOAT_TYPE, 2, (int64_t)key.rows, (int64_t)kv_width};
    error = get_input(&kernel->node, context, 2, &value_form, 0, &value);
    if (!error)
        error = get_starts(kernel, context, 3, key.rows, &work);
    if (!error && kernel->has_seen)
        error = get_seen(kernel, context, &work);
    if (!error)
        error = get_relative(kernel, context, &work);
    if (error)
        return error;
    size_t queries = work.first_only ? work.texts : key.rows;
    if (query.rows != queries)
        return refusal(&kernel->node, "query has %zu rows and has to have %zu", query.rows, queries);
    error = get_output(&kernel->node, context, query.rows, width, &work.output);
    if (error || !query.rows)
        return error;
    work.size = size;
    work.query = query.data;
    work.key = key.data;
    work.value = value.data;
    work.query_stride = work.output_stride = width;
    work.key_stride = work.value_stride = kv_width;
    if (work.first_only) /* a text without tokens has no attention to write */
        memset(work.output, 0, query.rows * width * sizeof(float));
    return status_of(kernel, &running, kernel->kernels->attention(&work, &pool));
}

OrtStatus *run_attention_block(void *self, OrtKernelContext *context) {
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running, kernel);
    Attention work = kernel->shape;
    Tensor x;
    AddNorm norm;
    float *out;
    OrtStatus *error = get_rows(kernel, context, kernel->first->inputs, kernel->second->outputs, &x, &norm);
    if (!error)
        error = get_starts(kernel, context, 1, x.rows, &work);
    if (!error && kernel->has_seen)
        error = get_seen(kernel, context, &work);
    if (!error)
        error = get_relative(kernel, context, &work);
    if (!error && kernel->has_rotary)
        error = get_angles(kernel, context, x.rows, &work);
    if (!error)
        error = get_output(&kernel->node, context, x.rows, kernel->second->outputs, &out);
    if (error || !x.rows)
        return error;
    int had_memory = kernel->kernels->attention_block(kernel->first, &work, kernel->second, &kernel->before, x.data,
                                                      &norm, out, &pool);
    return status_of(kernel, &running, had_memory);
}

typedef struct {
    const void *table;      /* int8, or bfloat16 without scales */
    const float *scales;
    size_t width;
    const int64_t *ids;
    size_t rows;
    float *out;
} Embedding;

enum { EMBEDDED_ROWS = 32 }; /* of one task */

static void embed_rows(void *argument, size_t index) {
    const Embedding *work = argument;
    size_t width = work->width, last = (index + 1) * EMBEDDED_ROWS;
    for (size_t r = index * EMBEDDED_ROWS; r < last && r < work->rows; r++) {
        size_t id = (size_t)work->ids[r];
        float *to = work->out + r * width;
        if (!work->scales) {
            const char *row = (const char *)work->table + id * width * sizeof(uint16_t); /* at any address */
            for (size_t k = 0; k < width; k++) {
                uint16_t half;
                memcpy(&half, row + k * sizeof half, sizeof half);
                uint32_t whole = (uint32_t)half << 16;
                memcpy(to + k, &whole, sizeof whole);
            }
            continue;
        }
        const int8_t *row = (const int8_t *)work->table + id * width;
        float scale = float_at(work->scales, id);
        for (size_t k = 0; k < width; k++)
            to[k] = (float)row[k] * scale;
    }
}

/* Rows of `table` for the ids of input 0 -> the output. `scales` of the rows, or NULL. */
static OrtStatus *embed(const Kernel *kernel, OrtKernelContext *context, const Tensor *ids, const Tensor *table,
                        const float *scales) {
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running, kernel);
    float *out;
    for (size_t k = 0; k < ids->columns; k++) {
        int64_t id = ((const int64_t *)ids->data)[k];
        if (id < 0 || id >= (int64_t)table->rows)
            return refusal(&kernel->node, "token id %lld is not in the vocabulary of %zu", (long long)id, table->rows);
    }
    OrtStatus *error = get_output(&kernel->node, context, ids->columns, table->columns, &out);
    if (error || !ids->columns)
        return error;
    Embedding work = {table->data, scales, table->columns, ids->data, ids->columns, out};
    run_parallel(&pool, embed_rows, &work, (ids->columns + EMBEDDED_ROWS - 1) / EMBEDDED_ROWS);
    return running.error;
}

OrtStatus *run_embedding(void *self, OrtKernelContext *context) {
    static const Form ids_form = {"ids", INT64_TYPE, 1, 1, ANY}, table_form = {"values", INT8_TYPE, 2, ANY, ANY};
    const Kernel *kernel = self;
    Tensor ids, table, scales;
    OrtStatus *error = get_input(&kernel->node, context, 0, &ids_form, 0, &ids);
    if (!error)
        error = get_input(&kernel->node, context, 1, &table_form, 0, &table);
    if (error)
        return error;
    const Form scales_form = {"scales", FLOAT_TYPE, 2, (int64_t)table.rows, 1};
    error = get_input(&kernel->node, context, 2, &scales_form, 1, &scales); /* mapped from a file, at any address */
    return error ? error : embed(kernel, context, &ids, &table, scales.data);
}

OrtStatus *run_bf16_embedding(void *self, OrtKernelContext *context) {
    static const Form ids_form = {"ids", INT64_TYPE, 1, 1, ANY}, table_form = {"values", BF16_TYPE, 2, ANY, ANY};
    const Kernel *kernel = self;
    Tensor ids, table;
    OrtStatus *error = get_input(&kernel->node, context, 0, &ids_form, 0, &ids);
    if (!error)
        error = get_input(&kernel->node, context, 1, &table_form, 1, &table);
    return error ? error : embed(kernel, context, &ids, &table, NULL);
}

typedef struct {
    const float *x;
    const int64_t *starts;
    size_t width;
    float *out;
} Mean;

static void mean_rows(void *argument, size_t text) {
    const Mean *work = argument;
    int64_t start = work->starts[text], stop = work->starts[text + 1];
    float *out = work->out + text * work->width;
    memset(out, 0, work->width * sizeof(float));
    for (int64_t r = start; r < stop; r++) {
        const float *row = work->x + (size_t)r * work->width;
        for (size_t k = 0; k < work->width; k++)
            out[k] += row[k];
    }
    if (stop > start)
        for (size_t k = 0; k < work->width; k++)
            out[k] /= (float)(stop - start);
}

OrtStatus *run_mean(void *self, OrtKernelContext *context) {
    static const Form form = {"x", FLOAT_TYPE, 2, ANY, ANY};
    const Kernel *kernel = self;
    Running running = running_in(kernel, context);
    Pool pool = pool_of(&running, kernel);
    Attention cut = {0};
    Tensor x;
    float *out;
    OrtStatus *error = get_input(&kernel->node, context, 0, &form, 0, &x);
    if (!error)
        error = get_starts(kernel, context, 1, x.rows, &cut);
    if (!error)
        error = get_output(&kernel->node, context, cut.texts, x.columns, &out);
    if (error || !cut.texts || !x.columns)
        return error;
    Mean work = {x.data, cut.starts, x.columns, out};
    run_parallel(&pool, mean_rows, &work, cut.texts);
    return running.error;
}
