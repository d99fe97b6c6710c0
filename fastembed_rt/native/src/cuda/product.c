#include "product.h"

#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

enum { KNOWN = 8192, TURNS = 3, TIMES = 8, PATTERN = 1 << 20 };
static const float NEAR = 0.97f; /* an algorithm that is not 3 % faster is not preferred: clocks differ from run to run */
static const float ZERO = 0.0f;

/* ---- what is known already ---------------------------------------------------------------------------------------- */

typedef struct {
    Shape shape;
    LtAlgorithm algorithm;
} Choice;

static struct {
    int device;
    Choice choice;
} known[KNOWN];
static size_t known_count;

/* Under the lock. */
static LtAlgorithm *find(int device, const Shape *shape) {
    for (size_t k = 0; k < known_count; k++)
        if (known[k].device == device && !memcmp(&known[k].choice.shape, shape, sizeof *shape))
            return &known[k].choice.algorithm;
    return NULL;
}

/* Under the lock: what is known first stays, so that all of a process's sessions have one algorithm. */
static void learn(int device, const Choice *choice) {
    if (find(device, &choice->shape) || known_count == KNOWN)
        return;
    known[known_count].device = device;
    known[known_count].choice = *choice;
    __atomic_store_n(&known_count, known_count + 1, __ATOMIC_RELEASE); /* last, for a child of a fork meanwhile */
}

/* Bytes of the choices for a device, as many as there is room for; how many there are. */
EXPORTED size_t fastembed_rt_cuda_choices(int device, unsigned char *out, size_t room) {
    size_t size = 0;
    lock(KNOWING);
    for (size_t k = 0; k < known_count; k++) {
        if (known[k].device != device)
            continue;
        if (size + sizeof(Choice) <= room)
            memcpy(out + size, &known[k].choice, sizeof(Choice));
        size += sizeof(Choice);
    }
    unlock(KNOWING);
    return size;
}

/* Takes such bytes for a device, of the same cuBLASLt on the same model; each is checked before it is used. */
EXPORTED void fastembed_rt_cuda_learn(int device, const unsigned char *choices, size_t size) {
    lock(KNOWING);
    for (size_t at = 0; at + sizeof(Choice) <= size; at += sizeof(Choice)) {
        Choice choice;
        memcpy(&choice, choices + at, sizeof choice);
        learn(device, &choice);
    }
    unlock(KNOWING);
}

/* ---- choosing ----------------------------------------------------------------------------------------------------- */

/* What a choice is made with: layouts for ROWS rows, for FEW and for one; numbers to compute with, where there is memory. */
enum { OF_MANY, OF_FEW, OF_ONE, LAYOUTS };
static const int64_t rows_of[LAYOUTS] = {ROWS, FEW, 1};
typedef struct {
    void *x[LAYOUTS], *c[LAYOUTS], *y[LAYOUTS];
    uint64_t memory;  /* x, w, bias, y one after the other; 0: none */
    uint64_t at[4];
    void *stream, *from, *to;
} Trial;

static int is_fp8(const Shape *shape) { return shape->type == LT_R_8F_E4M3; }
static size_t bytes_of(int32_t type) { return type == LT_R_8F_E4M3 ? 1 : 2; }
/* Of c, of which FP8 results take none of their own type. */
static int32_t of_c(const Shape *shape) { return is_fp8(shape) ? LT_R_16F : shape->out; }
static size_t rounded(size_t size) { return (size + 255) / 256 * 256; }

/* Random numbers between 0.5 and 2: those that are all alike would draw less power, and run at other clocks. Two of FP8
 * are one of float16 as well, which is what their bias is. */
static int fill(uint64_t to, size_t size, int type, void *stream) {
    uint16_t *pattern = malloc(PATTERN);
    if (!pattern)
        return 1;
    uint32_t state = 1;
    for (size_t k = 0; k < PATTERN / sizeof *pattern; k++) {
        state = state * 1664525u + 1013904223u;
        uint32_t high = state >> 16;
        pattern[k] = (uint16_t)(type == LT_R_16F    ? (0x3800u + (high & 0x7ffu)) | (high & 0x8000u)
                                : type == LT_R_16BF ? (0x3f00u + (high & 0xffu)) | (high & 0x8000u)
                                                    : (0x3030u + (high & 0x0f0fu)) | (high & 0x8080u));
    }
    int failed = 0;
    for (size_t done = 0; !failed && done < size; done += PATTERN)
        failed = driver()->copy_in(to + done, pattern, size - done < PATTERN ? size - done : PATTERN, stream);
    failed = driver()->stream_wait(stream) || failed;
    free(pattern);
    return failed;
}

