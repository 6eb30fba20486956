// The inner loops: R rows times 16 columns. Included once for each instruction set; no include guard: see engine.cpp.
//
// A result is one sum in an order that depends on nothing but the inner dimension:
//   float32   s = fma(x_k, w_k, s) for k = 0, 1, …
//   bfloat16  for every 32 of k: e = fma(x_2i, w_2i, e) and o = fma(x_2i+1, w_2i+1, o) from zero, then s = s + (e + o),
//             which is what the tile unit does (Intel 64 and IA-32 Software Developer's Manual, vol. 2, TDPBF16PS), so
//             both give the same bits; numbers below 2^-126 count as zero in both (see `Denormals`)
//   int8/4    for every 32 of k: d = Σ x_k w_k in whole numbers, then s = fma(w_scale · x_scale, d, s)
// R, and with it how many rows are computed together, changes no result.

// Where the next weights will be wanted: far enough for memory to answer, near enough to stay in the first cache.
constexpr int64_t AHEAD = 2048;

static inline void prefetch(const uint8_t* place, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(place + AHEAD + at);
}

struct Floats {
    // b: [depth][16 floats], `b_stride` bytes from one k to the next.
    template <int R>
    static inline void sums(const uint8_t* b, int64_t b_stride, const float* x, int64_t stride, int64_t depth, Vec s[R]) {
        for (int r = 0; r < R; ++r) s[r] = zero();
        for (int64_t k = 0; k < depth; ++k) {
            const uint8_t* place = b + k * b_stride;
            __builtin_prefetch(place + AHEAD);
            const Vec w = load(reinterpret_cast<const float*>(place));
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) s[r] = multiply_add(all(x[r * stride + k]), w, s[r]);
        }
    }
    static constexpr int ROWS = FLOAT_ROWS;
};

struct Pairs {
    // b: [depth / 2][16 pairs]; x is rounded to bfloat16; depth is a multiple of 32.
    template <int R>
    static inline void sums(const uint8_t* b, int64_t b_stride, const float* x, int64_t stride, int64_t depth, Vec s[R]) {
        for (int r = 0; r < R; ++r) s[r] = zero();
        for (int64_t k = 0; k < depth; k += GROUP) {
            Vec e[R], o[R];
            for (int r = 0; r < R; ++r) e[r] = o[r] = zero();
            for (int64_t i = 0; i < GROUP; i += 2) {
                const uint8_t* place = b + (k + i) / 2 * b_stride;
                __builtin_prefetch(place + AHEAD);
                const Ints w = load_pairs(place);
                const Vec w_even = even(w), w_odd = odd(w);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    e[r] = multiply_add(all(x[r * stride + k + i]), w_even, e[r]);
                    o[r] = multiply_add(all(x[r * stride + k + i + 1]), w_odd, o[r]);
                }
            }
            for (int r = 0; r < R; ++r) s[r] = add(s[r], add(e[r], o[r]));
        }
    }
    static constexpr int ROWS = PAIR_ROWS;
};

// One group of 32: `scales` of 16 outputs, `weights` [8 quads][16][4]; adds to s.
struct Int8 {
    static constexpr int64_t PAIR = Matrix::PAIR_INT8, GROUP_BYTES = 512;
    static inline void load(const uint8_t* weights, Bytes w[8]) {
        for (int j = 0; j < 8; ++j) w[j] = load_int8(weights + 64 * j);
    }
    static inline Ints start(int32_t sum) { return start_int8(sum); }
    static inline Ints dot(Ints d, const Bytes& w, const int8_t* x) { return dot_int8(d, w, x); }
};
struct Int4 {
    static constexpr int64_t PAIR = Matrix::PAIR_INT4, GROUP_BYTES = 256;
    static inline void load(const uint8_t* weights, Bytes w[8]) {
        for (int j = 0; j < 4; ++j) load_int4(weights + 64 * j, w[2 * j], w[2 * j + 1]);
    }
    static inline Ints start(int32_t sum) { return start_int4(sum); }
    static inline Ints dot(Ints d, const Bytes& w, const int8_t* x) { return dot_int4(d, w, x); }
};

template <class Int, int R>
static inline void whole_sums(const uint8_t* panel, int64_t groups, const Rows& x, int64_t row, Vec s[R]) {
    const int8_t* bytes = x.bytes + row * x.stride;
    const float* scales = x.scales + row;
    const int32_t* sums = x.sums + row;
    for (int r = 0; r < R; ++r) s[r] = zero();
    for (int64_t g = 0; g < groups; ++g) {
        const uint8_t* pair = panel + g / 2 * Int::PAIR;
        const uint8_t* weights = pair + 64 + g % 2 * Int::GROUP_BYTES;
        prefetch(weights, Int::GROUP_BYTES);
        if (g % 2 == 0) __builtin_prefetch(pair + Int::PAIR + AHEAD);
        const Vec w_scale = load_half(pair + g % 2 * 32);
        Bytes w[8];
        Int::load(weights, w);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            Ints d = Int::start(sums[g * x.padded + r]);
#pragma GCC unroll 8
            for (int j = 0; j < 8; ++j) d = Int::dot(d, w[j], bytes + r * x.stride + g * GROUP + 4 * j);
            s[r] = multiply_add(multiply(w_scale, all(scales[g * x.padded + r])), to_float(d), s[r]);
        }
    }
}

// `block(first row, number of rows)` until `count` rows are done; the number is a compile-time constant of at most MOST.
template <int MOST, class Block>
static inline void rows_in_blocks(int64_t count, const Block& block) {
    int64_t row = 0;
    while (row < count) {
        const int64_t left = count - row;
        if (left >= MOST) block.template rows<MOST>(row), row += MOST;
        else if (MOST > 8 && left >= 8) block.template rows<(MOST > 8 ? 8 : 1)>(row), row += 8;
        else if (MOST > 4 && left >= 4) block.template rows<(MOST > 4 ? 4 : 1)>(row), row += 4;
        else if (MOST > 3 && left == 3) block.template rows<(MOST > 3 ? 3 : 1)>(row), row += 3;
        else if (MOST > 2 && left >= 2) block.template rows<(MOST > 2 ? 2 : 1)>(row), row += 2;
        else block.template rows<1>(row), row += 1;
    }
}
