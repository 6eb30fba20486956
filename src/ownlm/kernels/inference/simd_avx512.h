// 16 floats or whole numbers at once: AVX-512 with VNNI. No include guard on purpose: see engine.cpp.

constexpr int FLOAT_ROWS = 12, PAIR_ROWS = 8, WHOLE_ROWS = 8;  // computed together in registers

using Vec = __m512;
using Ints = __m512i;
using Bytes = __m512i;  // 16 times four bytes

static inline Vec zero() { return _mm512_setzero_ps(); }
static inline Vec all(float x) { return _mm512_set1_ps(x); }
static inline Vec load(const float* from) { return _mm512_loadu_ps(from); }
static inline void store(float* to, Vec x) { _mm512_storeu_ps(to, x); }
static inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
static inline Vec subtract(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
static inline Vec multiply(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
static inline Vec divide(Vec a, Vec b) { return _mm512_div_ps(a, b); }
static inline Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline Vec minimum(Vec a, Vec b) { return _mm512_min_ps(a, b); }
static inline Vec maximum(Vec a, Vec b) { return _mm512_max_ps(a, b); }
static inline Vec magnitude(Vec a) { return _mm512_abs_ps(a); }

// The sum of all in a fixed order: halves are added until one is left.
static inline float sum_of(Vec x) {
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

// The largest of magnitudes; not a number is larger than all.
static inline float largest_of(Vec x) {
    const int32_t bits = _mm512_reduce_max_epi32(_mm512_castps_si512(x));
    float result;
    __builtin_memcpy(&result, &bits, 4);
    return result;
}
static inline Vec larger_magnitude(Vec a, Vec b) {
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

static inline Ints whole(Vec x) { return _mm512_cvtps_epi32(x); }
static inline Vec to_float(Ints x) { return _mm512_cvtepi32_ps(x); }
static inline int32_t sum_of(Ints x) { return _mm512_reduce_add_epi32(x); }
static inline void store_bytes(int8_t* to, Ints x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtsepi32_epi8(x));
}
// x · 2^power, power whole and the result neither tiny nor huge
static inline Vec scale_by_power(Vec x, Vec power) { return _mm512_scalef_ps(x, power); }

// float16
static inline Vec load_half(const void* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
}

// bfloat16: 16 pairs; rounding to nearest, ties to even
static inline Ints load_pairs(const void* from) { return _mm512_loadu_si512(from); }
static inline Vec even(Ints pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
static inline Vec odd(Ints pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000u))));
}
static inline Ints rounded_bits(Vec x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i tie = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(tie, _mm512_set1_epi32(0x7FFF)));
}
static inline Vec round_to_half(Vec x) { return odd(rounded_bits(x)); }
static inline void store_halves(uint16_t* to, Vec x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_bits(x), 16)));
}

// Products of bytes: weights are offset to be positive, which `start` of the sum of the other side takes back.
static inline Bytes load_int8(const uint8_t* from) {
    return _mm512_xor_si512(_mm512_loadu_si512(from), _mm512_set1_epi8(static_cast<char>(0x80)));
}
static inline Ints start_int8(int32_t sum) { return _mm512_set1_epi32(-128 * sum); }
static inline void load_int4(const uint8_t* from, Bytes& low, Bytes& high) {
    const __m512i both = _mm512_loadu_si512(from), mask = _mm512_set1_epi8(15);
    low = _mm512_and_si512(both, mask), high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
}
static inline Ints start_int4(int32_t sum) { return _mm512_set1_epi32(-8 * sum); }
static inline Ints dot(Ints sum, Bytes weights, const int8_t* four) {
    int32_t bytes;
    __builtin_memcpy(&bytes, four, 4);
    return _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(bytes));
}
static inline Ints dot_int8(Ints sum, Bytes weights, const int8_t* four) { return dot(sum, weights, four); }
static inline Ints dot_int4(Ints sum, Bytes weights, const int8_t* four) { return dot(sum, weights, four); }
