/* The operators of the domain "fastembed_rt", as onnxruntime loads them: RegisterCustomOps.
 *
 * QuantLinear       x, [starts], group "linear", add-norm          -> y, with largest (texts, width): of each text the
 *                   largest of its tokens, 0 without tokens
 * QuantFeedForward  x, groups "up" and "down", [before], add-norm  -> y
 * PackedAttention   query, key, value, starts, [seen], [by_distance], [rows, [c2p], [p2c]]  -> mixed
 * QuantAttention    x, starts, [seen], [by_distance], [rows, [c2p], [p2c]], [cosine, sine], groups "input" and "output",
 *                   [query], [key], [value], [before], add-norm    -> y
 * QuantEmbedding    ids, values int8 (rows, width), scales (rows, 1)  -> (tokens, width): values[id] * scales[id]
 * Bf16Linear, Bf16FeedForward, Bf16Attention   as those of Quant, their groups with bfloat16 weights
 * Fp32Linear, Fp32FeedForward, Fp32Attention   likewise with float weights
 * Bf16Embedding     ids, values bfloat16 (rows, width)             -> (tokens, width): values[id]
 * PackedMean        x, starts                                      -> (texts, width), 0 for a text without tokens
 *
 * x and y are (tokens, width) float32, the texts one after the other; starts is (texts + 1) int64, seen (texts) int64:
 * so many tokens of each text are keys, and all are queries. A group is
 * [smooth], then for each of <group>_layers: values int8, scale, bias, [outlier rows]. Add-norm is [residual],
 * [norm weight, [norm bias]], as the attributes residual, norm and norm_bias say; with norm_first the residual is added
 * to what is normalized. Norms of x before the layers and of each head of queries, keys and values are weight and
 * [bias], as before_norm, query_norm, key_norm, value_norm and <which>_norm_bias say; cosine and sine (tokens, size / 2)
 * come with rotary. With <group>_tails what is beyond the input's range counts in float, but for the
 * outlier channels, which have their own rows (see Linear). <group>_dither is for all but
 * "down". A group with bfloat16 or float weights is, for each of <group>_layers, values and bias. Scores of DeBERTa have
 * rows, int64 (2 * reach - 1), the row of each distance query - key, and of a table each that queries meet, c2p (rows,
 * heads * size), and that keys meet, p2c (heads * size, columns), transposed; with capped, products of queries and keys
 * are cap * tanh(product / cap) first. Attention is in 16-bit integers, but for
 * Fp32Attention, PackedAttention with in_float, and where there are such rows.
 */
#include "operators.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "processor.h"
#include "scratch.h"
#include "selfcheck.h"
#include "support.h"

/* ---- choosing --------------------------------------------------------------------------------------------------- */

/* All sets of this kind of processor, the best first. */
static const struct { const Kernels *kernels; unsigned instructions; } SETS[] = {
#if defined(__aarch64__)
    {&kernels_neoni8mm, HAS_NEONI8MM},
    {&kernels_neondotprod, HAS_NEONDOTPROD},
    {&kernels_neon, HAS_NEON},
#else
    {&kernels_amx, HAS_AMX},
    {&kernels_avx512bf16, HAS_AVX512BF16},
    {&kernels_avx512vnni, HAS_AVX512VNNI},
    {&kernels_avxvnni, HAS_AVXVNNI},
    {&kernels_avx2, HAS_AVX2},
#endif
};

static int is_left_out(const Kernels *kernels) { return !kernels->linear; } /* left_out.c */

const Kernels *choose_kernels(void) {
    const char *wanted = getenv("FASTEMBED_RT_KERNELS");
    const unsigned here = processor_sets();
    for (size_t k = 0; k < sizeof SETS / sizeof SETS[0]; k++) {
        const Kernels *kernels = SETS[k].kernels;
        int is_wanted = !wanted || !*wanted || !strcmp(wanted, kernels->name);
        if (here & SETS[k].instructions && is_wanted && !is_left_out(kernels))
            return kernels;
    }
    return NULL;
}

