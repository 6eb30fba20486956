// Matrix products of bfloat16 with float sums on the tile unit of the CPU (AMX). Included where GCC can compile it.
//
// A tile holds 16 rows of 64 bytes. C += A·B takes A as 16 rows of 32 numbers, and B as 16 rows of 16 pairs: row r holds
// numbers 2r and 2r + 1 of the shared dimension for 16 columns (Intel 64 and IA-32 Software Developer's Manual, vol. 2,
// TDPBF16PS). A is read as it lies in memory; B is packed: panels of 32 columns, in each for every 32 of the shared
// dimension the two tiles of its columns. The shared dimension must be a multiple of 32, rows of A of 16; columns are
// filled up with zeros to a multiple of 32.

struct TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// GCC's intrinsics do not tell the compiler what memory they read, so it lies ready, and stores are ordered by hand.
alignas(64) static const TileConfig CONFIG;

static inline void order_memory() { __asm__ volatile("" ::: "memory"); }

struct TileUse {
    TileUse() { _tile_loadconfig(&CONFIG); }
    ~TileUse() { _tile_release(); }
};

constexpr int64_t PANEL = 32, DEPTH = 32, TILE = 512;  // columns of a panel, shared numbers of a tile, its values

static inline int64_t packed_size(int64_t depth, int64_t columns) {
    return depth * ((columns + PANEL - 1) / PANEL * PANEL);
}

// 16 rows of 16 doublewords become 16 columns.
static inline void transpose_doublewords(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xDD);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xDD);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xDD);
    }
}

// Doublewords (low[c], high[c]) of 16 columns.
static inline __m512i pair_rows(const bfloat16* low, const bfloat16* high) {
    const __m512i l = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low)));
    const __m512i h = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
    return _mm512_or_si512(l, _mm512_slli_epi32(h, 16));
}

static inline __m512i pair_rows_masked(const bfloat16* low, const bfloat16* high, __mmask16 mask) {
    const __m512i l = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, low));
    const __m512i h = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, high));
    return _mm512_or_si512(l, _mm512_slli_epi32(h, 16));
}

// One panel of B = Xᵀ from rows [first, first + 32) of X [rows, depth].
static inline void pack_transposed_panel(const bfloat16* x, int64_t stride, int64_t rows, int64_t first, int64_t depth,
                                         bfloat16* panel) {
    for (int64_t half = 0; half < 2; ++half) {
        const int64_t row = first + half * 16, count = rows - row < 16 ? rows - row : 16;
        for (int64_t k = 0; k < depth; k += DEPTH) {
            __m512i r[16];
            for (int64_t i = 0; i < 16; ++i)
                r[i] = i < count ? _mm512_loadu_si512(x + (row + i) * stride + k) : _mm512_setzero_si512();
            transpose_doublewords(r);
            bfloat16* tile = panel + k * PANEL + half * TILE;
            for (int64_t i = 0; i < 16; ++i) _mm512_storeu_si512(tile + i * 32, r[i]);
        }
    }
}

// Rows [begin, end) of one panel of B = X from columns [first, first + 32) of X [depth, columns].
static inline void pack_panel(const bfloat16* x, int64_t stride, int64_t columns, int64_t first, int64_t begin,
                              int64_t end, bfloat16* panel) {
    for (int64_t half = 0; half < 2; ++half) {
        const int64_t column = first + half * 16, count = columns - column;
        const __mmask16 mask = count >= 16 ? 0xFFFF : count > 0 ? (1u << count) - 1 : 0;
        for (int64_t k = begin; k < end; k += 2) {
            const bfloat16* low = x + k * stride + column;
            bfloat16* to = panel + (k / DEPTH) * DEPTH * PANEL + half * TILE + (k % DEPTH) / 2 * 32;
            _mm512_storeu_si512(to, pair_rows_masked(low, low + stride, mask));
        }
    }
}

