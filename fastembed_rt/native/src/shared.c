#define _GNU_SOURCE /* O_TMPFILE */
#include "shared.h"

#include <string.h>

#include "support.h"

static char folder[512]; /* "": nothing is shared */

int sharing(void) { return *folder != 0; }

uint64_t hashed(uint64_t hash, const void *bytes, size_t count) {
    const char *at = bytes;
    uint64_t word;
    for (; count >= sizeof word; count -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 32;
    }
    word = count;
    memcpy(&word, at, count); /* of the rest, and how long it is where it is short */
    hash = (hash ^ word ^ (uint64_t)count << 56) * UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ hash >> 32;
}

#ifdef __linux__

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Behind the weights. */
typedef struct {
    uint64_t magic, bytes, checksum;
} Trailer;

static const uint64_t MAGIC = UINT64_C(0x3174726564656261); /* another one where the order of weights changes */
static int begun = -1; /* the file that has no name yet */
static int refused;    /* layers without a file that others find */

int count_unshared(void) {
    int found = refused;
    refused = 0;
    return found;
}

int share_in(const char *name) {
    size_t length = strlen(name);
    if (length >= sizeof folder)
        return 0;
    memcpy(folder, name, length + 1);
    return 1;
}

static size_t file_bytes(size_t bytes) { return round_up(bytes, 64) + sizeof(Trailer); }
static Trailer *trailer(void *memory, size_t bytes) { return (Trailer *)((char *)memory + round_up(bytes, 64)); }
static uint64_t checksum(const void *memory, size_t bytes) { return hashed(MAGIC, memory, round_up(bytes, 64)); }

static void path_of(const SharedName *name, char *path, size_t room) {
    snprintf(path, room, "%s/%016llx-%s-%zu", folder, (unsigned long long)name->hash, name->kernels, name->bytes);
}

/* All of a file, or NULL. */
static void *mapped(int file, size_t bytes, int protection) {
    void *memory = mmap(NULL, file_bytes(bytes), protection, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(memory, file_bytes(bytes), MADV_HUGEPAGE); /* refused by most: of files in memory, where it is switched on */
#endif
    return memory;
}

/* Of the right size, and nobody else's to write to. */
static int is_ours(int file, const SharedName *name) {
    struct stat about;
    return !fstat(file, &about) && S_ISREG(about.st_mode) && (uint64_t)about.st_size == file_bytes(name->bytes) &&
           about.st_uid == geteuid() && !(about.st_mode & 022);
}

void touch_shared(const SharedName *name) {
    char path[640];
    path_of(name, path, sizeof path);
    if (sharing())
        utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW);
}

void *find_shared(const SharedName *name) {
    char path[640];
    if (!sharing())
        return NULL;
    path_of(name, path, sizeof path);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0)
        return NULL;
    void *memory = is_ours(file, name) ? mapped(file, name->bytes, PROT_READ) : NULL;
    close(file);
    if (!memory)
        return NULL;
    touch_shared(name);
    const Trailer *end = trailer(memory, name->bytes);
    if (end->magic == MAGIC && end->bytes == name->bytes && end->checksum == checksum(memory, name->bytes))
        return memory;
    free_shared(memory, name->bytes);
    return NULL;
}

/* Others need room as well: half of a small file system, a gigabyte of a large one. One without a limit tells no size. */
static int leaves_room(int file, size_t bytes) {
    struct statvfs about;
    if (fstatvfs(file, &about))
        return 0;
    if (!about.f_blocks)
        return 1;
    uint64_t whole = (uint64_t)about.f_blocks * about.f_frsize, available = (uint64_t)about.f_bavail * about.f_frsize;
    uint64_t left = whole / 2 < UINT64_C(1) << 30 ? whole / 2 : UINT64_C(1) << 30;
    return available >= left + bytes;
}

/* Room now: a page that finds none when it is written to would end the process. Many kernels give up a file in memory
 * when a signal comes meanwhile, as it does to a process that is profiled again and again. */
static int reserve(int file, size_t bytes) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = posix_fallocate(file, 0, (off_t)bytes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !error;
}

static void close_begun(void) {
    if (begun >= 0)
        close(begun);
    begun = -1;
}

static void *give_up(void) {
    close_begun();
    refused++;
    return NULL;
}

void *begin_shared(const SharedName *name) {
    if (!sharing())
        return NULL;
    begun = open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600); /* gone with the process until it has a name */
    if (begun < 0)
        return give_up();
    size_t bytes = file_bytes(name->bytes);
    if (!leaves_room(begun, bytes) || !reserve(begun, bytes))
        return give_up();
    void *memory = mapped(begun, name->bytes, PROT_READ | PROT_WRITE);
    return memory ? memory : give_up();
}

/* 0 where it has its name now. */
static int give_name(const char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", begun);
    return linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

void *publish_shared(const SharedName *name, void *memory) {
    char path[640];
    void *first = NULL;
    path_of(name, path, sizeof path);
    *trailer(memory, name->bytes) = (Trailer){MAGIC, name->bytes, checksum(memory, name->bytes)};
    mprotect(memory, file_bytes(name->bytes), PROT_READ);
    int shared = !give_name(path);
    if (!shared && errno == EEXIST) {
        first = find_shared(name);
        shared = first ? !memcmp(first, memory, name->bytes) : !unlink(path) && !give_name(path); /* it was not sound */
    }
    refused += !shared;
    close_begun();
    if (!first)
        return memory;
    free_shared(shared ? memory : first, name->bytes);
    return shared ? first : memory;
}

void free_shared(void *memory, size_t bytes) { munmap(memory, file_bytes(bytes)); }

#else

int share_in(const char *name) { return !*name; }
int count_unshared(void) { return 0; }
void touch_shared(const SharedName *name) { (void)name; }

void *find_shared(const SharedName *name) {
    (void)name;
    return NULL;
}

void *begin_shared(const SharedName *name) {
    (void)name;
    return NULL;
}

void *publish_shared(const SharedName *name, void *memory) {
    (void)name;
    return memory;
}

void free_shared(void *memory, size_t bytes) {
    (void)memory;
    (void)bytes;
}

#endif