/* Name of the kernels that run on this processor, "" where none do. */
EXPORTED const char *fastembed_rt_kernels(void) {
    const Kernels *found = choose_kernels();
    return found ? found->name : "";
}

/* Name of the kernels that are best on this processor where this library lacks them, "" where it has them. */
EXPORTED const char *fastembed_rt_left_out(void) {
    const unsigned here = processor_sets();
    for (size_t k = 0; k < sizeof SETS / sizeof SETS[0]; k++)
        if (here & SETS[k].instructions)
            return is_left_out(SETS[k].kernels) ? SETS[k].kernels->name : "";
    return "";
}

/* What those kernels compute otherwise than a plain loop does, "" where nothing; see selfcheck.c. */
EXPORTED const char *fastembed_rt_selfcheck(void) {
    const Kernels *found = choose_kernels();
    return found ? selfcheck(found) : "";
}

/* ---- how onnxruntime sees them ----------------------------------------------------------------------------------- */

/* onnxruntime hands `op` to each of the functions in it. */
typedef struct {
    OrtCustomOp op;
    const char *name;
} Operator;

static const char *name_of(const OrtCustomOp *op) { return ((const Operator *)op)->name; }
static const char *on_cpu(const OrtCustomOp *op) { (void)op; return "CPUExecutionProvider"; }
static int any_type(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return ANY_TYPE; }
static int float_type(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return FLOAT_TYPE; }
static size_t one(const OrtCustomOp *op) { (void)op; return 1; }
static int variadic(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return VARIADIC; }
static int required(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return REQUIRED; }
static int default_memory(const OrtCustomOp *op, size_t index) { (void)op; (void)index; return 0; }
static int at_least_one(const OrtCustomOp *op) { (void)op; return 1; }
static int no(const OrtCustomOp *op) { (void)op; return 0; }

/* Every operator takes any inputs and gives one output of float; create and run look at what came. */
#define OPERATOR(name_, create_, run_)                                                                                 \
    {                                                                                                                  \
        .name = name_,                                                                                                 \
        .op = {                                                                                                        \
            .version = API_VERSION, .name = name_of, .provider = on_cpu, .input_type = any_type, .input_count = one,   \
            .output_type = float_type, .output_count = one, .destroy = destroy_kernel,                                 \
            .input_characteristic = variadic, .output_characteristic = required, .input_memory = default_memory,       \
            .variadic_input_least = at_least_one, .variadic_input_homogeneous = no,                                    \
            .variadic_output_least = at_least_one, .variadic_output_homogeneous = no, .create = create_, .run = run_,  \
        },                                                                                                             \
    }

static const Operator operators[] = {
    OPERATOR("QuantLinear", create_linear, run_linear),
    OPERATOR("QuantFeedForward", create_feed_forward, run_feed_forward),
    OPERATOR("PackedAttention", create_packed_attention, run_packed_attention),
    OPERATOR("QuantAttention", create_attention_block, run_attention_block),
    OPERATOR("QuantEmbedding", create_embedding, run_embedding),
    OPERATOR("PackedMean", create_mean, run_mean),
    OPERATOR("Bf16Linear", create_bf16_linear, run_linear),
    OPERATOR("Bf16FeedForward", create_bf16_feed_forward, run_feed_forward),
    OPERATOR("Bf16Attention", create_bf16_attention_block, run_attention_block),
    OPERATOR("Fp32Linear", create_fp32_linear, run_linear),
    OPERATOR("Fp32FeedForward", create_fp32_feed_forward, run_feed_forward),
    OPERATOR("Fp32Attention", create_fp32_attention_block, run_attention_block),
    OPERATOR("Bf16Embedding", create_bf16_embedding, run_bf16_embedding),
};

/* ---- where sessions get their tensors ---------------------------------------------------------------------------- */

static OrtMemoryInfo *cpu_memory;
static OrtAllocator *onnxruntimes;

/* Where there is no memory onnxruntime wants an exception of C++, which its own allocator throws through this function:
 * NULL it would write to. */
static void *allocate_tensor(OrtAllocator *allocator, size_t bytes) {
    (void)allocator;
    void *found;
    while (!(found = allocate_scratch(bytes)))
        onnxruntimes->free(onnxruntimes, onnxruntimes->allocate(onnxruntimes, bytes));
    return found;
}

