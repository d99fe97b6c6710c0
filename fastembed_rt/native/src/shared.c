#include "shared.h"

#include <string.h>

#include "support.h"

static char folder[512]; /* "": nothing is shared */

/* Names the folder of what is packed from now on; "" for none. Whether it can be one: 0 where its name is too long, or
 * there are no such files here. */
EXPORTED int fastembed_rt_share_packed(const char *name);

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
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KEEP_WHAT_IS_THERE = 1 }; /* RENAME_NOREPLACE, which older headers lack */

/* Behind the weights. */
typedef struct {
    uint64_t magic, bytes, checksum;
} Trailer;

static const uint64_t MAGIC = UINT64_C(0x3174726564656261); /* another one where the order of weights changes */
static char begun[640]; /* the path of what has no name yet */
static unsigned made; /* files, for names of their own */

EXPORTED int fastembed_rt_share_packed(const char *name) {
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

/* All of a file; NULL and no file where that fails. */
static void *mapped(int file, size_t bytes, int protection) {
    void *memory = file < 0 ? MAP_FAILED : mmap(NULL, file_bytes(bytes), protection, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (memory == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(memory, file_bytes(bytes), MADV_HUGEPAGE); /* refused by most: of files in memory, where it is switched on */
#endif
    return memory;
}

void *find_shared(const SharedName *name) {
    char path[640];
    if (!sharing())
        return NULL;
    path_of(name, path, sizeof path);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat about;
    if (file >= 0 && (fstat(file, &about) || (uint64_t)about.st_size != file_bytes(name->bytes) ||
                      about.st_uid != geteuid() || about.st_mode & 022)) {
        close(file);
        return NULL;
    }
    if (file >= 0)
        futimens(file, NULL); /* in use: who looks for what is not sees how old it is */
    void *memory = mapped(file, name->bytes, PROT_READ);
    if (!memory)
        return NULL;
    const Trailer *end = trailer(memory, name->bytes);
    if (end->magic == MAGIC && end->bytes == name->bytes && end->checksum == checksum(memory, name->bytes))
        return memory;
    free_shared(memory, name->bytes);
    return NULL;
}

void *begin_shared(const SharedName *name) {
    if (!sharing())
        return NULL;
    snprintf(begun, sizeof begun, "%s/.%ld-%u", folder, (long)getpid(), made++);
    int file = open(begun, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return NULL;
    /* Room now: a page that finds none when it is written to would end the process. */
    if (posix_fallocate(file, 0, (off_t)file_bytes(name->bytes))) {
        close(file);
        unlink(begun);
        return NULL;
    }
    void *memory = mapped(file, name->bytes, PROT_READ | PROT_WRITE);
    if (!memory)
        unlink(begun);
    return memory;
}

void *publish_shared(const SharedName *name, void *memory) {
    char path[640];
    path_of(name, path, sizeof path);
    *trailer(memory, name->bytes) = (Trailer){MAGIC, name->bytes, checksum(memory, name->bytes)};
    mprotect(memory, file_bytes(name->bytes), PROT_READ);
    if (!syscall(SYS_renameat2, AT_FDCWD, begun, AT_FDCWD, path, KEEP_WHAT_IS_THERE))
        return memory;
    void *first = errno == EEXIST ? find_shared(name) : NULL;
    if (!first) { /* what is there is not sound, or the file system cannot tell */
        if (rename(begun, path))
            unlink(begun); /* without a name it is this process's alone */
        return memory;
    }
    unlink(begun);
    int same = !memcmp(first, memory, name->bytes);
    free_shared(same ? memory : first, name->bytes);
    return same ? first : memory;
}

void free_shared(void *memory, size_t bytes) { munmap(memory, file_bytes(bytes)); }

#else

EXPORTED int fastembed_rt_share_packed(const char *name) { return !*name; }

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
