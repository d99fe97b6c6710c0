/* Attention on packed tokens, each text by itself: softmax(Q K^T + bias) V without ever writing the scores.
 *
 * Flash attention (Dao 2023, arXiv:2307.08691) for cards from sm_80 on: a block has 64 queries of one head of one text, a
 * warp 16 of them, and goes through the text's keys 64 at a time (heads of 128: 32) with an online softmax. Products are of 16 bits with
 * float32 sums (mma.sync m16n8k16). Queries, keys and values are read where the projections wrote them, by strides.
 *
 * Which keys a query meets, in which groups and in which order, follows from the text alone: the same bits in any batch.
 *
 * Fragments, of lane l = 4 g + t: of A (16 x 16) words (row g, columns 2t, 2t+1), (g+8, same), (g, +8), (g+8, +8); of B
 * (16 x 8) words (rows 2t, 2t+1, column g), (rows +8, same); of C and D (16 x 8) floats (row g, columns 2t, 2t+1), (g+8,
 * same).
 */
#include "device.cuh"

enum { QUERIES = 64, WARPS = 4 }; /* of a block */
/* Keys at a time: what registers hold the scores of, beside a row of SIZE sums. */
#define KEYS(SIZE) ((SIZE) > 64 ? 32 : 64)
#define LOG2_E 1.44269504f
#define NOTHING (-INFINITY)

/* ---- instructions of sm_80; on_host.h has them in plain C --------------------------------------------------------- */

#ifdef __CUDACC__
DEVICE unsigned address_of(const void *shared) { return (unsigned)__cvta_generic_to_shared(shared); }

/* Copies 16 bytes to shared memory, or zeros. */
DEVICE void copy_later(Vector *to, const Vector *from, int there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address_of(to)), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}
DEVICE void end_of_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until all groups but the last `but` are there. */
template <int but>
DEVICE void wait_for_groups() {
    asm volatile("cp.async.wait_group %0;" ::"n"(but) : "memory");
}

/* Four 8 x 8 matrices, whose rows lie where lanes 0 to 7, 8 to 15, ... say; a lane gets columns 2t, 2t+1 of row g. */
DEVICE void load_matrices(unsigned *out, const Vector *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address_of(row))
                 : "memory");
}
/* The same, transposed: rows 2t, 2t+1 of column g. */
DEVICE void load_transposed(unsigned *out, const Vector *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address_of(row))
                 : "memory");
}

template <class Number>
struct Matrix;
template <>
struct Matrix<Float16> {
    static __device__ inline void add_product(float *sum, const unsigned *a, const unsigned *b) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
    static __device__ inline unsigned word(float low, float high) {
        unsigned made;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(made) : "f"(high), "f"(low));
        return made;
    }
};
template <>
struct Matrix<BFloat16> {
    static __device__ inline void add_product(float *sum, const unsigned *a, const unsigned *b) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
    static __device__ inline unsigned word(float low, float high) {
        unsigned made;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(made) : "f"(high), "f"(low));
        return made;
    }
};

DEVICE float power_of_two(float exponent) {
    float made;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(made) : "f"(exponent));
    return made;
}
#endif

/* ---- tiles: rows of SIZE numbers in shared memory ----------------------------------------------------------------- */

/* Where vector v of a row lies: moved about, so that eight rows' vectors of one column meet in no bank. */
template <int SIZE>
DEVICE int place_in_tile(int row, int vector) {
    const int vectors = SIZE / 8;
    return row * vectors + (vector ^ (vectors < 8 ? row / (8 / vectors) % vectors : row % 8));
}

/* Starts copying ROWS rows, from `first` on, of what has `count`: zeros behind them. */
template <int SIZE, int ROWS>
DEVICE void fetch(Vector *tile, const Vector *from, long long stride, int first, int count) {
    const int vectors = SIZE / 8;
    int thread = (int)(threadIdx.y * WARP + threadIdx.x);
#pragma unroll
    for (int k = 0; k < ROWS * vectors / (WARPS * WARP); k++) {
        int index = thread + k * WARPS * WARP, row = index / vectors, vector = index % vectors;
        int there = first + row < count;
        copy_later(tile + place_in_tile<SIZE>(row, vector), from + (there ? (first + row) * stride : 0) + vector, there);
    }
    end_of_group();
}

/* ---- attention ---------------------------------------------------------------------------------------------------- */

