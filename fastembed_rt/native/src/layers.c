#include "layers.h"

#include <float.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pages.h"
#include "shared.h"
#include "support.h"

enum { MOST_LAYERS = 3 };

/* ---- a group as the graph has it --------------------------------------------------------------------------------- */

typedef struct {
    const void *values;     /* (inputs, columns) int8, bfloat16 or float */
    const float *scales, *bias, *rows; /* (columns), (columns), (outliers, columns) */
    size_t columns;
} Layer;

typedef struct {
    const char *prefix;     /* of the names of its attributes and constants */
    char name[64];          /* the last of them, see name_of */
    const Kernels *kernels;
    Linear linear;          /* its sizes, scale, zero point and outlier channels */
    const float *smooth;    /* (inputs) or NULL */
    Layer layers[MOST_LAYERS];
    size_t count;
} Group;

/* factor[k] = smooth[k] / scale,  scales[n] = weight_scale[n] * scale: see quantize.h and epilogue.h. */
static float smoothing(const Group *group, size_t input) {
    return group->smooth ? float_at(group->smooth, input) : 1.0f;
}
static float factor(const Group *group, size_t input) { return smoothing(group, input) / group->linear.scale; }
static float scale(const Group *group, const Layer *layer, size_t column) {
    return float_at(layer->scales, column) * group->linear.scale;
}

static int in_range(float value) { return value - value == 0.0f; }

/* "<prefix>_<what>": an attribute or constant of the group, written into the group's own memory. */
static const char *name_of(Group *group, const char *what) {
    snprintf(group->name, sizeof group->name, "%s_%s", group->prefix, what);
    return group->name;
}

/* The values of the layer `index`, which are next; the first one's say how many inputs the group has. */
static void read_values(Reader *reader, Group *group, size_t index, int type) {
    Linear *linear = &group->linear;
    Layer *layer = group->layers + index;
    Tensor values =
        read_constant(reader, &(Form){name_of(group, "values"), type, 2, index ? (int64_t)linear->inputs : ANY, ANY});
    if (values.rows > MOST_INPUTS || values.columns > MOST_OUTPUTS)
        refuse(reader, "%s are %zu by %zu and may be %d by %d", group->name, values.rows, values.columns, MOST_INPUTS,
               MOST_OUTPUTS);
    layer->values = values.data;
    layer->columns = values.columns;
    linear->inputs = values.rows;
    linear->outputs += values.columns;
}

/* Weights of this type, without scales. */
static void read_float_group(Reader *reader, Group *group, Weights weights, int type) {
    group->linear.weights = weights;
    group->count = (size_t)read_whole(reader, name_of(group, "layers"), 1, MOST_LAYERS, NEEDED);
    for (size_t index = 0; index < group->count && !reader->error; index++) {
        Layer *layer = group->layers + index;
        read_values(reader, group, index, type);
        Form form = {name_of(group, "biases"), FLOAT_TYPE, 1, 1, (int64_t)layer->columns};
        layer->bias = read_constant(reader, &form).data;
    }
}

