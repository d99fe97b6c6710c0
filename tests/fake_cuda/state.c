/* What the pretended libraries share: each thread's device, whose memory and streams are whose, and who captures.

   What a card would refuse is refused: calls that may disturb a capture, in every thread that does not say that it stands
   apart, handles of another device than the thread's, and memory whose pages are locked already. Each refusal is a line on
   stderr too. FAKE_CUDA_LOCKS=0: no memory is locked at all. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
enum { GLOBAL, THREAD_LOCAL, RELAXED, CAPTURING = 900, OF_ANOTHER = 400, MOST = 1 << 16 };
static _Thread_local int device, mode, captures; /* captures: of this thread */
static int all_captures;
static struct { char *start; size_t size; int device; } blocks[MOST];
static int count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int fake_number(const char *name, int otherwise) { const char *given = getenv(name); return given ? atoi(given) : otherwise; }
int fake_devices(void) { return fake_number("FAKE_CUDA_DEVICES", 1); }
int fake_capability(void) { return fake_number("FAKE_CUDA_CAPABILITY", 90); }
int fake_device(void) { return device; }
int fake_set_device(int number) { return number < 0 || number >= fake_devices() ? 101 : (device = number, 0); }
int fake_exchange(int *given) { int before = mode; mode = *given; *given = before; return 0; }
static int refused(const char *what, const char *why, int status) {
    fprintf(stderr, "fake CUDA refuses %s: %s\n", what, why);
    return status;
}
/* What may disturb a capture: of this thread's own, or of others. */
int fake_unsafe(const char *what) {
    int others = __atomic_load_n(&all_captures, __ATOMIC_SEQ_CST) - captures;
    if (mode != RELAXED && captures) return refused(what, "this thread captures", CAPTURING);
    if (mode == GLOBAL && others) return refused(what, "another thread captures", CAPTURING);
    return 0;
}
int fake_begin(void) { captures++; __atomic_add_fetch(&all_captures, 1, __ATOMIC_SEQ_CST); return 0; }
int fake_end(void) {
    usleep(1000 * fake_number("FAKE_CUDA_CAPTURE_MS", 0)); /* others have time to disturb it */
    captures--;
    __atomic_sub_fetch(&all_captures, 1, __ATOMIC_SEQ_CST);
    return 0;
}
/* Memory of this thread's device. */
int fake_allocate(void **out, size_t size) {
    char *made = aligned_alloc(256, (size + 256) / 256 * 256);
    pthread_mutex_lock(&lock);
    for (int k = 0; made && k < MOST; k++)
        if (!blocks[k].start) {
            blocks[k].start = made; blocks[k].size = size + 1; blocks[k].device = device;
            count = k >= count ? k + 1 : count;
            break;
        }
    pthread_mutex_unlock(&lock);
    *out = made;
    return made ? 0 : 2;
}
int fake_release(void *from) {
    pthread_mutex_lock(&lock);
    for (int k = 0; k < count; k++)
        if (blocks[k].start == from) blocks[k].start = NULL;
    pthread_mutex_unlock(&lock);
    free(from);
    return 0;
}
/* The device of an address, -1: the host's. */
int fake_device_of(const void *at) {
    int found = -1;
    pthread_mutex_lock(&lock);
    for (int k = 0; k < count; k++)
        if (blocks[k].start && (const char *)at >= blocks[k].start && (const char *)at < blocks[k].start + blocks[k].size)
            found = blocks[k].device;
    pthread_mutex_unlock(&lock);
    return found;
}
/* A stream, a handle or a module: it begins with its device. */
int fake_thing(void **out) { int *made = malloc(64); *made = device; *out = made; return 0; }
int fake_has(const char *what, const void *thing) {
    return !thing || *(const int *)thing == device ? 0 : refused(what, "it is given what another device has", OF_ANOTHER);
}
/* Of two things, that they are of one device, whichever the thread's is. */
int fake_match(const char *what, const void *one, const void *other) {
    return !one || !other || *(const int *)one == *(const int *)other ? 0 : refused(what, "they are of two devices", OF_ANOTHER);
}
int fake_touches(const char *what, const void *at) {
    int of = fake_device_of(at);
    return of < 0 || of == device ? 0 : refused(what, "it is given memory of another device", OF_ANOTHER);
}
int fake_captures(void) { return captures; }
/* Page locks are of whole pages. What fails is this thread's last error until somebody asks for it. */
static _Thread_local int last;
static struct { char *from, *to, *given; } locks[MOST];
int fake_last(int forget) { int found = last; if (forget) last = 0; return found; }
int fake_lock(void *start, size_t size) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *from = (char *)((size_t)start / page * page), *to = (char *)(((size_t)start + size + page - 1) / page * page);
    int place = -1, taken = 0;
    if (!fake_number("FAKE_CUDA_LOCKS", 1)) return last = 801;
    pthread_mutex_lock(&lock);
    for (int k = 0; k < MOST; k++)
        if (!locks[k].from) place = place < 0 ? k : place;
        else taken = taken || (from < locks[k].to && locks[k].from < to);
    if (!taken && place >= 0) locks[place].from = from, locks[place].to = to, locks[place].given = start;
    pthread_mutex_unlock(&lock);
    return taken || place < 0 ? last = refused("cudaHostRegister", "some of its pages are locked already", 712) : 0;
}
int fake_unlock(void *start) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int k = 0; k < MOST && !found; k++)
        if (locks[k].from && locks[k].given == start) found = 1, locks[k].from = NULL;
    pthread_mutex_unlock(&lock);
    return found ? 0 : (last = refused("cudaHostUnregister", "it is not locked", 713));
}
