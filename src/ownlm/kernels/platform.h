// What both libraries ask of compiler and system: exported functions, the x86 instruction sets, leave to use tiles.
#pragma once

#if defined(_WIN32)
#define OWNLM_API extern "C" __declspec(dllexport)
#else
#define OWNLM_API extern "C" __attribute__((visibility("default")))
#endif

// Kernels are compiled for several instruction sets by GCC's `target` pragmas.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define OWNLM_X86 1
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#define OWNLM_AMX 1
#include <sys/syscall.h>
#include <unistd.h>

namespace ownlm {

// Bits of the processor's leaf 7 that tell of the tile unit (AMX).
constexpr unsigned AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24, AMX_INT8 = 1u << 25;

// Whether the tile unit has all that is asked for, and Linux lets this process use its state.
static bool may_use_tiles(unsigned wanted) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & wanted) != wanted) return false;
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

}  // namespace ownlm
#endif
#endif