static void read_group(Reader *reader, unsigned allowed, Group *group) {
    Linear *linear = &group->linear;
    if (allowed & (BF16_GROUP | FP32_GROUP)) {
        int is_bf16 = (allowed & BF16_GROUP) != 0;
        read_float_group(reader, group, is_bf16 ? BF16_WEIGHTS : FP32_WEIGHTS, is_bf16 ? BF16_TYPE : FLOAT_TYPE);
        return;
    }
    linear->scale = read_real(reader, name_of(group, "scale"), FLT_MIN, FLT_MAX); /* no subnormal: 1 / it is finite */
    linear->zero_point = (int32_t)read_whole(reader, name_of(group, "zero"), 0, 255, NEEDED);
    linear->outliers =
        read_wholes(reader, name_of(group, "outliers"), linear->channels, MOST_OUTLIERS, 0, MOST_INPUTS - 1);
    linear->tails = read_flag(reader, name_of(group, "tails"));
    linear->dither = (int)read_whole(reader, name_of(group, "dither"), 0, (allowed & DITHER) != 0, 0);
    int smoothed = read_flag(reader, name_of(group, "smooth"));
    group->count = (size_t)read_whole(reader, name_of(group, "layers"), 1, MOST_LAYERS, NEEDED);
    Tensor smooth = {0};
    if (smoothed)
        smooth = read_constant(reader, &(Form){name_of(group, "smooth"), FLOAT_TYPE, 1, 1, ANY});
    group->smooth = smooth.data;
    for (size_t index = 0; index < group->count && !reader->error; index++) {
        Layer *layer = group->layers + index;
        read_values(reader, group, index, INT8_TYPE);
        int64_t columns = (int64_t)layer->columns;
        layer->scales = read_constant(reader, &(Form){name_of(group, "scales"), FLOAT_TYPE, 1, 1, columns}).data;
        layer->bias = read_constant(reader, &(Form){name_of(group, "biases"), FLOAT_TYPE, 1, 1, columns}).data;
        if (linear->outliers) {
            Form form = {name_of(group, "outlier_rows"), FLOAT_TYPE, 2, (int64_t)linear->outliers, columns};
            layer->rows = read_constant(reader, &form).data;
        }
    }
    if (reader->error)
        return;
    if (smoothed && smooth.columns != linear->inputs)
        refuse(reader, "%s has %zu elements for %zu inputs", name_of(group, "smooth"), smooth.columns, linear->inputs);
    for (size_t j = 0; j < linear->outliers; j++) {
        int again = 0;
        for (size_t i = 0; i < j; i++)
            again = again || linear->channels[i] == linear->channels[j];
        if (again || (size_t)linear->channels[j] >= linear->inputs)
            refuse(reader, "%s has %lld, which is not one of the %zu inputs, or is there twice",
                   name_of(group, "outliers"), (long long)linear->channels[j], linear->inputs);
    }
    for (size_t k = 0; k < linear->inputs && !reader->error; k++)
        if (!in_range(factor(group, k)))
            refuse(reader, "%s of input %zu is too large for the scale", name_of(group, "smooth"), k);
    for (size_t index = 0; index < group->count && !reader->error; index++)
        for (size_t n = 0; n < group->layers[index].columns; n++)
            if (!in_range(scale(group, group->layers + index, n)))
                refuse(reader, "%s of output %zu is too large for the scale", name_of(group, "scales"), n);
}

/* ---- packed ones ------------------------------------------------------------------------------------------------- */

typedef struct PackedLinear {
    struct PackedLinear *next;
    const Kernels *kernels;
    size_t users, bytes; /* of `linear.packed` */
    SharedName file; /* that `linear.packed` is in; of 0 bytes: memory of this process */
    Linear linear;
} PackedLinear;

static PackedLinear *all_packed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void lock_packed(void) { pthread_mutex_lock(&lock); }
void unlock_packed(void) { pthread_mutex_unlock(&lock); }

/* What Python calls: see share_in. */
EXPORTED int fastembed_rt_share_packed(const char *folder) {
    lock_packed();
    int done = share_in(folder);
    unlock_packed();
    return done;
}

EXPORTED int fastembed_rt_unshared(void) {
    lock_packed();
    int found = count_unshared();
    unlock_packed();
    return found;
}

static void free_packed(PackedLinear *packed) {
    Linear *linear = &packed->linear;
    free(linear->factor);
    free(linear->outlier_rows);
    free(linear->tail_channels);
    free(linear->dither_weights);
    if (packed->file.bytes)
        free_shared(linear->packed, packed->file.bytes);
    else
        free_pages(linear->packed, packed->bytes);
    free(linear->compensation);
    free(linear->scales);
    free(linear->bias);
    free(packed);
}

/* Zeros at a multiple of 64, or NULL. */
static void *allocate_zeroed(size_t bytes) {
    size_t whole = (bytes + 127) / 64 * 64;
    void *found = aligned_alloc(64, whole);
    return found ? memset(found, 0, whole) : NULL;
}

/* Fills `blocks`; how many there are. */
static size_t columns_of(const Group *group, Columns blocks[MOST_LAYERS]) {
    for (size_t index = 0; index < group->count; index++)
        blocks[index] = (Columns){group->layers[index].values, group->layers[index].columns};
    return group->count;
}

static size_t bytes_to_pack(const Group *group, const Linear *linear) {
    Columns blocks[MOST_LAYERS];
    return group->kernels->packed_size(linear, blocks, columns_of(group, blocks));
}

static void pack_values(const Group *group, Linear *linear) {
    Columns blocks[MOST_LAYERS];
    group->kernels->pack(linear, blocks, columns_of(group, blocks));
}

static int values_are_packed(const Linear *linear, const Group *group) {
    Columns blocks[MOST_LAYERS];
    return group->kernels->is_packed(linear, blocks, columns_of(group, blocks));
}

static size_t layer_bytes(const Group *group, const Layer *layer) {
    static const size_t sizes[] = {[INT8_WEIGHTS] = 1, [BF16_WEIGHTS] = 2, [FP32_WEIGHTS] = 4};
    return group->linear.inputs * layer->columns * sizes[group->linear.weights];
}