static void free_tensor(OrtAllocator *allocator, void *memory) {
    (void)allocator;
    free_scratch(memory);
}

static const OrtMemoryInfo *memory_of(const OrtAllocator *allocator) {
    (void)allocator;
    return cpu_memory;
}

static OrtAllocator tensors = {API_VERSION, allocate_tensor, free_tensor, memory_of};

/* Has the process's onnxruntime know the allocator. Sessions that do not ask for it have their own as before. */
static OrtStatus *offer_tensors(const OrtApi *api) {
    OrtEnv *env = NULL; /* the one that is there: a process has one */
    OrtStatus *error = CALL(api, DefaultAllocator, DEFAULT_ALLOCATOR)(&onnxruntimes);
    if (!error)
        error = CALL(api, CreateCpuMemoryInfo, CREATE_CPU_MEMORY_INFO)(DEVICE_ALLOCATOR, DEFAULT_MEMORY, &cpu_memory);
    if (!error)
        error = CALL(api, CreateEnv, CREATE_ENV)(WARNING, "fastembed_rt", &env);
    if (!error)
        error = CALL(api, RegisterAllocator, REGISTER_ALLOCATOR)(env, &tensors);
    if (env)
        CALL(api, ReleaseEnv, RELEASE_ENV)(env);
    return error;
}

/* Has a session get its tensors from scratch memory. Where the process has another allocator for its sessions, which
 * before 1.23 no second one may join, this one keeps onnxruntime's: the same vectors from more memory. */
static OrtStatus *use_tensors(OrtSessionOptions *options, const OrtApi *api) {
    static enum { NOT_YET, OFFERED, REFUSED } state;
    if (state == NOT_YET) {
        OrtStatus *error = offer_tensors(api);
        state = error ? REFUSED : OFFERED;
        if (error)
            CALL(api, ReleaseStatus, RELEASE_STATUS)(error);
    }
    return state == REFUSED ? NULL
                            : CALL(api, AddSessionConfigEntry, ADD_SESSION_CONFIG_ENTRY)(
                                  options, "session.use_env_allocators", "1");
}

static pthread_mutex_t registering = PTHREAD_MUTEX_INITIALIZER;

/* A process forked while another thread holds a lock would wait for it for ever. These are all that the library has, in
 * the order in which a thread may come to hold several: who registers has onnxruntime know an allocator. */
static void lock_all(void) {
    pthread_mutex_lock(&registering);
    lock_packed();
    lock_blocks();
}
static void unlock_all(void) {
    unlock_blocks();
    unlock_packed();
    pthread_mutex_unlock(&registering);
}
__attribute__((constructor)) static void survive_forks(void) { pthread_atfork(lock_all, unlock_all, unlock_all); }

EXPORTED OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static OrtCustomOpDomain *domain; /* lives as long as the library: sessions refer to it */
    const OrtApi *api = base->get_api(API_VERSION);
    if (!api) /* before 1.17; version 1 has the status that says so */
        return CALL(base->get_api(1), CreateStatus, CREATE_STATUS)(
            FAILED, "fastembed_rt: onnxruntime is older than 1.17; upgrade it");
    OrtStatus *error = NULL;
    prepare_refusals(api);
    pthread_mutex_lock(&registering);
    if (!domain) {
        OrtCustomOpDomain *made = NULL;
        error = CALL(api, CreateCustomOpDomain, CREATE_CUSTOM_OP_DOMAIN)("fastembed_rt", &made);
        for (size_t k = 0; !error && k < sizeof operators / sizeof operators[0]; k++)
            error = CALL(api, CustomOpDomainAdd, CUSTOM_OP_DOMAIN_ADD)(made, &operators[k].op);
        domain = error ? NULL : made;
    }
    if (!error)
        error = use_tensors(options, api);
    pthread_mutex_unlock(&registering);
    return error ? error : CALL(api, AddCustomOpDomain, ADD_CUSTOM_OP_DOMAIN)(options, domain);
}