/* The largest, and the sum, over the four lanes that have a row. */
DEVICE float largest_of_row(float value) {
    value = fmaxf(value, __shfl_xor_sync(LANES, value, 1));
    return fmaxf(value, __shfl_xor_sync(LANES, value, 2));
}
DEVICE float sum_of_row(float value) {
    value += __shfl_xor_sync(LANES, value, 1);
    return value + __shfl_xor_sync(LANES, value, 2);
}

/* What a call says. Strides are in vectors of 8 numbers; tables and sizes are checked before. */
struct Call {
    const Vector *query, *key, *value; /* (rows, stride), of head 0 */
    long long query_stride, key_stride, value_stride;
    const int *starts;           /* (texts + 1): the first row of each text */
    const int *seen;             /* (texts): how many of its tokens the others see; NULL: all */
    const unsigned short *bias;  /* (2 reach - 1, heads): added to scores by key - query + reach - 1; NULL: none */
    Vector *y;                   /* (rows, heads SIZE / 8 vectors) */
    int rows, blocks;            /* blocks of QUERIES that the longest text has */
    int heads, served;           /* of queries; and how many of them a head of keys serves */
    int before, after;           /* how far a query sees to each side; negative: to the end */
    int reach;
};

/* Adds to the scores of rows g and g + 8 what the distances have, the first of which lies in row `at` of the table. */
template <class Number, int TILES>
DEVICE void add_bias(float (*scores)[4], const Call &call, int head, int at) {
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int distance = at + 8 * n + k % 2 - k / 2 * 8; /* of keys behind the text's end: maybe no row */
            if (distance >= 0 && distance < 2 * call.reach - 1)
                scores[n][k] += Number::wide(call.bias[distance * call.heads + head]);
        }
}

template <class Number, int SIZE>
DEVICE void attention(const Call &call) {
    /* Keys at a time; steps of the products' inner sum; tiles of 8 keys, of 8 numbers. */
    const int KEYS = KEYS(SIZE), STEPS = SIZE / 16, TILES = KEYS / 8, COLUMNS = SIZE / 8;
    DYNAMIC_SHARED(Vector, tiles);
    Vector *const key_tile = tiles, *const value_tile = tiles + KEYS * SIZE / 8;
    const int text = (int)blockIdx.x / call.blocks, first = (int)blockIdx.x % call.blocks * QUERIES;
    const int head = (int)blockIdx.y, lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    int start = call.starts[text], stop = call.starts[text + 1];
    start = start < 0 ? 0 : start;
    stop = stop > call.rows ? call.rows : stop < start ? start : stop; /* or their difference might wrap around */
    const int length = stop - start;
    if (first >= length)
        return;
    int keys = length;
    if (call.seen && call.seen[text] < keys)
        keys = call.seen[text];
    const Vector *query = call.query + start * call.query_stride + head * COLUMNS;
    const Vector *key = call.key + start * call.key_stride + head / call.served * COLUMNS;
    const Vector *value = call.value + start * call.value_stride + head / call.served * COLUMNS;

    unsigned queries[STEPS][4]; /* A: 16 queries of this warp */
    const int own = (int)threadIdx.y * 16;
    fetch<SIZE, QUERIES>(tiles, query, call.query_stride, first, length);
    wait_for_groups<0>();
    __syncthreads();
#pragma unroll
    for (int s = 0; s < STEPS; s++)
        load_matrices(queries[s], tiles + place_in_tile<SIZE>(own + lane % 16, 2 * s + lane / 16));
    __syncthreads();

    /* From the first to before the last key that any of the block's queries sees; in groups that begin at multiples. */
    int from = call.before >= 0 && first > call.before ? (first - call.before) / KEYS * KEYS : 0, to = keys;
    if (call.after >= 0 && call.after < to - first - QUERIES)
        to = first + QUERIES + call.after;
    float sum[COLUMNS][4] = {}, largest[2] = {NOTHING, NOTHING}, weight[2] = {}; /* of rows g and g + 8 */
    fetch<SIZE, KEYS>(key_tile, key, call.key_stride, from, keys);
#pragma unroll 1
    for (int group = from; group < to; group += KEYS) {
        fetch<SIZE, KEYS>(value_tile, value, call.value_stride, group, keys);
        wait_for_groups<1>();
        __syncthreads();
        float scores[TILES][4] = {};
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int n = 0; n < TILES; n += 2) {
                unsigned b[4];
                load_matrices(b, key_tile + place_in_tile<SIZE>(8 * n + lane % 8 + lane / 16 * 8, 2 * s + lane / 8 % 2));
                Matrix<Number>::add_product(scores[n], queries[s], b);
                Matrix<Number>::add_product(scores[n + 1], queries[s], b + 2);
            }
        __syncthreads();
        if (group + KEYS < to)
            fetch<SIZE, KEYS>(key_tile, key, call.key_stride, group + KEYS, keys);
        else
            end_of_group(); /* of nothing: what is waited for counts groups */

        if (call.bias)
            add_bias<Number, TILES>(scores, call, head, group + 2 * t - (first + own + g) + call.reach - 1);
        if (group + KEYS > keys || call.before >= 0 || call.after >= 0)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const int row = first + own + g + 8 * r; /* the keys that it sees, counted from this lane's first */
                const int low = (call.before < 0 ? 0 : row - call.before) - group - 2 * t;
                const int high = (call.after < 0 || call.after > keys - 1 - row ? keys : row + call.after + 1) - group - 2 * t;
#pragma unroll
                for (int n = 0; n < TILES; n++)
#pragma unroll
                    for (int k = 0; k < 2; k++)
                        if (8 * n + k < low || 8 * n + k >= high)
                            scores[n][2 * r + k] = NOTHING;
            }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = largest[r];