/* The file's: the packed weights, and behind them what `pack` adds up beside them. */
static SharedName shared_name(const PackedLinear *packed, const Group *group, size_t beside) {
    const Linear *linear = &packed->linear;
    uint64_t about[] = {linear->weights, linear->inputs, linear->outputs, (uint64_t)linear->zero_point};
    SharedName name = {packed->kernels->name, hashed(0, about, sizeof about),
                       round_up(packed->bytes, 64) + beside};
    for (const Layer *layer = group->layers; layer < group->layers + group->count; layer++)
        name.hash = hashed(name.hash, layer->values, layer_bytes(group, layer));
    return name;
}

/* Weights in memory of several processes, found or made there; 0 where nothing is shared.
 * `compensation` has the room for `pack`. */
static int pack_shared(PackedLinear *packed, const Group *group) {
    Linear *linear = &packed->linear;
    size_t beside = linear->compensation ? linear->panels * 16 * sizeof(int32_t) : 0;
    size_t place = round_up(packed->bytes, 64);
    if (!sharing())
        return 0;
    SharedName name = shared_name(packed, group, beside);
    char *memory = find_shared(&name);
    linear->packed = memory;
    if (memory && !values_are_packed(linear, group)) { /* another's, whose hash is the same */
        free_shared(memory, name.bytes);
        memory = NULL;
    }
    if (!memory) {
        linear->packed = memory = begin_shared(&name);
        if (!memory)
            return 0;
        pack_values(group, linear);
        if (beside)
            memcpy(memory + place, linear->compensation, beside);
        linear->packed = memory = publish_shared(&name, memory);
    }
    if (beside)
        memcpy(linear->compensation, memory + place, beside);
    packed->file = name;
    return 1;
}

/* Weights packed, wherever there is room; 0 without memory. */
static int pack_somewhere(PackedLinear *packed, const Group *group) {
    Linear *linear = &packed->linear;
    if (pack_shared(packed, group))
        return 1;
    linear->packed = allocate_pages(packed->bytes);
    if (linear->packed)
        pack_values(group, linear);
    return linear->packed != NULL;
}

static int pack_floats(PackedLinear *packed, const Group *group) {
    Linear *linear = &packed->linear;
    linear->bias = allocate_zeroed(linear->panels * 16 * sizeof(float));
    if (!linear->bias || !pack_somewhere(packed, group))
        return 0;
    size_t from = 0;
    for (const Layer *layer = group->layers; layer < group->layers + group->count; from += layer++->columns)
        memcpy(linear->bias + from, layer->bias, layer->columns * sizeof(float));
    return 1;
}

/* NULL without memory. */
static PackedLinear *pack(const Group *group) {
    PackedLinear *packed = calloc(1, sizeof *packed);
    if (!packed)
        return NULL;
    packed->kernels = group->kernels;
    packed->linear = group->linear;
    Linear *linear = &packed->linear;
    size_t unit = group->kernels->depth_unit;
    linear->depth = (linear->inputs + unit - 1) / unit * unit;
    linear->panels = (linear->outputs + 15) / 16;
    packed->bytes = bytes_to_pack(group, linear);
    if (linear->weights != INT8_WEIGHTS) {
        if (pack_floats(packed, group))
            return packed;
        free_packed(packed);
        return NULL;
    }
    linear->low = (float)(0 - linear->zero_point);
    linear->high = (float)(255 - linear->zero_point);
    size_t width = linear->panels * 16;
    linear->factor = allocate_zeroed((linear->depth + 16) * sizeof(float));
    linear->compensation = allocate_zeroed(width * sizeof(int32_t));
    linear->scales = allocate_zeroed(width * sizeof(float));
    linear->bias = allocate_zeroed(width * sizeof(float));
    linear->outlier_rows = allocate_zeroed(linear->outliers * width * sizeof(float));
    linear->tail_channels = allocate_zeroed(linear->depth / 16 * sizeof(uint16_t));
    linear->dither_weights = allocate_zeroed(width * sizeof(float));
    if (!linear->factor || !linear->compensation || !linear->scales || !linear->bias ||
        !linear->outlier_rows || !linear->tail_channels || !linear->dither_weights ||
        !pack_somewhere(packed, group)) {
        free_packed(packed);
        return NULL;
    }
    for (size_t k = 0; k < linear->inputs; k++)
        linear->factor[k] = factor(group, k);
    for (size_t k = 0; k < linear->inputs; k++)
        linear->tail_channels[k / 16] |= (uint16_t)(1u << k % 16);
    for (size_t j = 0; j < linear->outliers; j++) {
        size_t channel = (size_t)linear->channels[j];
        linear->outlier_factor[j] = smoothing(group, channel);
        linear->tail_channels[channel / 16] &= (uint16_t)~(1u << channel % 16);
    }
    size_t from = 0;
    for (const Layer *layer = group->layers; layer < group->layers + group->count; from += layer++->columns) {
        const int8_t *values = layer->values;
        memcpy(linear->bias + from, layer->bias, layer->columns * sizeof(float));
        for (size_t n = 0; n < layer->columns; n++)
            linear->scales[from + n] = scale(group, layer, n);
        for (size_t k = 0; linear->dither && k < linear->inputs; k++)
            for (size_t n = 0; n < layer->columns; n++)
                linear->dither_weights[from + n] += (float)values[k * layer->columns + n]; /* exact */
        for (size_t j = 0; j < linear->outliers; j++)
            memcpy(linear->outlier_rows + j * width + from, layer->rows + j * layer->columns,
                   layer->columns * sizeof(float));
    }
    for (size_t n = 0; n < width; n++)
        linear->dither_weights[n] *= linear->scales[n];
    return packed;
}

