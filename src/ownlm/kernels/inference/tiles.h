// Products on the tile unit of the CPU (AMX). Included where GCC can compile it; no include guard: see engine.cpp.
//
// A tile holds 16 rows of 64 bytes. C += A·B: A has 16 rows of numbers of the inner dimension, B for every two (bfloat16) or
// four (int8) of them 16 columns (Intel 64 and IA-32 Software Developer's Manual, vol. 2, TDPBF16PS, TDPBSSD). Packed
// weights and cached keys and values lie in memory as B wants them, rows of numbers as A does; rows of A that are not
// there hold whatever is in memory, and their results are not kept.

constexpr int64_t FEWEST_ON_TILES = 4;  // fewer rows are multiplied as fast by the vector unit

struct TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

static constexpr TileConfig whole_config() {
    TileConfig config;
    for (int i = 4; i < 6; ++i) config.bytes[i] = 32;  // A: 16 rows of a group
    for (int i = 6; i < 8; ++i) config.rows[i] = 8;    // B: a group's 8 quads
    return config;
}

// GCC's intrinsics do not tell the compiler what memory they read, so it lies ready, and stores are ordered by hand.
alignas(64) static const TileConfig PAIR_CONFIG;
alignas(64) static constexpr TileConfig WHOLE_CONFIG = whole_config();

static inline void order_memory() { __asm__ volatile("" ::: "memory"); }

struct TileUse {
    explicit TileUse(const TileConfig& config) { _tile_loadconfig(&config); }
    ~TileUse() { _tile_release(); }
};

