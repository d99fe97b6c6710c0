#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

Matrix matrix(size_t rows, size_t columns) {
    Matrix made = {rows, columns, checked_malloc(rows * columns * 8), checked_malloc(rows * columns * 8)};
    for (size_t k = 0; k < rows * columns; k++)
        made.values[k] = made.doubt[k] = 0;
    return made;
}

void free_matrix(Matrix *matrix) {
    free(matrix->values);
    free(matrix->doubt);
}

static double steps_of(const ReferenceGroup *group, double value) {
    return fmin(fmax(rint(value) + group->zero, 0), 255) - group->zero;
}

/* What the clip takes from it. */
static double beyond(const ReferenceGroup *group, double value, size_t channel) {
    for (size_t j = 0; j < group->outliers; j++)
        if ((size_t)group->channels[j] == channel)
            return 0;
    return group->tails ? value - fmin(fmax(value, -group->zero), 255 - group->zero) : 0;
}

/* Of a row whose inputs are known to the bit. */
static double dither_of(const ReferenceGroup *group, const double *row) {
    uint32_t hash = 0;
    for (size_t k = 0; k < group->inputs && k < 16; k++) {
        float factor = (group->smooth ? group->smooth[k] : 1.0f) / group->scale;
        float steps = fmaxf(fminf((float)row[k] * factor, 1e6f), -1e6f);
        hash = (hash + (uint32_t)(int32_t)lrintf(steps * 16)) * 0x9E3779B1u;
    }
    hash = (hash ^ hash >> 15) * 0x85EBCA77u;
    hash ^= hash >> 13;
    return (hash >> 8) / 16777216.0 - 0.5;
}

double from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

uint16_t to_bf16(float value) { /* half to even: an odd upper half goes up at half, an even one behind it */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t up = bits >> 16, low = bits & 0xFFFF;
    return (uint16_t)(low > 0x8000 || (low == 0x8000 && up % 2) ? up + 1 : up);
}

static Matrix bf16_layers(const ReferenceGroup *group, const Matrix *x) {
    Matrix y = matrix(x->rows, group->outputs);
    for (size_t r = 0; r < x->rows; r++)
        for (size_t part = 0, from = 0; part < group->count; from += group->columns[part++])
            for (size_t n = 0; n < group->columns[part]; n++) {
                double sum = group->biases[part][n], size = fabs(sum), doubted = 0;
                for (size_t k = 0; k < group->inputs; k++) {
                    double value = x->values[r * x->columns + k], doubt = x->doubt[r * x->columns + k];
                    double weight = from_bf16(group->bf16[part][k * group->columns[part] + n]);
                    double used = from_bf16(to_bf16((float)value));
                    if (doubt > 0) /* it may be rounded the other way, by a step of its last bit */
                        doubted += (doubt + (fabs(value) + doubt) / 128) * fabs(weight);
                    sum += used * weight;
                    size += fabs(used * weight);
                }
                y.values[r * y.columns + from + n] = sum;
                y.doubt[r * y.columns + from + n] = doubted + 2e-6 * size + 1e-6;
            }
    return y;
}

/* Of a rounding to float, as a share of what is rounded: a sum of n products in any order has n of them. */
static const double ROUNDING = 0x1p-24;

static Matrix fp32_layers(const ReferenceGroup *group, const Matrix *x) {
    Matrix y = matrix(x->rows, group->outputs);
    for (size_t r = 0; r < x->rows; r++)
        for (size_t part = 0, from = 0; part < group->count; from += group->columns[part++])
            for (size_t n = 0; n < group->columns[part]; n++) {
                double sum = group->biases[part][n], size = fabs(sum), doubted = 0;
                for (size_t k = 0; k < group->inputs; k++) {
                    double weight = group->fp32[part][k * group->columns[part] + n];
                    double value = x->values[r * x->columns + k], doubt = x->doubt[r * x->columns + k];
                    sum += value * weight;
                    size += fabs(value * weight);
                    doubted += doubt * fabs(weight);
                }
                /* One for each product, one for the bias, and one for what is of second order. */
                y.values[r * y.columns + from + n] = sum;
                y.doubt[r * y.columns + from + n] =
                    doubted + (double)(group->inputs + 2) * ROUNDING * (size + doubted) + 1e-30;
            }
    return y;
}

