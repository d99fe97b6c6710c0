/* cuBLASLt on the host: columns, epilogues, algorithms that add up in ways of their own. It is strict: what cublasLt.h does
 * not allow, or what would make a vector depend on its batch, is a status.
 *
 * Its heuristic is as mean as the real one's may be: which algorithm comes first depends on the number of rows, and the
 * first of all splits K, unless that is ruled out. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
enum { OK, BAD = 7, UNSUPPORTED = 15 };
enum { F32 = 0, F16 = 2, BF16 = 14, E4M3 = 28 };
enum { FORWARD = 1, BACKWARD = 2, BY_EIGHT = 3, SPLIT = 4, ORDERS = 5 };
enum { MAGIC = 0x1717 };

typedef struct { int epilogue, bias_type, transposed; int8_t fast; const void *bias; const float *scale; } Desc;
typedef struct { int type; uint64_t rows, columns; int64_t ld; } Layout;
typedef struct { size_t workspace; uint32_t reductions, alignment[4]; } Preference;
typedef struct { uint64_t data[8]; } Algorithm; /* MAGIC, order, device-independent */
typedef struct { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; } Result;

/* Of driver.cpp: this thread's device, and what a call fails with that may disturb another thread's capture. */
int stand_in_device(void), stand_in_forbidden(void);

double stand_in_milliseconds; /* what all products took so far */
static double cost[ORDERS] = {0, 1, 1, 1, 1}, cost_of_few[ORDERS]; /* of up to FEW rows, where it is told */
enum { FEW = 64 };
static int heuristics, refused; /* refused: an order that `check` and `matmul` do not take */
static uint64_t least_rows[ORDERS];  /* that an order takes */
static long products[ORDERS], fp8_products;

API void stand_in_set_cost(int order, double milliseconds) { cost[order] = milliseconds; }
API void stand_in_set_cost_of_few(int order, double milliseconds) { cost_of_few[order] = milliseconds; }
API void stand_in_refuse(int order) { refused = order; }
API void stand_in_set_least_rows(int order, int rows) { least_rows[order] = (uint64_t)rows; }
API int stand_in_heuristics(void) { return heuristics; }
API long stand_in_products(int order) { return products[order]; }
API long stand_in_fp8_products(void) { return fp8_products; }

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

