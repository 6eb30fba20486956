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

static inline void store_plain(const float* low, const float* high, bfloat16* out, __mmask32 mask) {
    const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_load_ps(high), _mm512_load_ps(low));
    _mm512_mask_storeu_epi16(out, mask, reinterpret_cast<const __m512i&>(both));
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

// Sums of a block that are to be stored as bfloat16. They wait while the tile unit works on the next block: rows are
// converted and stored between its instructions, and what was just written is not read back at once.
class Writer {
  public:
    Writer() = default;
    Writer(const Writer&) = delete;
    ~Writer() { write_all(); }

    // Where the next block's sums go: four tiles, one after the other.
    float* sums() { return sums_[turn_]; }

    // The sums of a block are there. `columns`: valid ones of the panel.
    void take(int64_t rows, bfloat16* out, int64_t stride, int64_t columns, const Finish& finish) {
        write_all();
        rows_ = rows, next_ = 0, out_ = out, stride_ = stride, finish_ = finish;
        mask_ = columns >= 32 ? 0xFFFFFFFFu : (1u << columns) - 1;
        plain_ = finish.addend == nullptr && finish.bias == nullptr;
        turn_ ^= 1;
    }

    // Rows to store for every 32 of the next block's shared dimension: a power of two.
    static int64_t share(int64_t depth) {
        int64_t share = 1;
        while (share < 16 && share * depth < 32 * DEPTH) share *= 2;
        return share;
    }

    // Store `count` (1, 2, 4, 8 or 16) rows of those that wait.
    void write(int64_t count) {
        if (next_ >= rows_) return;
        const float* low = sums_[turn_ ^ 1] + next_ / 16 * 512 + next_ % 16 * 16;
        bfloat16* out = out_ + next_ * stride_;
        if (plain_) {
            for (int64_t i = 0; i < count; ++i) store_plain(low + i * 16, low + i * 16 + 256, out + i * stride_, mask_);
        } else {
            for (int64_t i = 0; i < count; ++i)
                store_pair(low + i * 16, low + i * 16 + 256, out + i * stride_, mask_, finish_, next_ + i);
        }
        next_ += count;
    }

    void write_all() {
        while (next_ < rows_) write(1);
    }

  private:
    alignas(64) float sums_[2][4 * 256];
    int turn_ = 0;
    int64_t rows_ = 0, next_ = 0, stride_ = 0;
    bfloat16* out_ = nullptr;
    __mmask32 mask_ = 0;
    bool plain_ = true;
    Finish finish_;
};

// 32 (or 16) rows of A times one panel of B, into tiles 0 to 3. `meanwhile` is called between the tile unit's
// instructions, which leave the rest of the core idle.
template <bool TWO, class Meanwhile>
static inline void multiply(const bfloat16* a, int64_t stride, const bfloat16* panel, int64_t depth,
                            const Meanwhile& meanwhile) {
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
        meanwhile();
    }
}

template <bool TWO>
static inline void store_sums(float* low, float* high, int64_t step, int64_t stride) {
    _tile_stored(0, low, stride * 4);
    _tile_stored(1, high, stride * 4);
    if (TWO) {
        _tile_stored(2, low + step, stride * 4);
        _tile_stored(3, high + step, stride * 4);
    }
}

template <bool TWO>
static inline void clear_sums() {
    _tile_zero(0);
    _tile_zero(1);
    if (TWO) {
        _tile_zero(2);
        _tile_zero(3);
    }
}

// A block whose sums stay float: out = (or +=) them. `depth` numbers of the shared dimension.
template <bool TWO>
static inline void float_block(const bfloat16* a, int64_t stride, const bfloat16* panel, int64_t depth, float* out,
                               int64_t out_stride, bool add) {
    order_memory();
    if (add) {
        _tile_loadd(0, out, out_stride * 4);
        _tile_loadd(1, out + 16, out_stride * 4);
        if (TWO) {
            _tile_loadd(2, out + 16 * out_stride, out_stride * 4);
            _tile_loadd(3, out + 16 * out_stride + 16, out_stride * 4);
        }
    } else {
        clear_sums<TWO>();
    }
    multiply<TWO>(a, stride, panel, depth, [] {});
    store_sums<TWO>(out, out + 16, 16 * out_stride, out_stride);
}

// Up to 32 rows of A (16 or 32) times all panels of B, for depth [k, k + part) of `depth`: float sums.
static inline void float_rows(const bfloat16* a, int64_t stride, const bfloat16* packed, int64_t depth, int64_t k,
                              int64_t part, float* out, int64_t out_stride, int64_t columns, bool add, int64_t rows) {
    for (int64_t first = 0; first < columns; first += PANEL) {
        const bfloat16* panel = packed + first * depth + k * PANEL;
        if (rows >= 32)
            float_block<true>(a + k, stride, panel, part, out + first, out_stride, add);
        else
            float_block<false>(a + k, stride, panel, part, out + first, out_stride, add);
    }
}

// The same, stored as bfloat16 by the writer.
static inline void stored_rows(Writer& writer, const bfloat16* a, int64_t stride, const bfloat16* packed, int64_t depth,
                               int64_t k, int64_t part, bfloat16* out, int64_t out_stride, int64_t columns,
                               int64_t rows, const Finish& finish) {
    for (int64_t first = 0; first < columns; first += PANEL) {
        const bfloat16* panel = packed + first * depth + k * PANEL;
        Finish here = finish;
        if (here.bias != nullptr) here.bias += first;
        if (here.addend != nullptr) here.addend += first;
        float* sums = writer.sums();
        const int64_t share = Writer::share(part);
        const auto write = [&writer, share] { writer.write(share); };
        order_memory();
        if (rows >= 32) {
            clear_sums<true>();
            multiply<true>(a + k, stride, panel, part, write);
            store_sums<true>(sums, sums + 256, 512, 16);
        } else {
            clear_sums<false>();
            multiply<false>(a + k, stride, panel, part, write);
            store_sums<false>(sums, sums + 256, 512, 16);
        }
        writer.take(rows >= 32 ? 32 : 16, out + first, out_stride, columns - first, here);
    }
}

constexpr int64_t STAYS = 1 << 19;  // numbers of B, 1 MB: they stay in a core's cache while all rows of A pass by

// out [rows, columns] = A [rows, depth] · B (+ bias), as bfloat16.
static void product(const bfloat16* a, int64_t stride, const bfloat16* packed, const float* bias, bfloat16* out,
                    int64_t out_stride, int64_t rows, int64_t depth, int64_t columns) {
    parallel_for((rows + 31) / 32, [=](int64_t begin, int64_t end) {
        TileUse tiles;
        Writer writer;
        const int64_t last = end * 32 < rows ? end * 32 : rows;
        const int64_t together = STAYS / depth / PANEL > 0 ? STAYS / depth / PANEL * PANEL : PANEL;
        for (int64_t first = 0; first < columns; first += together) {
            Finish finish;
            if (bias != nullptr) finish.bias = bias + first;
            for (int64_t row = begin * 32; row < last; row += 32)
                stored_rows(writer, a + row * stride, stride, packed + first * depth, depth, 0, depth,
                            out + row * out_stride + first, out_stride,
                            columns - first < together ? columns - first : together, last - row, finish);
        }
    });
}

constexpr int64_t TOKENS_TOGETHER = 256;  // turned, 32 columns of them stay in the fastest cache

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
                float_rows(turned - k, TOKENS_TOGETHER, packed, tokens, k, part, out + column * width, width, width,
                           add || k > 0, 32);
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
