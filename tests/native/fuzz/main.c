/* fuzz FIRST COUNT [THREADS [FILE]]: runs cases FIRST to FIRST + COUNT - 1, on THREADS threads at once; 1 after a wrong
 * one, 3 where the kernels of FASTEMBED_RT_KERNELS do not run here. FILE gets a line for each sound one, its number,
 * operator and a hash of its output's bits: processors have to agree. FASTEMBED_RT_SHARED_WEIGHTS as for the library.
 *
 * Of every case: made twice, so that the second takes the packed weights of the first; run twice, with memory and
 * outputs that held other bytes before and tasks in another order, to the same bits, every element written. A sound
 * case gives what the reference gives; a case without memory says so; what has to be refused is. Built with sanitizers,
 * which watch addresses, arithmetic and leaks meanwhile. */
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

#if defined(__SANITIZE_ADDRESS__)
void __sanitizer_set_death_callback(void (*callback)(void));
#endif

static __thread uint64_t current;
static __thread const Case *running;

static void say_which(void) {
    fprintf(stderr, "in case %llu, %s: %s\n", (unsigned long long)current, running ? running->info.op : "",
            running && *running->spoiled ? running->spoiled : "sound");
}

__attribute__((noreturn, format(printf, 1, 2))) static void wrong(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fprintf(stderr, "\n");
    say_which();
    exit(1);
}

typedef struct { size_t sound, refused, at_call, without_memory, other; } Tally;

static void check_status(const OrtStatus *status) {
    if (strncmp(status_text(status), "fastembed_rt: ", 14) && !strstr(status_text(status), "Failed to allocate") &&
        !strstr(status_text(status), "out of range") && !strstr(status_text(status), "pool is broken"))
        wrong("a status without a sentence: '%s'", status_text(status));
}

/* Bits of two runs: every element written, and the same both times. */
static void compare_runs(const OrtKernelContext *a, const OrtKernelContext *b) {
    if (a->output.bytes != b->output.bytes)
        wrong("two runs, two sizes");
    const uint32_t *x = a->output.data, *y = b->output.data;
    for (size_t k = 0; k < a->output.bytes / 4; k++)
        if (x[k] != y[k]) {
            if (x[k] == a->canary && y[k] == b->canary)
                wrong("element %zu of %zu is not written", k, a->output.bytes / 4);
            float first, second;
            memcpy(&first, x + k, 4);
            memcpy(&second, y + k, 4);
            if (first == first || second == second) /* which NaN it is may depend on the order of operands */
                wrong("element %zu is %g in one run and %g in another", k, (double)first, (double)second);
        }
}

static void compare_expected(const Case *tried, const OrtKernelContext *context) {
    if (context->output.dims[0] != (int64_t)tried->rows || context->output.dims[1] != (int64_t)tried->columns)
        wrong("the output is not %zu by %zu", tried->rows, tried->columns);
    const float *found = context->output.data;
    for (size_t k = 0; k < tried->rows * tried->columns; k++)
        if (!(fabs(found[k] - tried->expected[k]) <= tried->tolerance[k]))
            wrong("element %zu is %.9g, expected %.9g within %.2g", k, (double)found[k], tried->expected[k],
                  tried->tolerance[k]);
}

/* The kernel, or NULL after it was refused. */
static void *created(const Case *tried, const OrtCustomOp *op, size_t fails, Tally *tally) {
    void *kernel = NULL;
    enter(0xA5, fails, tried->mute);
    OrtStatus *error = op->create(op, &fake_api, &tried->info, &kernel);
    size_t failed = leave();
    if (!error && failed)
        wrong("made without the memory it asked for");
    if (!error)
        return kernel;
    check_status(error);
    release_status(error);
    if (!failed && tried->sound)
        wrong("a sound node is refused");
    *(failed ? &tally->without_memory : &tally->refused) += 1;
    return NULL;
}

/* Whether it ran. */
static int ran(const Case *tried, const OrtCustomOp *op, void *kernel, int fill, size_t fails,
               OrtKernelContext *context, Tally *tally) {
    enter(fill, fails, tried->mute);
    OrtStatus *error = op->run(kernel, context);
    size_t failed = leave();
    if (!error && failed)
        wrong("ran without the memory it asked for");
    if (!error && tried->refused && !failed)
        wrong("what has to be refused ran");
    if (error) {
        check_status(error);
        if (!failed && tried->sound && !context->broken_pool)
            wrong("a sound call is refused: %s", status_text(error));
        release_status(error);
        *(failed ? &tally->without_memory : &tally->at_call) += 1;
    }
    return !error;
}

