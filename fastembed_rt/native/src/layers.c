#include "layers.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 3 };

typedef struct Packed {
    struct Packed *next;
    uint64_t key[2];
    size_t users;
    Linear layer;
} Packed;

static Packed *all_packed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

OrtStatus *failure(const OrtApi *api, const char *message) {
    return CALL(api, CreateStatus, CREATE_STATUS)(INVALID_ARGUMENT, message);
}

static void fail(Reader *reader, const char *message) {
    if (!reader->error)
        reader->error = failure(reader->api, message);
}

static int absent(Reader *reader, OrtStatus *status) {
    if (status)
        CALL(reader->api, ReleaseStatus, RELEASE_STATUS)(status);
    return status != NULL;
}

int64_t read_int(Reader *reader, const char *name, int64_t otherwise) {
    int64_t found = otherwise;
    return absent(reader, CALL(reader->api, AttributeInt, ATTRIBUTE_INT)(reader->info, name, &found)) ? otherwise
                                                                                                     : found;
}

float read_float(Reader *reader, const char *name) {
    float found = 0.0f;
    if (absent(reader, CALL(reader->api, AttributeFloat, ATTRIBUTE_FLOAT)(reader->info, name, &found)))
        fail(reader, name);
    return found;
}

const void *read_constant(Reader *reader, int type, int64_t *rows, int64_t *columns) {
    const OrtApi *api = reader->api;
    const OrtValue *value = NULL;
    OrtTensorTypeAndShapeInfo *shape = NULL;
    int constant = 0, found = 0;
    size_t count = 0;
    int64_t dims[2] = {1, 1};
    void *data = NULL;
    if (reader->error)
        return NULL;
    reader->error = CALL(api, ConstantInput, CONSTANT_INPUT)(reader->info, reader->next++, &constant, &value);
    if (!reader->error && (!constant || !value))
        fail(reader, "fastembed_rt: a weight is not constant");
    if (!reader->error)
        reader->error = CALL(api, GetTensorTypeAndShape, GET_TENSOR_TYPE_AND_SHAPE)(value, &shape);
    if (!reader->error)
        reader->error = CALL(api, GetTensorElementType, GET_TENSOR_ELEMENT_TYPE)(shape, &found);
    if (!reader->error)
        reader->error = CALL(api, GetDimensionsCount, GET_DIMENSIONS_COUNT)(shape, &count);
    if (!reader->error && (found != type || count < 1 || count > 2))
        fail(reader, "fastembed_rt: a weight is of another type or shape than this operator takes");
    if (!reader->error)
        reader->error = CALL(api, GetDimensions, GET_DIMENSIONS)(shape, dims + (count == 1), count);
    if (!reader->error)
        reader->error = CALL(api, GetTensorMutableData, GET_TENSOR_MUTABLE_DATA)((OrtValue *)value, &data);
    if (shape)
        CALL(api, ReleaseShape, RELEASE_SHAPE)(shape);
    *rows = dims[0];
    *columns = dims[1];
    return reader->error ? NULL : data;
}

/* Two sums of products over the bytes, in 8-byte words; not for adversaries, who could as well change the weights. */
static void mix(uint64_t key[2], const void *data, size_t bytes) {
    const uint8_t *p = data;
    uint64_t a = key[0] ^ bytes, b = key[1] + bytes;
    for (; bytes >= 8; p += 8, bytes -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        a = (a ^ word) * 0x9E3779B97F4A7C15u;
        a ^= a >> 29;
        b = (b + word) * 0xC2B2AE3D27D4EB4Fu;
        b ^= b >> 31;
    }
    for (; bytes; p++, bytes--) {
        a = (a ^ *p) * 0x9E3779B97F4A7C15u;
        b = (b + *p) * 0xC2B2AE3D27D4EB4Fu;
    }
    key[0] = a ^ a >> 32;
    key[1] = b ^ b >> 32;
}

