/* What models and feeds may come with: one to three things of a sound case changed. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

static const int64_t hostile_wholes[] = {
    0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 17, 63, 64, 255, 256, 257, 4096, 65535, 65536, 65537, INT32_MAX, INT32_MIN,
    (int64_t)INT32_MAX + 1, ((int64_t)1 << 32) + 5, (int64_t)1 << 62, -((int64_t)1 << 62) - 10,
    64 + INT64_MIN, INT64_MAX, INT64_MIN, INT64_MAX / 2, -2, -17,
};
static const float hostile_reals[] = {
    0.0f, -0.0f, -1.0f, NAN, INFINITY, -INFINITY, 1e-45f, 1e-38f, 1e38f, 3.4e38f, 1.0f,
};
static const char *const hostile_texts[] = {
    "gelu_tanh_of_very_long_name", "sixteen_letters_", "GELU", "gel", "gelu ", "none",
    "an activation of some sixty letters, longer than any",
};
static const char *const known[] = {
    "linear_scale", "linear_zero", "linear_layers", "linear_outliers", "linear_smooth", "up_layers", "up_outliers",
    "down_zero", "down_smooth", "input_layers", "input_outliers", "output_scale", "output_layers", "activation",
    "gated", "residual", "norm", "norm_bias", "rms", "epsilon", "heads", "kv_heads", "size", "first_only", "before",
    "after", "by_distance", "linear_tails", "up_tails", "down_tails", "input_tails", "output_tails",
    "linear_dither", "up_dither", "down_dither", "input_dither", "output_dither", "norm_first", "rotary", "before_norm",
    "before_epsilon", "query_norm", "query_rms", "key_norm", "key_norm_bias", "value_norm", "in_float", "seen",
    "c2p", "p2c", "capped", "cap", "largest",
};

#define COUNT(list) (sizeof(list) / sizeof(list)[0])
#define ONE_OF(list) (list)[between(random, 0, (int64_t)COUNT(list) - 1)]

static void note(Case *made, const char *what, const char *name) {
    size_t length = strlen(made->spoiled);
    snprintf(made->spoiled + length, sizeof made->spoiled - length, "%s%s %s", length ? "; " : "", what, name);
}

static void fill_attribute(Case *made, Random *random, Attribute *found, Kind kind) {
    (void)made;
    found->kind = kind;
    found->count = 0;
    switch (kind) {
    case WHOLE: found->whole = chance(random, 8) ? (int64_t)bits(random) : ONE_OF(hostile_wholes); break;
    case REAL: found->real = ONE_OF(hostile_reals); break;
    case TEXT: {
        const char *text = ONE_OF(hostile_texts);
        found->count = strlen(text);
        memcpy(found->text, text, found->count + 1);
        if (chance(random, 3)) { /* a name with more behind its end */
            memcpy(found->text, "gelu\0more", 9);
            found->count = 9;
        }
        break;
    }
    case WHOLES:
    case REALS:
        found->count = (size_t)between(random, 0, chance(random, 2) ? MOST_NUMBERS : 3);
        for (size_t k = 0; k < found->count; k++)
            found->wholes[k] = chance(random, 2) ? between(random, 0, 20) : ONE_OF(hostile_wholes);
        break;
    default: break;
    }
}

static void spoil_attribute(Case *made, Random *random) {
    size_t count = made->info.attribute_count;
    if (chance(random, 4) && count < MOST_ATTRIBUTES) { /* one more, or one said again */
        Attribute *found = made->info.attributes + made->info.attribute_count++;
        *found = (Attribute){0};
        snprintf(found->name, sizeof found->name, "%s", ONE_OF(known));
        fill_attribute(made, random, found, (Kind)between(random, 0, chance(random, 3) ? OTHER : WHOLE));
        note(made, "added", found->name);
        return;
    }
    if (!count)
        return;
    Attribute *found = made->info.attributes + between(random, 0, (int64_t)count - 1);
    if (chance(random, 4)) {
        note(made, "removed", found->name);
        *found = made->info.attributes[--made->info.attribute_count];
    } else if (chance(random, 3)) {
        Kind kind = (Kind)((found->kind + between(random, 1, KINDS - 1)) % KINDS);
        fill_attribute(made, random, found, kind);
        note(made, "another type of", found->name);
        made->refused = 1;
    } else {
        fill_attribute(made, random, found, found->kind);
        note(made, "another", found->name);
        if (found->kind == TEXT)
            made->refused = 1; /* none of those is an activation */
    }
}

static void again(OrtValue *value, Random *random, int type, size_t rank, const int64_t *dims, size_t offset) {
    OrtValue old = *value;
    int64_t some[4] = {0}, count = 1;
    for (size_t k = 0; k < rank; k++)
        some[k] = dims[k], count = dims[k] && count > (1 << 20) / dims[k] ? 1 << 21 : count * dims[k];
    if (count > 1 << 20)
        some[0] = 0; /* sizes that large are for tensors without elements */
    fill_tensor(value, type, rank, some, offset);
    for (size_t k = 0; k < value->bytes; k++)
        ((uint8_t *)value->data)[k] =
            k < old.bytes ? ((uint8_t *)old.data)[k] : (uint8_t)(bits(random) & 0x3F); /* no NaN by chance */
    free_tensor(&old);
}

