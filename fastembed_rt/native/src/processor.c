#include "processor.h"

#include <cpuid.h>
#include <stdint.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { ASKED = 1 << 8 };

typedef struct { uint32_t eax, ebx, ecx, edx; } Leaf;

static Leaf leaf(uint32_t number, uint32_t part) {
    Leaf found = {0};
    if (!__get_cpuid_count(number, part, &found.eax, &found.ebx, &found.ecx, &found.edx))
        return (Leaf){0};
    return found;
}

static int bit(uint32_t word, int number) { return word >> number & 1; }

/* Registers that the system saves when it changes threads; only where it has told the processor (OSXSAVE). */
static uint32_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Linux gives tiles to a process that asks, for all its threads: 8 KB more are saved of each that uses them. It refuses
 * where a thread has a stack for signals that is too small for those. */
static int may_use_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM of Linux 5.16 */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return 0;
#endif
}

static unsigned ask(void) {
    enum { YMM = 0x06, ZMM = 0xE6, TILES = 0x60000 }; /* with all that they consist of */
    Leaf basic = leaf(1, 0), extended = leaf(7, 0);
    Leaf more = extended.eax >= 1 ? leaf(7, 1) : (Leaf){0}; /* eax: the last part that there is */
    uint32_t saved = bit(basic.ecx, 27) ? saved_registers() : 0;
    int fma = bit(basic.ecx, 12), avx2 = bit(extended.ebx, 5);
    unsigned sets = 0;
    if (!fma || !avx2 || (saved & YMM) != YMM)
        return sets;
    sets |= HAS_AVX2;
    if (bit(more.eax, 4))
        sets |= HAS_AVXVNNI;
    int f = bit(extended.ebx, 16), dq = bit(extended.ebx, 17), bw = bit(extended.ebx, 30), vl = bit(extended.ebx, 31);
    if (f && dq && bw && vl && bit(extended.ecx, 11) && (saved & ZMM) == ZMM)
        sets |= HAS_AVX512VNNI;
    if (sets & HAS_AVX512VNNI && bit(more.eax, 5))
        sets |= HAS_AVX512BF16;
    int tiles = bit(extended.edx, 24), int8 = bit(extended.edx, 25), bf16 = bit(extended.edx, 22);
    if (sets & HAS_AVX512BF16 && tiles && int8 && bf16 && (saved & TILES) == TILES && may_use_tiles())
        sets |= HAS_AMX;
    return sets;
}

unsigned processor_sets(void) {
    /* Once: in a virtual machine the question costs microseconds. Threads that ask at once get the same answer. */
    static unsigned known;
    unsigned sets = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!sets) {
        sets = ask() | ASKED;
        __atomic_store_n(&known, sets, __ATOMIC_RELAXED);
    }
    return sets & ~(unsigned)ASKED;
}
