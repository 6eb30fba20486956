// For building llama.cpp with GCC 12: its AMX intrinsics say of `ldtilecfg` that it reads 8 of the 64 bytes, and of tile
// loads and stores that they touch no memory. So the rest of a configuration is never written, and ggml's AMX products
// end with a segmentation fault. The same instructions, with all that they touch:
//
//     CXXFLAGS="-include $PWD/bench/amx_tile_fix.h" CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary ...
#ifdef __AMX_TILE__
#include <immintrin.h>

#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)) : "memory")

// In two steps, so that names of tiles which are macros are replaced by their numbers first.
#undef _tile_loadd
#define _tile_loadd(tile, base, stride) tile_load_all("tileloadd", tile, base, stride)
#undef _tile_stream_loadd
#define _tile_stream_loadd(tile, base, stride) tile_load_all("tileloaddt1", tile, base, stride)
#define tile_load_all(name, tile, base, stride) \
    __asm__ volatile(name "\t(%0,%1,1), %%tmm" #tile ::"r"((const void *)(base)), "r"((long)(stride)) : "memory")
#undef _tile_stored
#define _tile_stored(tile, base, stride) tile_store_all(tile, base, stride)
#define tile_store_all(tile, base, stride) \
    __asm__ volatile("tilestored\t%%tmm" #tile ", (%0,%1,1)" ::"r"((void *)(base)), "r"((long)(stride)) : "memory")
#endif
