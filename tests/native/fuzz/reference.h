/* What the operators compute, in doubles and plain loops, and how far from it a result may be.
 *
 * Layers quantize: a value at the edge between two steps may go either way, so a doubt of the input, however small, is
 * a doubt of whole steps. What is in float has the doubt of its roundings. Tolerances are bounds, worked out element by
 * element beside the values. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t rows, columns;
    double *values, *doubt;
} Matrix;

Matrix matrix(size_t rows, size_t columns);
void free_matrix(Matrix *matrix);

typedef struct {
    size_t inputs, outputs, outliers, count, columns[3];
    float scale;
    int zero, tails, dither;
    int64_t channels[16];
    const float *smooth;
    const int8_t *values[3];
    const uint16_t *bf16[3]; /* values instead of all that is above, in a group with bfloat16 weights, */
    const float *fp32[3];    /* or in one with float weights */
    const float *scales[3], *biases[3], *rows[3];
} ReferenceGroup;

typedef struct {
    size_t heads, kv_heads, size, texts;
    const int64_t *starts;
    const int64_t *seen; /* keys of each text; or NULL */
    int first_only, in_float;
    int64_t before, after;
    double cap; /* of the products; 0: none */
    const float *table; /* (heads, columns) */
    size_t table_columns;
    const int64_t *rows; /* of the distances query - key, from the middle on; or NULL */
    const float *c2p;    /* (rows, heads * size) or NULL */
    const float *p2c;    /* (heads * size, columns) or NULL */
    size_t p2c_columns;
} ReferenceAttention;

/* A bfloat16 number, and the one nearest to a float. */
double from_bf16(uint16_t bits);
uint16_t to_bf16(float value);

Matrix linear_layers(const ReferenceGroup *group, const Matrix *x);
void activate(Matrix *x, const char *activation);
/* Of each text the largest of its rows in each column; 0 where it has none. */
Matrix largest_of(const Matrix *y, const int64_t *starts, size_t texts);
Matrix gate(const Matrix *both, const char *activation);
Matrix attention_of(const ReferenceAttention *shape, const Matrix *query, const Matrix *key, const Matrix *value);
void add_residual(Matrix *x, const float *residual);
/* Of `width` columns from `first` on. */
void normalize(Matrix *x, size_t first, size_t width, const float *weight, const float *bias, float epsilon, int rms);
/* Of a head of `size` columns from `first` on: each against the one half a head behind it. */
void turn(Matrix *x, size_t first, size_t size, const float *cosine, const float *sine);

#endif