API float stand_in_from_half(uint16_t bits) {
    _Float16 value;
    memcpy(&value, &bits, 2);
    return (float)value;
}
API uint16_t stand_in_to_half(float value) {
    _Float16 half = (_Float16)value;
    uint16_t bits;
    memcpy(&bits, &half, 2);
    return bits;
}
/* e4m3: a sign, four bits of exponent (bias 7), three of mantissa; no infinities, 0x7f is NaN. */
API float stand_in_from_e4m3(unsigned bits) {
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    float size = exponent ? ldexpf(8 + mantissa, exponent - 10) : ldexpf(mantissa, -9);
    if ((bits & 0x7f) == 0x7f)
        size = NAN;
    return bits & 0x80 ? -size : size;
}
/* The nearest, of two the even one; 448 for what is beyond it. */
API unsigned stand_in_to_e4m3(float value) {
    const unsigned sign = signbit(value) ? 0x80 : 0;
    float size = fabsf(value);
    int exponent;
    if (isnan(value))
        return 0x7f | sign;
    if (size == 0)
        return sign;
    if (size >= 448)
        return 0x7e | sign;
    frexpf(size, &exponent);                                  /* size = 0.5 .. 1 times 2^exponent */
    const int step = (exponent > -5 ? exponent : -5) - 4;     /* of the eight numbers from there on, or of the smallest */
    const unsigned steps = (unsigned)rintf(ldexpf(size, -step)); /* up to 16: then it is the first of the next eight */
    return sign | (steps + (unsigned)(step + 9) * 8);
}
static float get(const void *from, int type, uint64_t index) {
    if (type == E4M3)
        return stand_in_from_e4m3(((const uint8_t *)from)[index]);
    uint16_t bits = ((const uint16_t *)from)[index];
    if (type == F16)
        return stand_in_from_half(bits);
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}
static void put(void *to, int type, uint64_t index, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (type == E4M3)
        ((uint8_t *)to)[index] = (uint8_t)stand_in_to_e4m3(value);
    else
        ((uint16_t *)to)[index] =
            type == F16 ? stand_in_to_half(value) : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* ---- descriptions ------------------------------------------------------------------------------------------------- */

API int cublasLtCreate(void **handle) {
    int *made = malloc(sizeof *made);
    *made = stand_in_device();
    *handle = made;
    return stand_in_forbidden() ? BAD : OK;
}
/* Whether a handle is one of this thread's device. */
static int fits(const int *handle) { return handle && *handle == stand_in_device(); }
API size_t cublasLtGetVersion(void) { return 130000; }
API int cublasLtMatmulDescCreate(void **desc, int compute, int scale) {
    Desc *made = calloc(1, sizeof *made);
    made->epilogue = 1;
    *desc = made;
    return compute == 68 && scale == F32 ? OK : BAD;
}
API int cublasLtMatmulDescDestroy(void *desc) { return free(desc), OK; }
API int cublasLtMatmulDescSetAttribute(void *to, int attribute, const void *value, size_t size) {
    Desc *desc = to;
    switch (attribute) {
    case 3: return size == 4 ? memcpy(&desc->transposed, value, 4), OK : BAD;
    case 7: return size == 4 ? memcpy(&desc->epilogue, value, 4), OK : BAD;
    case 8: return size == 8 ? memcpy(&desc->bias, value, 8), OK : BAD;
    case 20: return size == 8 ? memcpy(&desc->scale, value, 8), OK : BAD;
    case 25: return size == 1 ? memcpy(&desc->fast, value, 1), OK : BAD;
    case 26: return size == 4 ? memcpy(&desc->bias_type, value, 4), OK : BAD;
    default: return BAD;
    }
}
API int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    Layout *made = calloc(1, sizeof *made);
    *made = (Layout){type, rows, columns, ld};
    *layout = made;
    return (type == F16 || type == BF16 || type == E4M3) && rows && columns && ld >= (int64_t)rows ? OK : BAD;
}
API int cublasLtMatrixLayoutDestroy(void *layout) { return free(layout), OK; }
API int cublasLtMatmulPreferenceCreate(void **pref) {
    Preference *made = calloc(1, sizeof *made);
    *made = (Preference){0, 7, {256, 256, 256, 256}};
    *pref = made;
    return OK;
}
API int cublasLtMatmulPreferenceDestroy(void *pref) { return free(pref), OK; }
API int cublasLtMatmulPreferenceSetAttribute(void *to, int attribute, const void *value, size_t size) {
    Preference *pref = to;
    if (attribute == 1 && size == 8)
        return memcpy(&pref->workspace, value, 8), OK;
    if (attribute == 3 && size == 4)
        return memcpy(&pref->reductions, value, 4), OK;
    if (attribute >= 5 && attribute <= 8 && size == 4)
        return memcpy(&pref->alignment[attribute - 5], value, 4), OK;
    return BAD;
}

/* ---- algorithms --------------------------------------------------------------------------------------------------- */

static Algorithm algorithm_of(int order) { return (Algorithm){{MAGIC, (uint64_t)order}}; }

/* FP8 comes transposed, in multiples of 16, with a float16 c and bias, whatever d is; nothing else is transposed. */
static int types_match(const Desc *desc, const Layout *a, const Layout *b, const Layout *c, const Layout *d) {
    if (a->type != E4M3)
        return a->type == b->type && b->type == d->type && c->type == d->type && !desc->transposed && !desc->scale &&
               (!(desc->epilogue & 4) || desc->bias_type == d->type);
    return b->type == E4M3 && c->type == F16 && (d->type == F16 || d->type == E4M3) && desc->transposed == 1 &&
           a->rows % 16 == 0 && a->columns % 16 == 0 && (d->type == E4M3) == (desc->scale != NULL) &&
           (!(desc->epilogue & 4) || desc->bias_type == F16);
}

static int matches(const Desc *desc, const Layout *a, const Layout *b, const Layout *c, const Layout *d) {
    const uint64_t outputs = desc->transposed ? a->columns : a->rows, inputs = desc->transposed ? a->rows : a->columns;
    return outputs == d->rows && inputs == b->rows && b->columns == d->columns && c->rows == d->rows &&
           c->columns == d->columns && types_match(desc, a, b, c, d) && (desc->epilogue & ~(1 | 2 | 4 | 32)) == 0 &&
           (!(desc->epilogue & 4) || desc->bias);
}

