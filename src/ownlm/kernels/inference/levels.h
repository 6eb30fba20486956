// The kernels, compiled for several instruction sets by `target` pragmas, and which of them runs.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define OWNLM_X86 1
#include <cpuid.h>
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "halves.h"
#include "kernels.h"

namespace ownlm {

namespace portable {
#include "simd_portable.h"
#include "products.h"
#include "linear.h"
#include "rows.h"
#include "attention.h"
#include "weights.h"
#include "table.h"
}  // namespace portable

#ifdef OWNLM_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace avx2 {
#include "simd_avx2.h"
#include "products.h"
#include "linear.h"
#include "rows.h"
#include "attention.h"
#include "weights.h"
#include "table.h"
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c,prefer-vector-width=512")
namespace avx512 {
#include "simd_avx512.h"
#include "products.h"
#include "linear.h"
#include "rows.h"
#include "attention.h"
#include "weights.h"
#include "table.h"
}  // namespace avx512
#pragma GCC pop_options
#ifdef __linux__
#define OWNLM_TILES 1
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8,amx-bf16,fma,f16c,prefer-vector-width=512")
namespace amx {
#include "simd_avx512.h"
#include "products.h"
#include "linear.h"
#include "rows.h"
#include "tiles.h"
#include "attention.h"
#include "weights.h"
#include "table.h"
}  // namespace amx
#pragma GCC pop_options
#endif
#endif

enum Level { PORTABLE = 0, AVX2 = 1, AVX512 = 2, AMX = 3 };

#ifdef OWNLM_TILES
static bool has_tiles() {
    unsigned a, b, c, d;
    constexpr unsigned AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24, AMX_INT8 = 1u << 25, ALL = AMX_BF16 | AMX_TILE | AMX_INT8;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & ALL) != ALL) return false;
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}
#endif

static int best_level() {
#ifdef OWNLM_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
#ifdef OWNLM_TILES
        static const bool tiles = has_tiles();
        if (tiles) return AMX;
#endif
        return AVX512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return AVX2;
#endif
    return PORTABLE;
}

static int level = best_level();

static const Kernels& kernels() {
#ifdef OWNLM_TILES
    if (level == AMX) return amx::KERNELS;
#endif
#ifdef OWNLM_X86
    if (level == AVX512) return avx512::KERNELS;
    if (level == AVX2) return avx2::KERNELS;
#endif
    return portable::KERNELS;
}

}  // namespace ownlm