static void spoil_content(Case *made, Random *random, OrtValue *value) {
    size_t count = value->bytes / bytes_of_type(value->type);
    if (!count || (uintptr_t)value->data % 8)
        return;
    size_t place = chance(random, 2) ? (size_t)between(random, 0, (int64_t)count - 1) : count - 1;
    if (value->type == FLOAT_TYPE) {
        float *data = value->data;
        for (size_t k = 0; k < count && chance(random, 3); k++)
            data[k] = ONE_OF(hostile_reals);
        data[place] = ONE_OF(hostile_reals);
        int finite_one = data[place] - data[place] == 0;
        if (value->constant && !value->fed && !finite_one && strcmp(made->info.op, "QuantEmbedding"))
            made->refused = 1;
        note(made, "floats", "");
    } else if (value->type == BF16_TYPE) {
        ((uint16_t *)value->data)[place] = chance(random, 2) ? 0x7F80 : 0xFFC1; /* infinite, or no number */
        if (value->constant && !value->fed && strcmp(made->info.op, "Bf16Embedding"))
            made->refused = 1;
        note(made, "bfloat16 numbers", "");
    } else if (value->type == INT64_TYPE) {
        int64_t *data = value->data;
        data[place] = ONE_OF(hostile_wholes);
        for (size_t k = 0; k < count && chance(random, 2); k++)
            data[k] = ONE_OF(hostile_wholes);
        note(made, "numbers", "");
    }
}

static void spoil_input(Case *made, Random *random) {
    OrtKernelInfo *info = &made->info;
    if (!info->input_count)
        return;
    size_t index = (size_t)between(random, 0, (int64_t)info->input_count - 1);
    OrtValue *value = info->inputs[index];
    if (!value)
        return;
    int64_t dims[4] = {value->dims[0], value->dims[1], 1, 1};
    char name[32];
    snprintf(name, sizeof name, "input %zu", index);
    switch (between(random, 0, 10)) {
    case 0:
        info->inputs[index] = NULL;
        note(made, "no", name);
        made->refused = 1;
        break;
    case 1: /* the inputs behind it move up */
        info->input_count--;
        memmove(info->inputs + index, info->inputs + index + 1, (info->input_count - index) * sizeof info->inputs[0]);
        note(made, "left out", name);
        made->refused = 1;
        break;
    case 2:
        info->inputs[info->input_count++] = value;
        note(made, "one more:", name);
        made->refused = 1;
        break;
    case 3: {
        size_t other = (size_t)between(random, 0, (int64_t)info->input_count - 1);
        info->inputs[index] = info->inputs[other];
        info->inputs[other] = value;
        note(made, "swapped", name);
        break;
    }
    case 4:
        value->constant = !value->constant;
        value->fed = 1;
        note(made, "constant or not:", name);
        break;
    case 5: {
        static const int types[] = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16};
        int type = ONE_OF(types);
        made->refused = made->refused || type != value->type;
        again(value, random, type, value->rank, dims, 0);
        note(made, "another type of", name);
        break;
    }
    case 6: {
        size_t rank = (size_t)between(random, 0, 4);
        made->refused = made->refused || rank != value->rank;
        if (value->rank == 1 && rank == 2 && chance(random, 2))
            dims[1] = dims[0], dims[0] = between(random, 0, 1); /* no row, or one */
        again(value, random, value->type, rank, dims, 0);
        note(made, "another rank of", name);
        break;
    }
    case 7:
    case 8: {
        static const int64_t changes[] = {-1, 1, 1, 16, -1000, 100};
        size_t place = (size_t)between(random, 0, value->rank > 1);
        if (dims[place] < 1 << 20)
            dims[place] += ONE_OF(changes);
        dims[place] = dims[place] < 0 ? 0 : dims[place];
        if (chance(random, 6) && value->rank == 2) /* no element, and as many columns as can be */
            dims[place] = 0, dims[1 - place] = chance(random, 2) ? INT64_MAX : INT32_MAX;
        again(value, random, value->type, value->rank, dims, 0);
        note(made, "another shape of", name);
        break;
    }
    case 9: /* as mapped from a file: for a constant that has to do */
        again(value, random, value->type, value->rank, dims, (size_t)between(random, 1, 7));
        note(made, "another address of", name);
        break;
    default: spoil_content(made, random, value);
    }
}

void spoil(Case *made, Random *random) {
    int64_t changes = between(random, 1, chance(random, 3) ? 3 : 1);
    made->sound = 0;
    for (int64_t k = 0; k < changes; k++) {
        if (chance(random, 3))
            spoil_attribute(made, random);
        else
            spoil_input(made, random);
    }
    made->refused = made->refused && changes == 1; /* two may take each other back */
}