static uint64_t first_case, case_count;
static FILE *hashes;

/* FNV-1a, of 32 bits at a time. */
static void write_hash(const Case *tried, const OrtKernelContext *context) {
    const uint32_t *x = context->output.data;
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t k = 0; k < context->output.bytes / 4; k++)
        hash = (hash ^ x[k]) * 0x100000001B3u;
    fprintf(hashes, "%llu %s %016llx\n", (unsigned long long)current, tried->info.op, (unsigned long long)hash);
}

static void run_case(uint64_t number, Tally *tally) {
    Case tried;
    current = number;
    make_case(&tried, number);
    running = &tried;
    const OrtCustomOp *op = operator_called(tried.info.op);
    void *first = created(&tried, op, tried.fails, tally);
    void *second = first ? created(&tried, op, 0, tally) : NULL;
    if (first && !second)
        wrong("made once and refused once");
    if (first) {
        OrtKernelContext a = {.info = &tried.info, .canary = 0x7FC0A5A5, .broken_pool = tried.broken_pool};
        OrtKernelContext b = {.info = &tried.info, .canary = 0x7FC05A5A, .backwards = 1};
        int done = ran(&tried, op, first, 0x00, 0, &a, tally);
        op->destroy(first);
        if (done) {
            if (!ran(&tried, op, second, 0xFF, 0, &b, tally))
                wrong("ran once and refused once");
            compare_runs(&a, &b);
            if (tried.sound)
                compare_expected(&tried, &a);
            if (tried.sound && hashes)
                write_hash(&tried, &a);
            *(tried.sound ? &tally->sound : &tally->other) += 1;
            if (tried.fails) {
                OrtKernelContext c = {.info = &tried.info, .canary = 0x7FC0A5A5};
                if (ran(&tried, op, second, 0xA5, tried.fails, &c, tally))
                    compare_runs(&a, &c);
                free_tensor(&c.output);
            }
        }
        op->destroy(second);
        free_tensor(&a.output);
        free_tensor(&b.output);
    }
    running = NULL;
    free_case(&tried);
}

static void *work(void *argument) {
    Tally *tally = argument;
    for (uint64_t k = 0; k < case_count; k++)
        run_case(first_case + k, tally);
    return NULL;
}

/* Exported. */
const char *fastembed_rt_kernels(void);
const char *fastembed_rt_selfcheck(void);
int fastembed_rt_share_packed(const char *folder);

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: fuzz FIRST COUNT [THREADS [FILE]]\n");
        return 2;
    }
    first_case = strtoull(arguments[1], NULL, 10);
    case_count = strtoull(arguments[2], NULL, 10);
    size_t threads = count > 3 ? strtoul(arguments[3], NULL, 10) : 1;
    if (count > 4 && !(hashes = fopen(arguments[4], "w")))
        return 2;
    if (!*fastembed_rt_kernels())
        return 3;
    const char *folder = getenv("FASTEMBED_RT_SHARED_WEIGHTS");
    if (folder && !fastembed_rt_share_packed(folder))
        return 2;
    if (*fastembed_rt_selfcheck()) {
        fprintf(stderr, "the self-check finds %s wrong\n", fastembed_rt_selfcheck());
        return 1;
    }
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(say_which);
#endif
    enum { MOST_THREADS = 64 };
    pthread_t ids[MOST_THREADS];
    Tally tallies[MOST_THREADS] = {0}, all = {0};
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    for (size_t k = 1; k < threads; k++)
        if (pthread_create(ids + k, NULL, work, tallies + k))
            return 2;
    work(tallies);
    for (size_t k = 1; k < threads; k++)
        pthread_join(ids[k], NULL);
    for (size_t k = 0; k < threads; k++) {
        all.sound += tallies[k].sound;
        all.refused += tallies[k].refused;
        all.at_call += tallies[k].at_call;
        all.without_memory += tallies[k].without_memory;
        all.other += tallies[k].other;
    }
    if (hashes && fclose(hashes))
        return 2;
    printf("%llu cases from %llu on %zu threads of %s kernels: %zu sound ones as expected, %zu spoiled ones ran, refused "
           "%zu at load and %zu at a call, %zu without memory\n", (unsigned long long)case_count,
           (unsigned long long)first_case, threads, fastembed_rt_kernels(), all.sound, all.other, all.refused,
           all.at_call, all.without_memory);
    return 0;
}