// Up to 2 panels for up to 32 rows: C in tiles 0 to 3, A in 4 and 5, B in 6 and 7.
template <int ROW_TILES, int PANELS>
static inline void multiply_pairs(const uint8_t* b, int64_t panel_stride, int64_t b_stride, const uint16_t* a,
                                  int64_t a_stride, int64_t depth, bool fetch, float* c) {
    order_memory();
    _tile_zero(0);
    if (PANELS > 1) _tile_zero(1);
    if (ROW_TILES > 1) _tile_zero(2);
    if (ROW_TILES > 1 && PANELS > 1) _tile_zero(3);
    for (int64_t k = 0; k < depth; k += GROUP) {
        const uint8_t* place = b + k / 2 * b_stride;
        for (int64_t line = 0; line < 16 && fetch; ++line) {
            __builtin_prefetch(place + 2 * AHEAD + line * 64);
            if (PANELS > 1) __builtin_prefetch(place + panel_stride + 2 * AHEAD + line * 64);
        }
        _tile_loadd(4, a + k, a_stride * 2);
        _tile_loadd(6, place, b_stride);
        _tile_dpbf16ps(0, 4, 6);
        if (PANELS > 1) {
            _tile_loadd(7, place + panel_stride, b_stride);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (ROW_TILES > 1) {
            _tile_loadd(5, a + 16 * a_stride + k, a_stride * 2);
            _tile_dpbf16ps(2, 5, 6);
            if (PANELS > 1) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, 64);
    if (PANELS > 1) _tile_stored(1, c + 256, 64);
    if (ROW_TILES > 1) _tile_stored(2, c + 512, 64);
    if (ROW_TILES > 1 && PANELS > 1) _tile_stored(3, c + 768, 64);
    order_memory();
}

template <int PANELS>
static inline void linear_pairs(const Matrix& matrix, const Rows& x, float* out, int64_t out_stride, int64_t panel) {
    alignas(64) float c[4 * 256];
    const uint8_t* b = matrix.panel(panel);
    for (int64_t row = 0; row < x.count; row += 32) {
        const int64_t left = x.count - row < 32 ? x.count - row : 32;
        const uint16_t* a = x.halves + row * x.stride;
        const int64_t stride = matrix.panel_bytes, depth = matrix.groups * GROUP;
        if (left > 16) multiply_pairs<2, PANELS>(b, stride, 64, a, x.stride, depth, row == 0, c);
        else multiply_pairs<1, PANELS>(b, stride, 64, a, x.stride, depth, row == 0, c);
        for (int64_t p = 0; p < PANELS; ++p) {
            const PanelBlock block = panel_block(matrix, x, out + p * PANEL, out_stride, panel + p);
            for (int64_t r = 0; r < left; ++r) {
                const Vec s = load(c + (r / 16 * 2 + p) * 256 + r % 16 * 16);
                store_columns(block.out + (row + r) * out_stride, s, block.bias, block.columns);
            }
        }
    }
}

// int4 weights of a panel as int8, groups of 512 bytes one after the other.
static inline void unpack_panel(const uint8_t* panel, int64_t groups, uint8_t* to) {
    const __m512i mask = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
    for (int64_t g = 0; g < groups; ++g) {
        const uint8_t* from = panel + g / 2 * Matrix::PAIR_INT4 + 64 + g % 2 * 256;
        for (int64_t j = 0; j < 4; ++j) {
            const __m512i both = _mm512_loadu_si512(from + 64 * j);
            const __m512i low = _mm512_and_si512(both, mask), high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
            _mm512_store_si512(to + g * 512 + 128 * j, _mm512_sub_epi8(low, eight));
            _mm512_store_si512(to + g * 512 + 128 * j + 64, _mm512_sub_epi8(high, eight));
        }
    }
}

// 16 rows times a group, whole numbers stored to c. Tiles are named in the instruction: two functions for two in turn.
#define OWNLM_MULTIPLY_GROUP(name, C, A, B)                                                               \
    static inline void name(const int8_t* a, int64_t a_stride, const uint8_t* b, int32_t* c) {            \
        _tile_zero(C);                                                                                    \
        _tile_loadd(A, a, a_stride);                                                                      \
        _tile_loadd(B, b, 64);                                                                            \
        _tile_dpbssd(C, A, B);                                                                            \
        _tile_stored(C, c, 64);                                                                           \
        order_memory();                                                                                   \
    }
OWNLM_MULTIPLY_GROUP(multiply_even_group, 0, 4, 6)
OWNLM_MULTIPLY_GROUP(multiply_odd_group, 1, 5, 7)
#undef OWNLM_MULTIPLY_GROUP

static inline void add_group(const int32_t* c, Vec w_scale, const float* scales, Vec s[16]) {
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r)
        s[r] = multiply_add(multiply(w_scale, all(scales[r])), to_float(_mm512_load_si512(c + 16 * r)), s[r]);
}

// One panel for all rows. While a group's products are scaled and added, the tile unit works on the next group.
static void linear_whole(const Matrix& matrix, const Rows& x, float* out, int64_t out_stride, int64_t panel,
                         uint8_t* scratch) {
    alignas(64) int32_t c[2][256];
    const int64_t groups = matrix.groups, pair_bytes = matrix.kind == INT8 ? Matrix::PAIR_INT8 : Matrix::PAIR_INT4;
    const uint8_t* packed = matrix.panel(panel);
    const uint8_t* weights = packed + 64;
    int64_t pair_stride = pair_bytes;
    if (matrix.kind == INT4) {
        unpack_panel(packed, groups, scratch);
        weights = scratch, pair_stride = 1024;
    }
    order_memory();
    const PanelBlock block = panel_block(matrix, x, out, out_stride, panel);
    for (int64_t row = 0; row < x.count; row += 16) {
        const int8_t* bytes = x.bytes + row * x.stride;
        const float* scales = x.scales + row;
        Vec s[16];
#pragma GCC unroll 16
        for (int r = 0; r < 16; ++r) s[r] = zero();
        multiply_even_group(bytes, x.stride, weights, c[0]);
        for (int64_t g = 0; g < groups; g += 2) {
            const uint8_t* pair = packed + g / 2 * pair_bytes;
            for (int64_t at = 0; at < pair_bytes && row == 0; at += 64) __builtin_prefetch(pair + 2 * AHEAD + at);
            multiply_odd_group(bytes + (g + 1) * GROUP, x.stride, weights + g / 2 * pair_stride + 512, c[1]);
            add_group(c[0], load_half(pair), scales + g * x.padded, s);
            if (g + 2 < groups)
                multiply_even_group(bytes + (g + 2) * GROUP, x.stride, weights + (g / 2 + 1) * pair_stride, c[0]);
            add_group(c[1], load_half(pair + 32), scales + (g + 1) * x.padded, s);
        }
        const int64_t left = x.count - row < 16 ? x.count - row : 16;
#pragma GCC unroll 16
        for (int r = 0; r < 16; ++r)
            if (r < left) store_columns(block.out + (row + r) * out_stride, s[r], block.bias, block.columns);
    }
}

static void linear_on_tiles(const Matrix& matrix, const Rows& x, float* out, int64_t out_stride, int64_t first,
                            int64_t last, uint8_t* scratch) {
    if (matrix.kind == BFLOAT16) {
        const TileUse use(PAIR_CONFIG);
        int64_t panel = first;
        for (; panel + 2 <= last; panel += 2) linear_pairs<2>(matrix, x, out + (panel - first) * PANEL, out_stride, panel);
        if (panel < last) linear_pairs<1>(matrix, x, out + (panel - first) * PANEL, out_stride, panel);
        return;
    }
    const TileUse use(WHOLE_CONFIG);
    for (int64_t panel = first; panel < last; ++panel)
        linear_whole(matrix, x, out + (panel - first) * PANEL, out_stride, panel, scratch);
}

// Scores [16, 64] of a tile's queries [16, width] and the keys of a block.
static inline void scores_on_tiles(const uint16_t* queries, const uint8_t* keys, int64_t width, float* scores) {
    alignas(64) float c[4 * 256];
    for (int64_t panel = 0; panel < BLOCK / PANEL; panel += 2) {
        multiply_pairs<1, 2>(keys + panel * 64, 64, BLOCK * 4, queries, width, width, false, c);
        for (int64_t row = 0; row < 16; ++row)
            for (int64_t p = 0; p < 2; ++p) store(scores + row * BLOCK + (panel + p) * 16, load(c + p * 256 + row * 16));
    }
}

// Values of a block weighted with [16, 64]: [16, width].
static inline void mix_on_tiles(const uint16_t* weights, const uint8_t* values, int64_t width, float* mixed) {
    alignas(64) float c[4 * 256];
    for (int64_t panel = 0; panel < width / PANEL; panel += 2) {  // the width is a multiple of 32
        multiply_pairs<1, 2>(values + panel * 64, 64, width * 4, weights, BLOCK, BLOCK, false, c);
        for (int64_t row = 0; row < 16; ++row)
            for (int64_t p = 0; p < 2; ++p) store(mixed + row * width + (panel + p) * 16, load(c + p * 256 + row * 16));
    }
}