static void *room(size_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

static void free_layer(Linear *layer) {
    free(layer->factor);
    free(layer->outlier_rows);
    free(layer->values);
    free(layer->start);
    free(layer->scales);
    free(layer->bias);
}

/* The weights of one layer as they are in the graph. */
typedef struct {
    const int8_t *values;
    const float *scales, *bias, *rows;
    int64_t columns;
} Given;

static int build(Linear *layer, const Kernels *kernels, const Given *given, size_t count, const float *smooth) {
    size_t width;
    layer->depth = (layer->inputs + 15) / 16 * 16;
    layer->panels = (layer->outputs + 15) / 16;
    width = layer->panels * 16;
    layer->factor = room((layer->depth + 16) * sizeof(float));
    layer->values = room(kernels->values_size(layer));
    layer->start = room(width * sizeof(int32_t));
    layer->scales = room(width * sizeof(float));
    layer->bias = room(width * sizeof(float));
    layer->outlier_rows = room(layer->outliers * width * sizeof(float));
    if (!layer->factor || !layer->values || !layer->start || !layer->scales || !layer->bias || !layer->outlier_rows)
        return 0;
    memset(layer->factor, 0, (layer->depth + 16) * sizeof(float));
    memset(layer->values, 0, kernels->values_size(layer));
    memset(layer->start, 0, width * sizeof(int32_t));
    memset(layer->scales, 0, width * sizeof(float));
    memset(layer->bias, 0, width * sizeof(float));
    memset(layer->outlier_rows, 0, layer->outliers * width * sizeof(float));
    for (size_t k = 0; k < layer->inputs; k++)
        layer->factor[k] = (smooth ? smooth[k] : 1.0f) / layer->scale;
    for (size_t j = 0; j < layer->outliers; j++)
        layer->outlier_factor[j] = smooth ? smooth[layer->channels[j]] : 1.0f;
    size_t from = 0;
    for (size_t index = 0; index < count; index++) {
        size_t columns = (size_t)given[index].columns;
        kernels->pack(layer, given[index].values, columns, from);
        memcpy(layer->bias + from, given[index].bias, columns * sizeof(float));
        for (size_t n = 0; n < columns; n++)
            layer->scales[from + n] = given[index].scales[n] * layer->scale;
        for (size_t j = 0; j < layer->outliers; j++)
            memcpy(layer->outlier_rows + j * width + from, given[index].rows + j * columns, columns * sizeof(float));
        from += columns;
    }
    return 1;
}

const Linear *read_linear(Reader *reader, const Kernels *kernels, const char *prefix) {
    char name[64];
    Given given[MOST_LAYERS];
    Linear layer = {0};
    uint64_t key[2] = {0x243F6A8885A308D3u, 0x13198A2E03707344u}; /* digits of pi */
    int64_t rows = 0, columns = 0;
    const float *smooth = NULL;
    size_t outliers = MOST_OUTLIERS;

    snprintf(name, sizeof name, "%s_scale", prefix);
    layer.scale = read_float(reader, name);
    snprintf(name, sizeof name, "%s_zero", prefix);
    layer.zero = (int32_t)read_int(reader, name, -1);
    snprintf(name, sizeof name, "%s_outliers", prefix);
    if (absent(reader, CALL(reader->api, AttributeInts, ATTRIBUTE_INTS)(reader->info, name, layer.channels, &outliers)))
        outliers = 0;
    layer.outliers = outliers;
    snprintf(name, sizeof name, "%s_smooth", prefix);
    if (read_int(reader, name, 0))
        smooth = read_constant(reader, FLOAT_TYPE, &rows, &columns);
    size_t smoothed = (size_t)columns;
    snprintf(name, sizeof name, "%s_layers", prefix);
    int64_t count = read_int(reader, name, 0);
    if (count < 1 || count > MOST_LAYERS || layer.zero < 0 || layer.zero > 255 || !(layer.scale > 0))
        fail(reader, "fastembed_rt: a group of layers is described wrongly");
    mix(key, &layer.scale, sizeof layer.scale);
    mix(key, &layer.zero, sizeof layer.zero);
    mix(key, layer.channels, outliers * sizeof layer.channels[0]);
    for (int64_t index = 0; index < count && !reader->error; index++) {
        Given *here = given + index;
        int64_t inputs = 0, width = 0, one = 0;
        here->values = read_constant(reader, INT8_TYPE, &inputs, &here->columns);
        here->scales = read_constant(reader, FLOAT_TYPE, &one, &width);
        int fits = width == here->columns && (!index || (size_t)inputs == layer.inputs);
        here->bias = read_constant(reader, FLOAT_TYPE, &one, &width);
        fits = fits && width == here->columns;
        if (outliers) {
            here->rows = read_constant(reader, FLOAT_TYPE, &one, &width);
            fits = fits && width == here->columns && (size_t)one == outliers;
        }
        if (reader->error)
            return NULL;
        if (!fits || inputs < 1 || here->columns < 1) {
            fail(reader, "fastembed_rt: weights, scales and biases of a layer differ in width");
            return NULL;
        }
        layer.inputs = (size_t)inputs;
        layer.outputs += (size_t)here->columns;
        mix(key, here->values, (size_t)(inputs * here->columns));
        mix(key, here->scales, (size_t)here->columns * sizeof(float));
        mix(key, here->bias, (size_t)here->columns * sizeof(float));
        if (outliers)
            mix(key, here->rows, outliers * (size_t)here->columns * sizeof(float));
    }
    for (size_t j = 0; j < outliers; j++)
        if (layer.channels[j] < 0 || (size_t)layer.channels[j] >= layer.inputs)
            fail(reader, "fastembed_rt: an outlier channel is not one of the inputs");
    if (smooth && smoothed != layer.inputs)
        fail(reader, "fastembed_rt: the smoothing is not as wide as the input");
    if (reader->error)
        return NULL;
    if (smooth)
        mix(key, smooth, layer.inputs * sizeof(float));
    mix(key, &kernels, sizeof kernels);

    pthread_mutex_lock(&lock);
    Packed *found = all_packed;
    while (found && (found->key[0] != key[0] || found->key[1] != key[1]))
        found = found->next;
    if (!found) {
        found = calloc(1, sizeof *found);
        if (found) {
            found->layer = layer;
            if (!build(&found->layer, kernels, given, (size_t)count, smooth)) {
                free_layer(&found->layer);
                free(found);
                found = NULL;
            }
        }
        if (found) {
            memcpy(found->key, key, sizeof key);
            found->next = all_packed;
            all_packed = found;
        } else {
            fail(reader, "fastembed_rt: no memory for the weights");
        }
    }
    if (found)
        found->users++;
    pthread_mutex_unlock(&lock);
    return found ? &found->layer : NULL;
}

void release_linear(const Linear *layer) {
    if (!layer)
        return;
    pthread_mutex_lock(&lock);
    for (Packed **place = &all_packed; *place; place = &(*place)->next) {
        Packed *here = *place;
        if (&here->layer == layer && --here->users == 0) {
            *place = here->next;
            free_layer(&here->layer);
            free(here);
            break;
        }
        if (&here->layer == layer)
            break;
    }
    pthread_mutex_unlock(&lock);
}