// out[c, r] = x[r, c] for 32 rows and up to 16 columns.
static inline void transpose_piece(const bfloat16* x, int64_t stride, bfloat16* out, int64_t out_stride,
                                   int64_t columns) {
    __m512i r[16];
    const __mmask16 mask = columns >= 16 ? 0xFFFF : (1u << columns) - 1;
    for (int64_t i = 0; i < 16; ++i)
        r[i] = pair_rows_masked(x + 2 * i * stride, x + (2 * i + 1) * stride, mask);
    transpose_doublewords(r);
    for (int64_t c = 0; c < 16 && c < columns; ++c) _mm512_storeu_si512(out + c * out_stride, r[c]);
}

enum Output { STORED = 0, FLOAT = 1, ADDED = 2 };  // bfloat16; float; added to float

// What happens to sums that are stored as bfloat16: out = alpha · sum + beta · addend (+ bias).
struct Finish {
    const float* bias = nullptr;  // of the panel's columns, filled up to 32
    const bfloat16* addend = nullptr;
    int64_t addend_stride = 0;
    float alpha = 1.0f, beta = 0.0f;
};

static inline __m512 widen(__m256i values) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}

static inline void store_pair(const float* low, const float* high, bfloat16* out, __mmask32 mask, const Finish& finish,
                              int64_t row) {
    __m512 l = _mm512_load_ps(low), h = _mm512_load_ps(high);
    if (finish.addend != nullptr) {
        const bfloat16* addend = finish.addend + row * finish.addend_stride;
        const __m512 alpha = _mm512_set1_ps(finish.alpha), beta = _mm512_set1_ps(finish.beta);
        const __m512i both = _mm512_maskz_loadu_epi16(mask, addend);
        l = _mm512_fmadd_ps(l, alpha, _mm512_mul_ps(beta, widen(_mm512_castsi512_si256(both))));
        h = _mm512_fmadd_ps(h, alpha, _mm512_mul_ps(beta, widen(_mm512_extracti64x4_epi64(both, 1))));
    }
    if (finish.bias != nullptr) {
        l = _mm512_add_ps(l, _mm512_loadu_ps(finish.bias));
        h = _mm512_add_ps(h, _mm512_loadu_ps(finish.bias + 16));
    }
    const __m512bh both = _mm512_cvtne2ps_pbh(h, l);
    _mm512_mask_storeu_epi16(out, mask, reinterpret_cast<const __m512i&>(both));
}