/* Whether candidates can be timed. Without memory, or a clock, they are not: cuBLASLt's own order decides. */
static int prepare(Trial *trial, const Shape *shape) {
    const Driver *cuda = driver();
    const size_t K = (size_t)shape->inputs, N = (size_t)shape->outputs;
    const size_t sizes[4] = {rounded(bytes_of(shape->type) * ROWS * K), rounded(bytes_of(shape->type) * K * N),
                             rounded(2 * N), rounded(bytes_of(shape->out) * ROWS * N)};
    if (cuda->stream_create(&trial->stream, CU_NON_BLOCKING) || cuda->event_create(&trial->from, 0) ||
        cuda->event_create(&trial->to, 0) ||
        cuda->allocate(&trial->memory, sizes[0] + sizes[1] + sizes[2] + sizes[3]))
        return 0;
    trial->at[0] = trial->memory;
    for (int k = 1; k < 4; k++)
        trial->at[k] = trial->at[k - 1] + sizes[k - 1];
    return !fill(trial->memory, sizes[0] + sizes[1] + sizes[2], shape->type, trial->stream);
}

static void forget(void *layout) {
    if (layout)
        cublaslt()->layout_destroy(layout);
}

static void clear(Trial *trial) {
    const Driver *cuda = driver();
    for (int of = 0; of < LAYOUTS; of++) {
        forget(trial->x[of]);
        forget(trial->c[of]);
        forget(trial->y[of]);
    }
    if (trial->stream) {
        cuda->stream_wait(trial->stream);
        cuda->stream_destroy(trial->stream);
    }
    if (trial->from)
        cuda->event_destroy(trial->from);
    if (trial->to)
        cuda->event_destroy(trial->to);
    if (trial->memory)
        cuda->release(trial->memory);
}

static void *address(uint64_t from) { return (void *)(uintptr_t)from; }

/* y = act(alpha x w + bias); there is no c to be added, but its layout: FP8 products take no pointer to one either. */
static int multiply(const Product *product, const void *x, void *of_x, const void *w, void *of_c, void *y, void *of_y,
                    const LtAlgorithm *algorithm, void *stream) {
    return cublaslt()->matmul(product->handle, product->desc, &product->alpha, w, product->weight, x, of_x, &ZERO,
                              is_fp8(&product->shape) ? NULL : y, of_c, y, of_y, algorithm, NULL, 0, stream);
}

/* Milliseconds of TIMES products of so many rows with an algorithm, the least of TURNS; negative where it does not run. */
static float timed(const Product *product, const Trial *trial, int of, const LtAlgorithm *algorithm) {
    const Driver *cuda = driver();
    float best = -1.0f;
    for (int turn = 0; turn < TURNS; turn++) {
        float took = 0.0f;
        int failed = cuda->event_record(trial->from, trial->stream);
        for (int k = 0; !failed && k < TIMES; k++)
            failed = multiply(product, address(trial->at[0]), trial->x[of], address(trial->at[1]), trial->c[of],
                              address(trial->at[3]), trial->y[of], algorithm, trial->stream);
        if (failed || cuda->event_record(trial->to, trial->stream) || cuda->event_wait(trial->to) ||
            cuda->event_elapsed(&took, trial->from, trial->to))
            return -1.0f;
        best = best < 0.0f || took < best ? took : best;
    }
    return best;
}

/* Whether an algorithm splits K, though it was asked for none that does. */
static int splits(const LtAlgorithm *algorithm) {
    int32_t parts = 0;
    size_t written = 0;
    return !cublaslt()->config_get(algorithm, LT_ALGORITHM_SPLIT_K, &parts, sizeof parts, &written) &&
           written == sizeof parts && parts > 1;
}

/* Whether cuBLASLt says that an algorithm takes any number of rows without a workspace. */
static int serves(const Product *product, const Trial *trial, const LtAlgorithm *algorithm) {
    for (int of = 0; of < LAYOUTS; of++) {
        LtResult result = {0};
        if (cublaslt()->check(product->handle, product->desc, product->weight, trial->x[of], trial->c[of], trial->y[of],
                              algorithm, &result) ||
            result.state || result.workspace)
            return 0;
    }
    return 1;
}