static int same_float(float a, float b) { return !memcmp(&a, &b, sizeof a); }

static int are_floats_packed_from(const PackedLinear *packed, const Group *group) {
    const Linear *have = &packed->linear, *want = &group->linear;
    if (packed->kernels != group->kernels || have->inputs != want->inputs || have->outputs != want->outputs)
        return 0;
    size_t from = 0;
    for (const Layer *layer = group->layers; layer < group->layers + group->count; from += layer++->columns)
        if (memcmp(have->bias + from, layer->bias, layer->columns * sizeof(float)))
            return 0;
    return values_are_packed(have, group);
}

/* Whether packing the group would give this. Everything is compared, so that no model gets the weights of another;
 * layers that differ do so in their scale, nearly always, which comes first. */
static int is_packed_from(const PackedLinear *packed, const Group *group) {
    const Linear *have = &packed->linear, *want = &group->linear;
    if (have->weights != want->weights)
        return 0;
    if (want->weights != INT8_WEIGHTS)
        return are_floats_packed_from(packed, group);
    if (packed->kernels != group->kernels || !same_float(have->scale, want->scale) ||
        have->zero_point != want->zero_point || have->tails != want->tails || have->dither != want->dither || have->inputs != want->inputs ||
        have->outputs != want->outputs || have->outliers != want->outliers ||
        memcmp(have->channels, want->channels, want->outliers * sizeof want->channels[0]))
        return 0;
    for (size_t k = 0; k < want->inputs; k++)
        if (!same_float(have->factor[k], factor(group, k)))
            return 0;
    for (size_t j = 0; j < want->outliers; j++)
        if (!same_float(have->outlier_factor[j], smoothing(group, (size_t)want->channels[j])))
            return 0;
    size_t from = 0;
    for (const Layer *layer = group->layers; layer < group->layers + group->count; from += layer++->columns) {
        if (memcmp(have->bias + from, layer->bias, layer->columns * sizeof(float)))
            return 0;
        for (size_t n = 0; n < layer->columns; n++)
            if (!same_float(have->scales[from + n], scale(group, layer, n)))
                return 0;
        for (size_t j = 0; j < want->outliers; j++)
            if (memcmp(have->outlier_rows + j * have->panels * 16 + from, layer->rows + j * layer->columns,
                       layer->columns * sizeof(float)))
                return 0;
    }
    return values_are_packed(have, group);
}

const Linear *read_linear(Reader *reader, const Kernels *kernels, const char *prefix, unsigned allowed) {
    Group group = {.prefix = prefix, .kernels = kernels};
    read_group(reader, allowed, &group);
    if (reader->error)
        return NULL;
    lock_packed();
    PackedLinear *found = all_packed;
    while (found && !is_packed_from(found, &group))
        found = found->next;
    if (!found) {
        found = pack(&group);
        if (found) {
            found->next = all_packed;
            all_packed = found;
        }
    }
    if (found && found->users++ && found->file.bytes)
        touch_shared(&found->file);
    unlock_packed();
    /* Else the file's pages would count beside what was packed from them. Only here it is certain that no other session
     * unmaps them: onnxruntime holds this one's constants while it makes its kernels. */
    for (size_t index = 0; index < group.count; index++)
        release_file_pages(group.layers[index].values, layer_bytes(&group, group.layers + index));
    if (!found)
        reader->error = no_memory(&reader->node);
    return found ? &found->linear : NULL;
}

void release_linear(const Linear *linear) {
    if (!linear)
        return;
    lock_packed();
    PackedLinear **place = &all_packed;
    while (&(*place)->linear != linear)
        place = &(*place)->next;
    PackedLinear *here = *place;
    if (--here->users == 0) {
        *place = here->next;
        free_packed(here);
    }
    unlock_packed();
}