Matrix linear_layers(const ReferenceGroup *group, const Matrix *x) {
    if (group->bf16[0])
        return bf16_layers(group, x);
    if (group->fp32[0])
        return fp32_layers(group, x);
    Matrix y = matrix(x->rows, group->outputs);
    double *steps = checked_malloc(group->inputs * 8), *off = checked_malloc(group->inputs * 8);
    double low = (double)(-group->zero) * group->scale, high = (double)(255 - group->zero) * group->scale;
    for (size_t r = 0; r < x->rows; r++) {
        const double *row = x->values + r * x->columns, *doubt = x->doubt + r * x->columns;
        int known = 1;
        for (size_t k = 0; k < group->inputs; k++)
            known = known && doubt[k] == 0;
        double dither = group->dither && known ? dither_of(group, row) : 0;
        for (size_t k = 0; k < group->inputs; k++) {
            float factor = (group->smooth ? group->smooth[k] : 1.0f) / group->scale;
            /* A product of floats is rounded before it is rounded to steps. */
            double value = doubt[k] == 0 ? (double)((float)row[k] * factor) : row[k] * factor;
            if (group->dither)
                value = known ? (double)((float)value + (float)dither) : value;
            double around = doubt[k] == 0 ? 0 : doubt[k] * factor + 1e-5 * (1 + fabs(value));
            double least = value - around, most = value + around;
            steps[k] = steps_of(group, value) + beyond(group, value, k) - dither;
            off[k] = fmax(steps_of(group, most) + beyond(group, most, k) - dither - steps[k],
                          steps[k] + dither - steps_of(group, least) - beyond(group, least, k));
            if (group->dither && !known) /* whatever the dither: what it moves by itself, and by rounding */
                off[k] += 1.5;
        }
        for (size_t part = 0, from = 0; part < group->count; from += group->columns[part++])
            for (size_t n = 0; n < group->columns[part]; n++) {
                size_t columns = group->columns[part];
                double unit = (double)group->scales[part][n] * group->scale, sum = 0, doubted = 0, floats = 0;
                for (size_t k = 0; k < group->inputs; k++) {
                    double weight = group->values[part][k * columns + n];
                    sum += steps[k] * weight;
                    doubted += off[k] * fabs(weight);
                    floats += fabs(beyond(group, steps[k], k) * weight) + fabs(dither * weight);
                }
                double bias = group->biases[part][n], total = sum * unit + bias, size = fabs(sum * unit) + fabs(bias);
                size += floats * unit;
                for (size_t j = 0; j < group->outliers; j++) {
                    size_t channel = (size_t)group->channels[j];
                    double smooth = group->smooth ? group->smooth[channel] : 1;
                    double value = row[channel] * smooth + dither * group->scale, weight = group->rows[part][j * columns + n];
                    double excess = value < low ? value - low : value > high ? value - high : 0;
                    total += excess * weight;
                    size += (fabs(value) + fabs(excess)) * fabs(weight);
                    doubted += doubt[channel] * smooth * fabs(weight) / fabs(unit);
                    if (group->dither && !known)
                        doubted += 0.5 * group->scale * fabs(weight) / fabs(unit);
                }
                y.values[r * y.columns + from + n] = total;
                y.doubt[r * y.columns + from + n] = doubted * fabs(unit) + 2e-6 * size + 1e-6;
            }
    }
    free(off);
    free(steps);
    return y;
}

static double activated(double x, const char *activation) {
    if (!strcmp(activation, "gelu"))
        return x * (1 + erf(x / sqrt(2))) / 2;
    if (!strcmp(activation, "gelu_tanh"))
        return x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
    if (!strcmp(activation, "silu"))
        return x / (1 + exp(-x));
    if (!strcmp(activation, "relu"))
        return fmax(x, 0);
    return !strcmp(activation, "tanh") ? tanh(x) : x;
}

void activate(Matrix *x, const char *activation) {
    if (!*activation)
        return;
    for (size_t k = 0; k < x->rows * x->columns; k++) { /* no slope is steeper than 1.13 */
        x->values[k] = activated(x->values[k], activation);
        x->doubt[k] = 1.2 * x->doubt[k] + 5e-6 * (1 + fabs(x->values[k]));
    }
}

Matrix largest_of(const Matrix *y, const int64_t *starts, size_t texts) {
    Matrix found = matrix(texts, y->columns);
    for (size_t text = 0; text < texts; text++)
        for (size_t n = 0; n < y->columns && starts[text] < starts[text + 1]; n++) {
            double value = -INFINITY, least = -INFINITY, most = -INFINITY;
            for (size_t r = (size_t)starts[text]; r < (size_t)starts[text + 1]; r++) {
                double one = y->values[r * y->columns + n], doubt = y->doubt[r * y->columns + n];
                value = fmax(value, one);
                least = fmax(least, one - doubt);
                most = fmax(most, one + doubt);
            }
            found.values[text * y->columns + n] = value;
            found.doubt[text * y->columns + n] = fmax(most - value, value - least);
        }
    return found;
}