/* Candidates of cuBLASLt that may be taken: no workspace, no split of K, inputs at any multiple of ALIGNED. */
static int candidates(const Product *product, const Trial *trial, LtResult *results) {
    const Lt *lt = cublaslt();
    const size_t workspace = 0;
    const uint32_t reductions = 0, aligned = ALIGNED;
    void *pref = NULL;
    int found = 0, kept = 0;
    int failed = lt->pref_create(&pref) || lt->pref_set(pref, LT_PREF_WORKSPACE, &workspace, sizeof workspace) ||
                 lt->pref_set(pref, LT_PREF_REDUCTIONS, &reductions, sizeof reductions);
    for (int k = 0; !failed && k < 4; k++)
        failed = lt->pref_set(pref, LT_PREF_ALIGNMENT + k, &aligned, sizeof aligned);
    failed = failed || lt->heuristic(product->handle, product->desc, product->weight, trial->x[OF_MANY],
                                     trial->c[OF_MANY], trial->y[OF_MANY], pref, CANDIDATES, results, &found);
    if (pref)
        lt->pref_destroy(pref);
    for (int k = 0; !failed && k < found && k < CANDIDATES; k++)
        if (!results[k].state && !results[k].workspace && !splits(&results[k].algorithm))
            results[kept++] = results[k];
    return kept;
}

/* The first of some candidates, without a clock: of those that cuBLASLt says take any number of rows; -1 of none. */
static int first(const Product *product, const Trial *trial, const LtResult *results, int count) {
    for (int k = 0; k < count; k++)
        if (serves(product, trial, &results[k].algorithm))
            return k;
    return -1;
}

/* The fastest of some candidates that run with any number of rows; -1 where none does. */
static int fastest(const Product *product, const Trial *trial, const LtResult *results, int count) {
    float many[CANDIDATES], few[CANDIDATES], least = -1.0f, least_of_few = -1.0f;
    int best = -1;
    for (int k = 0; k < count; k++) {
        few[k] = timed(product, trial, OF_FEW, &results[k].algorithm);
        many[k] = few[k] < 0.0f || timed(product, trial, OF_ONE, &results[k].algorithm) < 0.0f
                      ? -1.0f
                      : timed(product, trial, OF_MANY, &results[k].algorithm);
        if (many[k] >= 0.0f && (least < 0.0f || many[k] < least))
            least = many[k];
    }
    for (int k = 0; k < count; k++)
        if (many[k] >= 0.0f && many[k] * NEAR <= least && (least_of_few < 0.0f || few[k] < least_of_few * NEAR)) {
            least_of_few = few[k];
            best = k;
        }
    return best;
}

/* Which algorithm the product takes; 0 where there is none. */
static int choose(Product *product, Trial *trial) {
    LtResult results[CANDIDATES] = {0};
    const int timing = prepare(trial, &product->shape);
    const void *bias = address(trial->at[2]); /* some numbers; and one of them for the scale */
    if (timing && ((product->shape.epilogue & LT_EPILOGUE_BIAS &&
                    cublaslt()->desc_set(product->desc, LT_DESC_BIAS_POINTER, &bias, sizeof bias)) ||
                   (product->shape.out == LT_R_8F_E4M3 &&
                    cublaslt()->desc_set(product->desc, LT_DESC_D_SCALE_POINTER, &bias, sizeof bias))))
        return 0;
    const int count = candidates(product, trial, results);
    const int taken = (timing ? fastest : first)(product, trial, results, count);
    if (taken >= 0)
        product->algorithm = results[taken].algorithm;
    return taken >= 0;
}

/* The layout of `rows` rows of numbers, for which cuBLASLt has columns. */
static int lay_out(void **out, int32_t type, int64_t numbers, int64_t rows) {
    return cublaslt()->layout_create(out, type, (uint64_t)numbers, (uint64_t)rows, numbers);
}

static int describe(Product *product) {
    const Lt *lt = cublaslt();
    const Shape *shape = &product->shape;
    const int32_t of_bias = is_fp8(shape) ? LT_R_16F : shape->type, transposed = LT_TRANSPOSED;
    const uint32_t epilogue = (uint32_t)shape->epilogue;
    const void *somewhere = (const void *)(uintptr_t)256; /* nothing is read before a product runs */
    const int8_t fast = 1; /* sums of FP8 products in the tensor cores alone: their 14 bits are more than the inputs' 4 */
    return lt->desc_create(&product->desc, LT_COMPUTE_32F, LT_R_32F) ||
           lt->desc_set(product->desc, LT_DESC_EPILOGUE, &epilogue, sizeof epilogue) ||
           (shape->epilogue & LT_EPILOGUE_BIAS &&
            (lt->desc_set(product->desc, LT_DESC_BIAS_DATA_TYPE, &of_bias, sizeof of_bias) ||
             lt->desc_set(product->desc, LT_DESC_BIAS_POINTER, &somewhere, sizeof somewhere))) ||
           (is_fp8(shape) &&
            (lt->desc_set(product->desc, LT_DESC_TRANSPOSE_A, &transposed, sizeof transposed) ||
             lt->desc_set(product->desc, LT_DESC_FAST_ACCUMULATION, &fast, sizeof fast))) ||
           (shape->out == LT_R_8F_E4M3 &&
            lt->desc_set(product->desc, LT_DESC_D_SCALE_POINTER, &somewhere, sizeof somewhere));
}