// 32 (or 16) rows of A times one panel of B. `columns`: valid ones of the panel (all 32 where sums are float).
template <bool TWO>
static inline void product_block(const bfloat16* a, int64_t stride, const bfloat16* panel, int64_t depth, void* out,
                                 int64_t out_stride, int64_t columns, Output how, const Finish& finish) {
    alignas(64) float buffer[4][256];
    float* sums = static_cast<float*>(out);
    order_memory();
    if (how == ADDED) {
        _tile_loadd(0, sums, out_stride * 4);
        _tile_loadd(1, sums + 16, out_stride * 4);
        if (TWO) {
            _tile_loadd(2, sums + 16 * out_stride, out_stride * 4);
            _tile_loadd(3, sums + 16 * out_stride + 16, out_stride * 4);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        if (TWO) {
            _tile_zero(2);
            _tile_zero(3);
        }
    }
    for (int64_t k = 0; k < depth; k += DEPTH) {
        _tile_loadd(6, panel + k * PANEL, 64);
        _tile_loadd(7, panel + k * PANEL + TILE, 64);
        _tile_loadd(4, a + k, stride * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (TWO) {
            _tile_loadd(5, a + 16 * stride + k, stride * 2);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    if (how != STORED) {
        _tile_stored(0, sums, out_stride * 4);
        _tile_stored(1, sums + 16, out_stride * 4);
        if (TWO) {
            _tile_stored(2, sums + 16 * out_stride, out_stride * 4);
            _tile_stored(3, sums + 16 * out_stride + 16, out_stride * 4);
        }
        return;
    }
    _tile_stored(0, buffer[0], 64);
    _tile_stored(1, buffer[1], 64);
    if (TWO) {
        _tile_stored(2, buffer[2], 64);
        _tile_stored(3, buffer[3], 64);
    }
    const __mmask32 mask = columns >= 32 ? 0xFFFFFFFFu : (1u << columns) - 1;
    for (int64_t row = 0; row < (TWO ? 32 : 16); ++row)
        store_pair(buffer[row / 16 * 2] + row % 16 * 16, buffer[row / 16 * 2 + 1] + row % 16 * 16,
                   static_cast<bfloat16*>(out) + row * out_stride, mask, finish, row);
}

// Up to 32 rows of A (16 or 32) times all panels of B, for depth [k, k + part) of `depth`.
static inline void product_rows(const bfloat16* a, int64_t stride, const bfloat16* packed, int64_t depth, int64_t k,
                                int64_t part, void* out, int64_t out_stride, int64_t columns, Output how,
                                int64_t rows, const Finish& finish) {
    const int64_t size = how == STORED ? 2 : 4;
    for (int64_t first = 0; first < columns; first += PANEL) {
        Finish here = finish;
        if (here.bias != nullptr) here.bias += first;
        if (here.addend != nullptr) here.addend += first;
        const bfloat16* panel = packed + first * depth + k * PANEL;
        void* to = static_cast<char*>(out) + first * size;
        if (rows >= 32)
            product_block<true>(a + k, stride, panel, part, to, out_stride, columns - first, how, here);
        else
            product_block<false>(a + k, stride, panel, part, to, out_stride, columns - first, how, here);
    }
}

// out [rows, columns] = A [rows, depth] · B (+ bias), as bfloat16.
static void product(const bfloat16* a, int64_t stride, const bfloat16* packed, const float* bias, bfloat16* out,
                    int64_t out_stride, int64_t rows, int64_t depth, int64_t columns) {
    parallel_for((rows + 31) / 32, [=](int64_t begin, int64_t end) {
        TileUse tiles;
        Finish finish;
        finish.bias = bias;
        const int64_t last = end * 32 < rows ? end * 32 : rows;
        for (int64_t row = begin * 32; row < last; row += 32)
            product_rows(a + row * stride, stride, packed, depth, 0, depth, out + row * out_stride, out_stride, columns,
                         STORED, last - row, finish);
    });
}

constexpr int64_t TOKENS_TOGETHER = 512;

// out [columns of d, width] = (or +=) dᵀ · X: `packed` is X [tokens, width] as B. Tokens, columns, width: multiples of 32.
static void weight_gradient(const bfloat16* d, int64_t stride, const bfloat16* packed, float* out, int64_t tokens,
                            int64_t columns, int64_t width, bool add) {
    parallel_for(columns / 32, [=](int64_t begin, int64_t end) {
        TileUse tiles;
        bfloat16* turned = reinterpret_cast<bfloat16*>(scratch(32 * TOKENS_TOGETHER / 2));
        // Some tokens of X stay in the cache while all columns of d pass by.
        for (int64_t k = 0; k < tokens; k += TOKENS_TOGETHER) {
            const int64_t part = tokens - k < TOKENS_TOGETHER ? tokens - k : TOKENS_TOGETHER;
            for (int64_t column = begin * 32; column < end * 32; column += 32) {
                for (int64_t token = 0; token < part; token += 32)
                    for (int64_t half = 0; half < 32; half += 16)
                        transpose_piece(d + (k + token) * stride + column + half, stride,
                                        turned + half * TOKENS_TOGETHER + token, TOKENS_TOGETHER, 16);
                product_rows(turned - k, TOKENS_TOGETHER, packed, tokens, k, part, out + column * width, width, width,
                             add || k > 0 ? ADDED : FLOAT, 32, Finish{});
            }
        }
    });
}

// B = Xᵀ of X [columns, depth].
static void pack_transposed(const bfloat16* x, int64_t stride, bfloat16* packed, int64_t columns, int64_t depth) {
    parallel_for((columns + PANEL - 1) / PANEL, [=](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel)
            pack_transposed_panel(x, stride, columns, panel * PANEL, depth, packed + panel * depth * PANEL);
    });
}

// B = X of X [depth, columns].
static void pack(const bfloat16* x, int64_t stride, bfloat16* packed, int64_t columns, int64_t depth) {
    parallel_for(depth / DEPTH, [=](int64_t begin, int64_t end) {
        for (int64_t k = begin * DEPTH; k < end * DEPTH; k += DEPTH)
            for (int64_t first = 0; first < columns; first += PANEL)
                pack_panel(x, stride, columns, first, k, k + DEPTH, packed + first * depth);
    });
}
