/* processor.h on Arm, where the system knows: programs may not ask the processor. */
#include "processor.h"

#if defined(__APPLE__)
#include <sys/sysctl.h>

static int has(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(name, &value, &size, NULL, 0) && value;
}

unsigned processor_sets(void) {
    unsigned sets = HAS_NEON;
    if (has("hw.optional.arm.FEAT_DotProd")) /* macOS 12 and later; all of Apple's have it */
        sets |= HAS_NEONDOTPROD;
    if (has("hw.optional.arm.FEAT_I8MM"))
        sets |= HAS_NEONI8MM;
    return sets;
}

#else
#include <sys/auxv.h>

unsigned processor_sets(void) {
    /* Numbers of Linux's interface; headers of older systems have no names for them. */
    enum { ASIMDDP = 1 << 20, I8MM_2 = 1 << 13 };
    const unsigned long AT_HWCAP_2 = 26;
    unsigned sets = HAS_NEON;
    if (getauxval(AT_HWCAP) & ASIMDDP)
        sets |= HAS_NEONDOTPROD;
    if (getauxval(AT_HWCAP_2) & I8MM_2)
        sets |= HAS_NEONI8MM;
    return sets;
}
#endif
