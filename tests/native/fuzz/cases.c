#include "cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"

uint64_t bits(Random *random) { /* splitmix64 */
    uint64_t z = random->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
int64_t between(Random *random, int64_t least, int64_t most) {
    return least + (int64_t)(bits(random) % (uint64_t)(most - least + 1));
}
int chance(Random *random, int one_in) { return bits(random) % (uint64_t)one_in == 0; }
double real_between(Random *random, double least, double most) {
    return least + (most - least) * (double)(bits(random) >> 11) * 0x1p-53;
}
double normal(Random *random) {
    double sum = 0;
    for (int k = 0; k < 6; k++)
        sum += real_between(random, -1, 1);
    return sum / sqrt(2);
}

/* ---- what a node has --------------------------------------------------------------------------------------------- */

static Attribute *attribute(Case *made, const char *prefix, const char *name, Kind kind) {
    Attribute *found = made->info.attributes + made->info.attribute_count++;
    *found = (Attribute){.kind = kind};
    snprintf(found->name, sizeof found->name, "%s%s", prefix, name);
    return found;
}
static void whole(Case *made, const char *prefix, const char *name, int64_t value) {
    attribute(made, prefix, name, WHOLE)->whole = value;
}
static void text(Case *made, const char *name, const char *value) {
    Attribute *found = attribute(made, "", name, TEXT);
    found->count = strlen(value);
    memcpy(found->text, value, found->count + 1);
}

static OrtValue *input(Case *made, int type, int constant, size_t rank, int64_t rows, int64_t columns) {
    OrtValue *value = made->values + made->info.input_count;
    made->info.inputs[made->info.input_count++] = value;
    const int64_t dims[2] = {rank == 2 ? rows : columns, columns};
    fill_tensor(value, type, rank, dims, 0);
    value->constant = constant;
    return value;
}

static const float *floats(Case *made, Random *random, int constant, size_t rank, size_t rows, size_t columns,
                           double mean, double deviation) {
    OrtValue *value = input(made, FLOAT_TYPE, constant, rank, (int64_t)rows, (int64_t)columns);
    float *data = value->data;
    for (size_t k = 0; k < value->bytes / 4; k++)
        data[k] = (float)(mean + deviation * normal(random));
    return data;
}

static Matrix doubles(const float *from, size_t rows, size_t columns) {
    Matrix made = matrix(rows, columns);
    for (size_t k = 0; k < rows * columns; k++)
        made.values[k] = from[k];
    return made;
}

static const uint16_t *bf16_values(Case *made, Random *random, size_t rows, size_t columns) {
    OrtValue *value = input(made, BF16_TYPE, 1, 2, (int64_t)rows, (int64_t)columns);
    uint16_t *data = value->data;
    int odd = chance(random, 4); /* with zeros and what has to be rounded, which are packed one by one */
    for (size_t k = 0; k < rows * columns; k++) {
        double weight = 0.1 * normal(random);
        if (odd && chance(random, 20))
            weight = chance(random, 2) ? 0 : ldexp(weight, (int)between(random, -90, -40));
        data[k] = to_bf16((float)weight);
    }
    return data;
}

static int is_bf16(const Case *made) { return !strncmp(made->info.op, "Bf16", 4); }
static int is_fp32(const Case *made) { return !strncmp(made->info.op, "Fp32", 4); }

/* With bfloat16 or float weights. */
static ReferenceGroup float_group(Case *made, Random *random, const char *prefix, size_t inputs, size_t count,
                                  const size_t *columns, double strength) {
    ReferenceGroup found = {.inputs = inputs, .count = count};
    whole(made, prefix, "_layers", (int64_t)count);
    for (size_t part = 0; part < count; part++) {
        if (is_bf16(made))
            found.bf16[part] = bf16_values(made, random, inputs, columns[part]);
        else
            found.fp32[part] = floats(made, random, 1, 2, inputs, columns[part], 0, 0.1);
        found.biases[part] = floats(made, random, 1, 1, 1, columns[part], 0, strength);
        found.columns[part] = columns[part];
        found.outputs += columns[part];
    }
    return found;
}

static ReferenceGroup group(Case *made, Random *random, const char *prefix, size_t inputs, size_t count,
                            const size_t *columns, double strength, int may_have_dither) {
    if (is_bf16(made) || is_fp32(made))
        return float_group(made, random, prefix, inputs, count, columns, strength);
    ReferenceGroup found = {.inputs = inputs, .count = count};
    found.scale = (float)real_between(random, 0.005, 0.05);
    found.zero = (int)between(random, 0, 255);
    attribute(made, prefix, "_scale", REAL)->real = found.scale;
    whole(made, prefix, "_zero", found.zero);
    whole(made, prefix, "_layers", (int64_t)count);
    if (chance(random, 3)) {
        Attribute *channels = attribute(made, prefix, "_outliers", WHOLES);
        size_t most = (size_t)between(random, 1, chance(random, 8) ? 16 : 3);
        for (size_t k = 0; k < inputs && channels->count < most; k++)
            if (chance(random, 3))
                found.channels[channels->count] = channels->wholes[channels->count] = (int64_t)k, channels->count++;
        found.outliers = channels->count;
        if (!found.outliers)
            made->info.attribute_count--;
    }
    if (chance(random, 2))
        whole(made, prefix, "_tails", found.tails = 1);
    if (may_have_dither && chance(random, 2))
        whole(made, prefix, "_dither", found.dither = 1);
    if (chance(random, 3)) {
        whole(made, prefix, "_smooth", 1);
        found.smooth = floats(made, random, 1, 1, 1, inputs, 1.2, 0.1);
    }
    for (size_t part = 0; part < count; part++) {
        OrtValue *values = input(made, INT8_TYPE, 1, 2, (int64_t)inputs, (int64_t)columns[part]);
        int wide = chance(random, 4);
        for (size_t k = 0; k < values->bytes; k++)
            ((int8_t *)values->data)[k] =
                (int8_t)(wide ? between(random, -128, 127) : lrint(40 * normal(random)) % 128);
        found.values[part] = values->data;
        float *scales = (float *)floats(made, random, 1, 1, 1, columns[part], 0.0025, 0.0005);
        for (size_t n = 0; n < columns[part]; n++)
            scales[n] = (float)(fabs((double)scales[n]) * strength + 1e-5);
        found.scales[part] = scales;
        found.biases[part] = floats(made, random, 1, 1, 1, columns[part], 0, strength);
        if (found.outliers)
            found.rows[part] = floats(made, random, 1, 2, found.outliers, columns[part], 0, 0.1);
        found.columns[part] = columns[part];
        found.outputs += columns[part];
    }
    return found;
}

/* Of each of `parts` of `width` columns from `first` on. */
static void some_norm(Case *made, Random *random, const char *prefix, Matrix *y, size_t first, size_t width,
                      size_t parts) {
    int rms = chance(random, 2), biased = chance(random, 2);
    float epsilon = chance(random, 4) ? 1e-3f : 1e-6f;
    whole(made, prefix, "norm", 1);
    if (rms)
        whole(made, prefix, "rms", 1);
    if (biased)
        whole(made, prefix, "norm_bias", 1);
    attribute(made, prefix, "epsilon", REAL)->real = epsilon;
    const float *weight = floats(made, random, 1, 1, 1, width, 1, 0.2);
    const float *bias = biased ? floats(made, random, 1, 1, 1, width, 0, 0.2) : NULL;
    for (size_t part = 0; part < parts; part++)
        normalize(y, first + part * width, width, weight, bias, epsilon, rms);
}

static void finish(Case *made, Random *random, Matrix *y) {
    if (chance(random, 4)) {
        whole(made, "", "residual", 1);
        whole(made, "", "norm_first", 1);
        OrtValue *later = made->values + made->info.input_count;
        const float *residual = floats(made, random, chance(random, 8), 2, y->rows, y->columns, 0, 1);
        later->fed = 1;
        some_norm(made, random, "", y, 0, y->columns, 1);
        add_residual(y, residual);
        return;
    }
    if (chance(random, 2)) {
        whole(made, "", "residual", 1);
        OrtValue *residual = made->values + made->info.input_count;
        add_residual(y, floats(made, random, chance(random, 8), 2, y->rows, y->columns, 0, 1));
        residual->fed = 1;
    }
    if (chance(random, 2))
        some_norm(made, random, "", y, 0, y->columns, 1);
}

static void expect(Case *made, Matrix y) {
    made->rows = y.rows;
    made->columns = y.columns;
    made->expected = y.values;
    made->tolerance = y.doubt;
}

static size_t some_rows(Random *random) { return (size_t)between(random, 0, chance(random, 12) ? 140 : 12); }
static size_t some_width(Random *random) { return (size_t)between(random, 1, chance(random, 6) ? 90 : 20); }

static const char *some_activation(Random *random) {
    static const char *const names[] = {"", "gelu", "gelu_tanh", "silu", "relu", "tanh"};
    return names[between(random, 0, 5)];
}

/* Texts in `starts`, whose last is the number of tokens. */
static const int64_t *some_starts(Case *made, Random *random) {
    size_t texts = (size_t)between(random, 0, 5);
    OrtValue *value = input(made, INT64_TYPE, 0, 1, 1, (int64_t)texts + 1);
    int64_t *starts = value->data;
    starts[0] = 0;
    for (size_t text = 0; text < texts; text++)
        starts[text + 1] = starts[text] + (chance(random, 4) ? 0 : between(random, 1, chance(random, 10) ? 70 : 9));
    if (texts && chance(random, 10)) /* more than a block of keys */
        starts[texts] += between(random, 100, 300);
    else if (texts && chance(random, 50)) /* whose tasks share keys */
        starts[texts] += between(random, 577, 800);
    return starts;
}

static ReferenceAttention some_attention(Case *made, Random *random, size_t widest) {
    ReferenceAttention shape = {.before = -1, .after = -1};
    shape.kv_heads = (size_t)between(random, 1, 2);
    shape.heads = shape.kv_heads * (size_t)between(random, 1, 2);
    shape.size = chance(random, 4) ? 16 : (size_t)between(random, 1, (int64_t)widest); /* whole panels, oftener */
    whole(made, "", "heads", (int64_t)shape.heads);
    if (shape.kv_heads != shape.heads || chance(random, 2))
        whole(made, "", "kv_heads", (int64_t)shape.kv_heads);
    if (chance(random, 4))
        whole(made, "", "before", shape.before = chance(random, 4) ? MOST_NUMBERS << 20 : between(random, 0, 20));
    if (chance(random, 4))
        whole(made, "", "after", shape.after = chance(random, 4) ? 0x7FFFFFFF : between(random, 0, 20));
    if (chance(random, 4)) {
        float cap = chance(random, 2) ? 50.0f : 0.5f;
        whole(made, "", "capped", 1);
        attribute(made, "", "cap", REAL)->real = cap;
        shape.cap = cap;
    }
    return shape;
}

/* How many tokens of each text are keys: as many as the last query sees one of, at least. Whether there are such. */
static int some_seen(Case *made, Random *random, ReferenceAttention *shape) {
    if (!chance(random, 4))
        return 0;
    whole(made, "", "seen", 1);
    OrtValue *value = input(made, INT64_TYPE, 0, 1, 1, (int64_t)shape->texts);
    int64_t *seen = value->data;
    for (size_t text = 0; text < shape->texts; text++) {
        int64_t length = shape->starts[text + 1] - shape->starts[text], least = length > 0;
        if (shape->before >= 0 && length - shape->before > least)
            least = length - shape->before;
        seen[text] = chance(random, 4) ? least : between(random, least, length);
    }
    shape->seen = seen;
    return 1;
}

/* Tokens of the longest text, and a few. */
static int64_t some_reach(Random *random, const ReferenceAttention *shape) {
    int64_t reach = 1;
    for (size_t text = 0; text < shape->texts; text++)
        if (reach < shape->starts[text + 1] - shape->starts[text])
            reach = shape->starts[text + 1] - shape->starts[text];
    return reach + between(random, 0, chance(random, 3) ? 40 : 3);
}

static int some_table(Case *made, Random *random, ReferenceAttention *shape) {
    if (!chance(random, 4))
        return 0;
    whole(made, "", "by_distance", 1);
    shape->table_columns = (size_t)(2 * some_reach(random, shape) - 1);
    shape->table = floats(made, random, 1, 2, shape->heads, shape->table_columns, 0, 1);
    return 1;
}

/* Rows of distances, one each near the token and shared farther away, and tables that they are in. */
static void some_relative(Case *made, Random *random, ReferenceAttention *shape) {
    if (!chance(random, 3))
        return;
    int64_t reach = some_reach(random, shape), near = chance(random, 3) ? reach : between(random, 0, reach);
    OrtValue *value = input(made, INT64_TYPE, 1, 1, 1, 2 * reach - 1);
    int64_t *rows = value->data, shared = between(random, 1, 4);
    rows[0] = between(random, 0, 5);
    for (int64_t k = 1; k < 2 * reach - 1; k++) {
        int64_t distance = k < reach ? reach - k : k - reach + 1;
        rows[k] = rows[k - 1] + (distance <= near || chance(random, (int)shared));
    }
    size_t count = (size_t)(rows[2 * reach - 2] + 1 + between(random, 0, 3)), width = shape->heads * shape->size;
    int kinds = (int)between(random, 1, 3);
    shape->rows = rows + reach - 1;
    shape->in_float = 1;
    double strength = 0.7 / sqrt(sqrt((double)shape->size));
    if (kinds & 1) {
        whole(made, "", "c2p", 1);
        shape->c2p = floats(made, random, 1, 2, count, width, 0, strength);
    }
    if (kinds & 2) {
        whole(made, "", "p2c", 1);
        shape->p2c_columns = (count + 15) / 16 * 16;
        shape->p2c = floats(made, random, 1, 2, width, shape->p2c_columns, 0, strength);
    }
}

/* What a text's tokens see, or what their distances add. */
static void some_of_these(Case *made, Random *random, ReferenceAttention *shape) {
    if (!some_seen(made, random, shape) && !some_table(made, random, shape))
        some_relative(made, random, shape);
}

/* ---- the operators ----------------------------------------------------------------------------------------------- */

static void linear_case(Case *made, Random *random) {
    size_t inputs = some_width(random), rows = some_rows(random), count = (size_t)between(random, 1, 3), texts = 0;
    size_t columns[3] = {some_width(random), some_width(random), some_width(random)};
    const int64_t *starts = NULL;
    if (chance(random, 4)) {
        whole(made, "", "largest", 1);
        made->info.input_count = 1; /* x is made when the number of tokens is known */
        starts = some_starts(made, random);
        texts = (size_t)made->values[1].dims[0] - 1;
        rows = (size_t)starts[texts];
        made->info.input_count = 0;
    }
    Matrix x = doubles(floats(made, random, 0, 2, rows, inputs, 0, chance(random, 3) ? 6 : 1), rows, inputs);
    made->info.input_count += starts != NULL;
    ReferenceGroup layers = group(made, random, "linear", inputs, count, columns, 1, 1);
    Matrix y = linear_layers(&layers, &x);
    const char *activation = some_activation(random);
    if (*activation || chance(random, 2))
        text(made, "activation", activation);
    activate(&y, activation);
    free_matrix(&x);
    if (starts) {
        expect(made, largest_of(&y, starts, texts));
        free_matrix(&y);
        return;
    }
    finish(made, random, &y);
    expect(made, y);
}

static void feed_forward_case(Case *made, Random *random) {
    int gated = chance(random, 2);
    size_t inputs = some_width(random), rows = some_rows(random), outputs = some_width(random);
    size_t hidden = gated ? 16 * (size_t)between(random, 1, 3) : some_width(random);
    size_t columns[2] = {hidden, hidden}, split = gated && chance(random, 3) ? 1 : 1 + (size_t)gated;
    if (gated && split == 1)
        columns[0] = 2 * hidden;
    Matrix x = doubles(floats(made, random, 0, 2, rows, inputs, 0, 1), rows, inputs);
    ReferenceGroup up = group(made, random, "up", inputs, split, columns, 1, 1);
    ReferenceGroup down = group(made, random, "down", hidden, 1, &outputs, 1, 0);
    const char *activation = some_activation(random);
    text(made, "activation", activation);
    if (gated)
        whole(made, "", "gated", 1);
    if (chance(random, 3))
        some_norm(made, random, "before_", &x, 0, inputs, 1);
    Matrix wide = linear_layers(&up, &x), inner = wide;
    if (gated) {
        inner = gate(&wide, activation);
        free_matrix(&wide);
    } else {
        activate(&inner, activation);
    }
    Matrix y = linear_layers(&down, &inner);
    finish(made, random, &y);
    free_matrix(&inner);
    free_matrix(&x);
    expect(made, y);
}

static void attention_case(Case *made, Random *random) {
    ReferenceAttention shape = some_attention(made, random, chance(random, 8) ? 70 : 20);
    const int64_t *starts = some_starts(made, random); /* its place is behind the others */
    OrtValue starts_value = made->values[0];
    made->info.input_count = 0;
    shape.starts = starts;
    shape.texts = (size_t)starts_value.dims[0] - 1;
    shape.first_only = chance(random, 4);
    if (shape.first_only)
        whole(made, "", "first_only", 1);
    if (chance(random, 2))
        whole(made, "", "in_float", shape.in_float = 1);
    size_t tokens = (size_t)starts[shape.texts], queries = shape.first_only ? shape.texts : tokens;
    double strength = 1.5 / sqrt(sqrt((double)shape.size)); /* not pow: C libraries differ in its last bit */
    size_t widths[3] = {shape.heads * shape.size, shape.kv_heads * shape.size, shape.kv_heads * shape.size};
    Matrix inputs[3];
    for (size_t k = 0; k < 3; k++) {
        size_t rows = k ? tokens : queries;
        inputs[k] = doubles(floats(made, random, 0, 2, rows, widths[k], 0, k == 2 ? 1 : strength), rows, widths[k]);
    }
    made->values[3] = starts_value;
    made->info.inputs[3] = made->values + 3;
    made->info.input_count = 4;
    some_of_these(made, random, &shape);
    if (shape.rows || chance(random, 2)) /* distances need it */
        whole(made, "", "size", (int64_t)shape.size);
    expect(made, attention_of(&shape, inputs, inputs + 1, inputs + 2));
    for (size_t k = 0; k < 3; k++)
        free_matrix(inputs + k);
}

static Matrix columns_of(const Matrix *from, size_t first, size_t width) {
    Matrix part = matrix(from->rows, width);
    for (size_t r = 0; r < from->rows; r++) {
        memcpy(part.values + r * width, from->values + r * from->columns + first, width * 8);
        memcpy(part.doubt + r * width, from->doubt + r * from->columns + first, width * 8);
    }
    return part;
}

static void block_case(Case *made, Random *random) {
    ReferenceAttention shape = some_attention(made, random, 16);
    shape.in_float = is_fp32(made);
    int turned = chance(random, 3);
    if (turned)
        shape.size = 32 * (size_t)between(random, 1, 2);
    whole(made, "", "size", (int64_t)shape.size);
    size_t inputs = some_width(random), width = shape.heads * shape.size, kv_width = shape.kv_heads * shape.size;
    made->info.input_count = 1; /* x is made when the number of tokens is known */
    shape.starts = some_starts(made, random);
    shape.texts = (size_t)made->values[1].dims[0] - 1;
    size_t tokens = (size_t)shape.starts[shape.texts];
    made->info.input_count = 0;
    Matrix x = doubles(floats(made, random, 0, 2, tokens, inputs, 0, 1), tokens, inputs);
    made->info.input_count = 2;
    some_of_these(made, random, &shape);
    const float *angles[2] = {NULL, NULL};
    if (turned && chance(random, 2)) {
        whole(made, "", "rotary", 1);
        for (size_t k = 0; k < 2; k++)
            angles[k] = floats(made, random, 0, 2, tokens, shape.size / 2, 0, 0.7);
    }
    size_t columns[3] = {width, kv_width, kv_width}, outputs = some_width(random);
    ReferenceGroup first = group(made, random, "input", inputs, 3, columns, 0.5, 1);
    ReferenceGroup second = group(made, random, "output", width, 1, &outputs, 1, 1);
    Matrix projected = linear_layers(&first, &x);
    if (turned && chance(random, 2))
        some_norm(made, random, "query_", &projected, 0, shape.size, shape.heads);
    if (turned && chance(random, 2))
        some_norm(made, random, "key_", &projected, width, shape.size, shape.kv_heads);
    if (turned && chance(random, 2))
        some_norm(made, random, "value_", &projected, width + kv_width, shape.size, shape.kv_heads);
    for (size_t head = 0; angles[0] && head < shape.heads + shape.kv_heads; head++)
        turn(&projected, head * shape.size, shape.size, angles[0], angles[1]);
    Matrix query = columns_of(&projected, 0, width), key = columns_of(&projected, width, kv_width);
    Matrix value = columns_of(&projected, width + kv_width, kv_width);
    Matrix mixed = attention_of(&shape, &query, &key, &value), y = linear_layers(&second, &mixed);
    finish(made, random, &y);
    Matrix *done[] = {&x, &projected, &query, &key, &value, &mixed};
    for (size_t k = 0; k < sizeof done / sizeof done[0]; k++)
        free_matrix(done[k]);
    expect(made, y);
}

static void embedding_case(Case *made, Random *random) {
    size_t words = (size_t)between(random, 1, 50), width = some_width(random), tokens = some_rows(random);
    OrtValue *ids = input(made, INT64_TYPE, 0, 1, 1, (int64_t)tokens);
    for (size_t k = 0; k < tokens; k++)
        ((int64_t *)ids->data)[k] = between(random, 0, (int64_t)words - 1);
    if (is_bf16(made)) {
        const uint16_t *table = bf16_values(made, random, words, width);
        Matrix y = matrix(tokens, width); /* exact */
        for (size_t r = 0; r < tokens; r++)
            for (size_t k = 0; k < width; k++)
                y.values[r * width + k] = from_bf16(table[(size_t)((int64_t *)ids->data)[r] * width + k]);
        expect(made, y);
        return;
    }
    OrtValue *values = input(made, INT8_TYPE, 1, 2, (int64_t)words, (int64_t)width);
    for (size_t k = 0; k < values->bytes; k++)
        ((int8_t *)values->data)[k] = (int8_t)between(random, -128, 127);
    const float *scales = floats(made, random, 1, 2, words, 1, 0, 0.1);
    Matrix y = matrix(tokens, width);
    for (size_t r = 0; r < tokens; r++)
        for (size_t k = 0; k < width; k++) {
            size_t id = (size_t)((int64_t *)ids->data)[r];
            y.values[r * width + k] = (double)((int8_t *)values->data)[id * width + k] * scales[id];
            y.doubt[r * width + k] = 1e-6 * fabs(y.values[r * width + k]);
        }
    expect(made, y);
}

static void mean_case(Case *made, Random *random) {
    size_t width = some_width(random);
    made->info.input_count = 1;
    const int64_t *starts = some_starts(made, random);
    size_t texts = (size_t)made->values[1].dims[0] - 1;
    made->info.input_count = 0;
    const float *x = floats(made, random, 0, 2, (size_t)starts[texts], width, 0, 1);
    made->info.input_count = 2;
    Matrix y = matrix(texts, width);
    for (size_t text = 0; text < texts; text++)
        for (size_t k = 0; k < width; k++) {
            double sum = 0, length = (double)(starts[text + 1] - starts[text]);
            for (int64_t r = starts[text]; r < starts[text + 1]; r++)
                sum += x[(size_t)r * width + k];
            y.values[text * width + k] = length > 0 ? sum / length : 0;
            y.doubt[text * width + k] = length > 0 ? 1e-5 : 0;
        }
    expect(made, y);
}

void make_case(Case *made, uint64_t number) {
    static const struct { const char *op; void (*make)(Case *, Random *); } rows[] = {
        {"QuantLinear", linear_case}, {"QuantFeedForward", feed_forward_case}, {"PackedAttention", attention_case},
        {"QuantAttention", block_case}, {"QuantEmbedding", embedding_case}, {"PackedMean", mean_case},
        {"Bf16Linear", linear_case}, {"Bf16FeedForward", feed_forward_case}, {"Bf16Attention", block_case},
        {"Bf16Embedding", embedding_case}, {"Fp32Linear", linear_case}, {"Fp32FeedForward", feed_forward_case},
        {"Fp32Attention", block_case},
    };
    Random random = {number * 0xD1342543DE82EF95u + 1};
    size_t op = (size_t)between(&random, 0, sizeof rows / sizeof rows[0] - 1);
    memset(made, 0, sizeof *made);
    made->info.op = rows[op].op;
    made->sound = 1;
    rows[op].make(made, &random);
    if (chance(&random, 4)) {
        made->fails = (size_t)between(&random, 1, 16);
        made->mute = chance(&random, 4);
    }
    made->broken_pool = chance(&random, 50) ? (int)between(&random, 1, 5) : 0;
    if (!chance(&random, 4))
        spoil(made, &random);
}

void free_case(Case *made) {
    for (size_t k = 0; k < MOST_VALUES; k++)
        free_tensor(made->values + k);
    free(made->expected);
    free(made->tolerance);
}