API int cublasLtMatmulAlgoGetHeuristic(void *handle, void *desc, void *a, void *b, void *c, void *d, void *pref, int asked,
                                       Result *results, int *found) {
    const Preference *wanted = pref;
    *found = 0;
    if (!fits(handle) || !matches(desc, a, b, c, d) || asked < 1)
        return BAD;
    heuristics++;
    const uint64_t rows = ((const Layout *)d)->columns;
    const int first = rows <= 64 ? BACKWARD : rows <= 1024 ? BY_EIGHT : FORWARD;
    int order[4] = {SPLIT, first};
    for (int k = FORWARD, at = 2; k <= BY_EIGHT; k++)
        if (k != first)
            order[at++] = k;
    for (int k = wanted->reductions ? 0 : 1; k < 4 && *found < asked; k++) {
        results[*found] = (Result){.algorithm = algorithm_of(order[k])};
        (*found)++;
    }
    return OK;
}
API int cublasLtMatmulAlgoCheck(void *handle, void *desc, void *a, void *b, void *c, void *d, const Algorithm *algorithm,
                                Result *result) {
    memset(result, 0, sizeof *result);
    if (!fits(handle) || !matches(desc, a, b, c, d))
        return BAD;
    return algorithm->data[0] == MAGIC && algorithm->data[1] && algorithm->data[1] < ORDERS &&
                   (int)algorithm->data[1] != refused && ((const Layout *)d)->columns >= least_rows[algorithm->data[1]]
               ? OK
               : UNSUPPORTED;
}
API int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm *algorithm, int attribute, void *value, size_t size,
                                             size_t *written) {
    int32_t parts = algorithm->data[1] == SPLIT ? 4 : 1;
    if (attribute != 2 || size != 4)
        return BAD;
    memcpy(value, &parts, 4);
    *written = 4;
    return OK;
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

static float dot(const void *A, const Layout *a, int transposed, const void *B, const Layout *b, uint64_t i, uint64_t j,
                 int order) {
    const uint64_t K = b->rows;
    float sum = 0, parts[8] = {0};
    const uint64_t across = transposed ? 1 : (uint64_t)a->ld, from = transposed ? i * (uint64_t)a->ld : i;
#define TERM(k) (get(A, a->type, (k) * across + from) * get(B, b->type, j * (uint64_t)b->ld + (k)))
    /* All but the first round as they go, so that another order is seen in a result of 16 bits. */
#define ROUNDED(value) stand_in_from_half(stand_in_to_half(value))
    for (uint64_t k = 0; k < K; k++) {
        if (order == FORWARD)
            sum += TERM(k);
        else if (order == BACKWARD)
            sum = ROUNDED(sum + TERM(K - 1 - k));
        else if (order == BY_EIGHT)
            parts[k % 8] = ROUNDED(parts[k % 8] + TERM(k));
        else
            parts[k * 4 / K] = ROUNDED(parts[k * 4 / K] + TERM(k));
    }
    for (int k = 0; k < 8; k++)
        sum += parts[k];
    return sum;
}

API int cublasLtMatmul(void *handle, void *desc_, const void *alpha, const void *A, void *a_, const void *B, void *b_,
                       const void *beta, const void *C, void *c_, void *D, void *d_, const Algorithm *algorithm,
                       void *workspace, size_t workspace_size, void *stream) {
    const Desc *desc = desc_;
    const Layout *a = a_, *b = b_, *c = c_, *d = d_;
    (void)stream;
    if (!fits(handle) || !matches(desc, a, b, c, d) || C != (a->type == E4M3 ? NULL : D) || workspace ||
        workspace_size || (a->type != E4M3 && *(const float *)alpha != 1) || *(const float *)beta != 0 || algorithm->data[0] != MAGIC)
        return BAD;
    const int order = (int)algorithm->data[1];
    if (order == refused || d->columns < least_rows[order])
        return UNSUPPORTED;
    products[order]++;
    fp8_products += a->type == E4M3;
    stand_in_milliseconds += d->columns <= FEW && cost_of_few[order] > 0 ? cost_of_few[order] : cost[order];
    const uint64_t columns = d->columns == 16384 ? 1 : d->columns; /* what is timed is not read */
    for (uint64_t j = 0; j < columns; j++)
        for (uint64_t i = 0; i < d->rows; i++) {
            float y = *(const float *)alpha * dot(A, a, desc->transposed, B, b, i, j, order);
            if (desc->epilogue & 4)
                y += get(desc->bias, desc->bias_type, i);
            if (desc->epilogue & 32)
                y = 0.5f * y * (1 + tanhf(0.7978845608f * (y + 0.044715f * y * y * y)));
            if (desc->epilogue & 2)
                y = y > 0 ? y : 0;
            put(D, d->type, j * (uint64_t)d->ld + i, d->type == E4M3 ? y * *desc->scale : y);
        }
    return OK;
}