/* In rows, y = x w; cuBLASLt has columns: y' = w' x'. */
static int make(Product *product, Trial *trial) {
    const Shape *shape = &product->shape;
    const int64_t K = shape->inputs, N = shape->outputs;
    if (describe(product) ||
        (is_fp8(shape) ? lay_out(&product->weight, shape->type, K, N) : lay_out(&product->weight, shape->type, N, K)))
        return 0;
    for (int of = 0; of < LAYOUTS; of++) {
        const int64_t rows = rows_of[of];
        if (lay_out(&trial->x[of], shape->type, K, rows) || lay_out(&trial->y[of], shape->out, N, rows) ||
            lay_out(&trial->c[of], of_c(shape), N, rows))
            return 0;
    }
    return 1;
}

OrtStatus *create_product(const Node *node, Shape shape, Product *out) {
    Trial trial = {0};
    const int device = current_device();
    /* Another session of this process may be capturing, which forbids others what is done here. */
    int mode = CU_CAPTURE_RELAXED;
    const int exchanged = !driver()->capture_mode(&mode);
    out->shape = shape;
    out->handle = device < 0 ? NULL : handle_of(device);
    int found = out->handle && make(out, &trial);
    if (found) {
        lock(KNOWING); /* one that times at a time */
        LtAlgorithm *earlier = find(device, &shape);
        if (earlier && serves(out, &trial, earlier)) {
            out->algorithm = *earlier;
        } else {
            found = choose(out, &trial);
            const Choice choice = {shape, out->algorithm};
            if (found && earlier)
                *earlier = choice.algorithm;
            else if (found)
                learn(device, &choice);
        }
        unlock(KNOWING);
    }
    clear(&trial);
    if (exchanged)
        driver()->capture_mode(&mode);
    if (found)
        return NULL;
    destroy_product(out);
    if (!out->handle)
        return refusal(node, "cuBLASLt does not start on this device");
    return refusal(node, "cuBLASLt %zu has no product of %lld inputs and %lld outputs from type %d to %d, epilogue %d, "
                         "for any number of rows on this device", cublaslt()->version(), (long long)shape.inputs, (long long)shape.outputs,
                   (int)shape.type, (int)shape.out, (int)shape.epilogue);
}

void destroy_product(Product *product) {
    if (product->desc)
        cublaslt()->desc_destroy(product->desc);
    forget(product->weight);
    product->desc = product->weight = NULL;
}

/* Tells desc where a constant lies, if it does not know; once, since calls side by side read it. */
static OrtStatus *take(const Node *node, Product *product, const char *name, int attribute, const void **known,
                       const void *given) {
    OrtStatus *error = NULL;
    if (!given || __atomic_load_n(known, __ATOMIC_ACQUIRE) == given)
        return NULL;
    lock(TAKING);
    if (*known == given)
        ; /* another call was first */
    else if (*known)
        error = refusal(node, "the %s lies elsewhere than in the call before, and has to be a constant", name);
    else if (cublaslt()->desc_set(product->desc, attribute, &given, sizeof given))
        error = refusal(node, "cuBLASLt does not take the %s", name);
    else
        __atomic_store_n(known, given, __ATOMIC_RELEASE);
    unlock(TAKING);
    return error;
}

OrtStatus *run_product(const Node *node, Product *product, const void *x, const void *w, const void *bias,
                       const void *scale, void *y, int64_t rows, void *stream) {
    const Shape *shape = &product->shape;
    if (((uintptr_t)x | (uintptr_t)w | (uintptr_t)bias | (uintptr_t)scale | (uintptr_t)y) % ALIGNED)
        return refusal(node, "a tensor does not lie at a multiple of %d bytes", ALIGNED);
    OrtStatus *error = take(node, product, "bias", LT_DESC_BIAS_POINTER, &product->bias, bias);
    if (!error)
        error = take(node, product, "scale", LT_DESC_D_SCALE_POINTER, &product->scale, scale);
    if (error)
        return error;
    void *in = NULL, *out = NULL, *c = NULL;
    int status = lay_out(&in, shape->type, shape->inputs, rows);
    if (!status)
        status = lay_out(&out, shape->out, shape->outputs, rows);
    if (!status && of_c(shape) != shape->out)
        status = lay_out(&c, of_c(shape), shape->outputs, rows);
    if (!status)
        status = multiply(product, x, in, w, c ? c : out, y, out, &product->algorithm, stream);
    forget(in);
    forget(out);
    forget(c);
    return status ? refusal(node, "cuBLASLt fails with status %d for %lld rows", status, (long long)rows) : NULL;
}