Matrix gate(const Matrix *both, const char *activation) {
    size_t width = both->columns / 2;
    Matrix left = matrix(both->rows, width);
    for (size_t r = 0; r < both->rows; r++)
        for (size_t k = 0; k < width; k++) {
            left.values[r * width + k] = both->values[r * both->columns + k];
            left.doubt[r * width + k] = both->doubt[r * both->columns + k];
        }
    activate(&left, activation);
    for (size_t r = 0; r < both->rows; r++)
        for (size_t k = 0; k < width; k++) {
            double *value = left.values + r * width + k, *doubt = left.doubt + r * width + k;
            double right = both->values[r * both->columns + width + k];
            double other = both->doubt[r * both->columns + width + k];
            *doubt = *doubt * fabs(right) + fabs(*value) * other + *doubt * other;
            *value *= right;
            *doubt += 1e-6 * fabs(*value);
        }
    return left;
}

/* How far a score in float may be from the one in doubles: queries and keys, the sum of their products, the scale and the
 * bias, each with a rounding of its own. */
static double score_doubt(const ReferenceAttention *shape, const Matrix *query, size_t q, const Matrix *key, size_t k,
                          double bias) {
    double size = fabs(bias), doubted = 0;
    for (size_t d = 0; d < shape->size; d++) {
        double a = fabs(query->values[q + d]), b = fabs(key->values[k + d]);
        size += a * b;
        doubted += query->doubt[q + d] * b + a * key->doubt[k + d] + query->doubt[q + d] * key->doubt[k + d];
    }
    /* A cap moves a score by less than the product is off, and has roundings of its own. */
    return doubted + (double)(shape->size + (shape->cap > 0 ? 14 : 6)) * ROUNDING * (size + doubted);
}

/* What a score gets of the distance between its tokens: a product of the query with a row, one of the key with a column. */
static double relative_score(const ReferenceAttention *shape, size_t head, int64_t apart, const Matrix *query, size_t q,
                             const Matrix *key, size_t k, double *off) {
    const size_t row = (size_t)shape->rows[-apart], width = shape->heads * shape->size;
    double sum = 0, size = 0, doubted = 0;
    for (size_t d = 0; d < shape->size; d++) {
        size_t channel = head * shape->size + d;
        double a = shape->c2p ? shape->c2p[row * width + channel] : 0;
        double b = shape->p2c ? shape->p2c[channel * shape->p2c_columns + row] : 0;
        sum += query->values[q + d] * a + key->values[k + d] * b;
        size += fabs(query->values[q + d] * a) + fabs(key->values[k + d] * b);
        doubted += query->doubt[q + d] * fabs(a) + key->doubt[k + d] * fabs(b);
    }
    *off += doubted + (double)(shape->size + 8) * ROUNDING * (size + doubted);
    return sum;
}

