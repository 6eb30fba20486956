// The kernels, compiled for several instruction sets by `target` pragmas, and which of them runs.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../platform.h"
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
#ifdef OWNLM_AMX
#define OWNLM_TILES 1  // from here on kernels have the tile unit
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

static int best_level() {
#ifdef OWNLM_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
#ifdef OWNLM_AMX
        static const bool tiles = may_use_tiles(AMX_BF16 | AMX_TILE | AMX_INT8);
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
#ifdef OWNLM_AMX
    if (level == AMX) return amx::KERNELS;
#endif
#ifdef OWNLM_X86
    if (level == AVX512) return avx512::KERNELS;
    if (level == AVX2) return avx2::KERNELS;
#endif
    return portable::KERNELS;
}

}  // namespace ownlm