#pragma unroll
            for (int n = 0; n < TILES; n++)
                most = fmaxf(most, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
            most = largest_of_row(most);
            /* A query that has met no key yet has nothing to rescale, and no number to subtract. */
            const float base = most == NOTHING ? 0.0f : most * LOG2_E;
            const float rescale = power_of_two(largest[r] * LOG2_E - base);
            largest[r] = most;
            weight[r] *= rescale;
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                sum[c][2 * r] *= rescale;
                sum[c][2 * r + 1] *= rescale;
            }
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int k = 2 * r; k < 2 * r + 2; k++) {
                    scores[n][k] = power_of_two(fmaf(scores[n][k], LOG2_E, -base));
                    weight[r] += scores[n][k];
                }
        }

        wait_for_groups<1>();
        __syncthreads();
#pragma unroll
        for (int s = 0; s < KEYS / 16; s++) {
            unsigned a[4];
#pragma unroll
            for (int k = 0; k < 4; k++)
                a[k] = Matrix<Number>::word(scores[2 * s + k / 2][k % 2 * 2], scores[2 * s + k / 2][k % 2 * 2 + 1]);
#pragma unroll
            for (int c = 0; c < COLUMNS; c += 2) {
                unsigned b[4];
                load_transposed(b, value_tile + place_in_tile<SIZE>(16 * s + lane % 16, c + lane / 16));
                Matrix<Number>::add_product(sum[c], a, b);
                Matrix<Number>::add_product(sum[c + 1], a, b + 2);
            }
        }
        __syncthreads();
    }

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = first + own + g + 8 * r;
        const float all = sum_of_row(weight[r]), scale = all > 0.0f ? 1.0f / all : 0.0f;
        if (row < length) {
            unsigned *out = (unsigned *)(call.y + ((long long)(start + row) * call.heads + head) * COLUMNS);
#pragma unroll
            for (int c = 0; c < COLUMNS; c++)
                out[4 * c + t] = Matrix<Number>::word(sum[c][2 * r] * scale, sum[c][2 * r + 1] * scale);
        }
    }
    wait_for_groups<0>();
}

/* ---- by their names ----------------------------------------------------------------------------------------------- */

#define KERNEL(Number, suffix, SIZE)                                                                                   \
    extern "C" __global__ void LAUNCHED_BY(WARPS * WARP, SIZE > 64 ? 2 : SIZE > 32 ? 3 : 4) fastembed_rt_attention_##SIZE##_##suffix( \
        const Vector *query, const Vector *key, const Vector *value, long long query_stride, long long key_stride,     \
        long long value_stride, const int *starts, const int *seen, const unsigned short *bias, Vector *y, int rows,   \
        int blocks, int heads, int served, int before, int after, int reach) {                                         \
        attention<Number, SIZE>({query, key, value, query_stride, key_stride, value_stride, starts, seen, bias, y,     \
                                 rows, blocks, heads, served, before, after, reach});                                  \
    }
#define KERNELS(Number, suffix)                                                                                        \
    KERNEL(Number, suffix, 32) KERNEL(Number, suffix, 64) KERNEL(Number, suffix, 128)

KERNELS(Float16, float16)
KERNELS(BFloat16, bfloat16)