Matrix attention_of(const ReferenceAttention *shape, const Matrix *query, const Matrix *key, const Matrix *value) {
    size_t size = shape->size, width = shape->heads * size, shared = shape->heads / shape->kv_heads;
    Matrix out = matrix(query->rows, width);
    for (size_t text = 0; text < shape->texts; text++) {
        size_t start = (size_t)shape->starts[text], queries = (size_t)shape->starts[text + 1] - start;
        size_t length = shape->seen ? (size_t)shape->seen[text] : queries;
        double *share = checked_malloc(length * 8);
        for (size_t head = 0; length && head < shape->heads; head++) {
            size_t other = head / shared * size;
            double largest = 0;
            for (size_t k = 0; k < length; k++)
                for (size_t d = 0; d < size; d++)
                    largest = fmax(largest, fabs(value->values[(start + k) * value->columns + other + d]));
            for (size_t q = 0; q < (shape->first_only ? 1 : queries); q++) {
                size_t row = shape->first_only ? text : start + q;
                double top = -INFINITY, sum = 0, strongest = 0, off = 0;
                for (size_t k = 0; k < length; k++) {
                    double score = 0, bias = 0;
                    for (size_t d = 0; d < size; d++)
                        score += query->values[row * query->columns + head * size + d] *
                                 key->values[(start + k) * key->columns + other + d];
                    strongest = fmax(strongest, fabs(score));
                    if (shape->cap > 0)
                        score = shape->cap * tanh(score / shape->cap);
                    if (shape->table)
                        bias = shape->table[head * shape->table_columns + (shape->table_columns - 1) / 2 + k - q];
                    score += bias;
                    int64_t apart = (int64_t)k - (int64_t)q;
                    double met_off = 0;
                    if (shape->rows)
                        score += bias = relative_score(shape, head, apart, query, row * query->columns + head * size, key,
                                                       (start + k) * key->columns + other, &met_off);
                    if ((shape->before >= 0 && -apart > shape->before) || (shape->after >= 0 && apart > shape->after))
                        score = -INFINITY;
                    else if (shape->in_float)
                        off = fmax(off, met_off + score_doubt(shape, query, row * query->columns + head * size, key,
                                                              (start + k) * key->columns + other, bias));
                    share[k] = score;
                    top = fmax(top, score);
                }
                for (size_t k = 0; k < length; k++)
                    sum += share[k] = exp(share[k] - top);
                for (size_t d = 0; d < size; d++) {
                    double mixed = 0, weighed = 0, doubted = 0;
                    for (size_t k = 0; k < length; k++) {
                        size_t at = (start + k) * value->columns + other + d;
                        mixed += share[k] / sum * value->values[at];
                        weighed += share[k] / sum * fabs(value->values[at]);
                        doubted += share[k] / sum * value->doubt[at];
                    }
                    out.values[row * width + head * size + d] = mixed;
                    if (shape->in_float) {
                        /* Shares and their sum may both be off; then a rounding for each key, in both sums, and some for
                         * powers of two, what blocks before are multiplied by, and the quotient. */
                        double part = fmin(expm1(2 * off), 2.0) + (double)(2 * length + 24) * ROUNDING;
                        double all = fmin(part * (weighed + doubted), 2.1 * largest);
                        out.doubt[row * width + head * size + d] = doubted + all + 1e-30;
                        continue;
                    }
                    /* 15 bits for a share, 12 for an element of queries and keys of the widest heads. */
                    out.doubt[row * width + head * size + d] = largest * (4e-3 + 1e-3 * strongest) + 1e-6;
                }
            }
        }
        free(share);
    }
    return out;
}

void add_residual(Matrix *x, const float *residual) {
    for (size_t k = 0; k < x->rows * x->columns; k++) {
        x->values[k] += residual[k];
        x->doubt[k] += 1e-6 * (fabs(x->values[k]) + fabs((double)residual[k]));
    }
}

void turn(Matrix *x, size_t first, size_t size, const float *cosine, const float *sine) {
    size_t half = size / 2;
    for (size_t r = 0; r < x->rows; r++)
        for (size_t d = 0; d < half; d++) {
            size_t left = r * x->columns + first + d, right = left + half;
            double a = x->values[left], b = x->values[right], c = cosine[r * half + d], s = sine[r * half + d];
            double off = (x->doubt[left] + x->doubt[right]) * (fabs(c) + fabs(s));
            off += 1e-6 * (fabs(a) + fabs(b)) * (fabs(c) + fabs(s));
            x->values[left] = a * c - b * s;
            x->values[right] = b * c + a * s;
            x->doubt[left] = x->doubt[right] = off;
        }
}

void normalize(Matrix *x, size_t first, size_t width, const float *weight, const float *bias, float epsilon, int rms) {
    for (size_t r = 0; r < x->rows; r++) {
        double *row = x->values + r * x->columns + first, *doubt = x->doubt + r * x->columns + first;
        double mean = 0, square = 0, worst = 0, largest = 0;
        for (size_t k = 0; k < width; k++) {
            mean += rms ? 0 : row[k] / (double)width;
            worst = fmax(worst, doubt[k]);
            largest = fmax(largest, fabs(row[k]));
        }
        worst += 2e-6 * largest;
        for (size_t k = 0; k < width; k++)
            square += (row[k] - mean) * (row[k] - mean) / (double)width;
        double deviation = sqrt(square + epsilon);
        for (size_t k = 0; k < width; k++) {
            double scaled = (row[k] - mean) / deviation, size = fabs((double)weight[k]);
            /* Where the doubt is as large as the spread, all that is known is that no element leaves the norm. */
            double off = 2.1 * sqrt((double)width);
            if (worst < deviation / 16)
                off = 4 * worst / deviation * (1 + fabs(scaled));
            row[k] = scaled * weight[k] + (bias ? bias[k] : 0);
            doubt[k] = off * size + 1e-5 * (size + fabs(row[k])) + 1e-6;
        }
    }
}
