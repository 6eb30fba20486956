// 16 floats or whole numbers at once: AVX2 with FMA and F16C, two registers each. No include guard: see engine.cpp.

constexpr int FLOAT_ROWS = 4, PAIR_ROWS = 2, WHOLE_ROWS = 4;  // computed together in registers

struct Vec {
    __m256 a, b;
};
struct Ints {
    __m256i a, b;
};
using Bytes = Ints;  // 16 times four bytes

#define OWNLM_EACH(name, one) \
    static inline Vec name(Vec x, Vec y) { return {one(x.a, y.a), one(x.b, y.b)}; }
OWNLM_EACH(add, _mm256_add_ps)
OWNLM_EACH(subtract, _mm256_sub_ps)
OWNLM_EACH(multiply, _mm256_mul_ps)
OWNLM_EACH(divide, _mm256_div_ps)
OWNLM_EACH(minimum, _mm256_min_ps)
OWNLM_EACH(maximum, _mm256_max_ps)
#undef OWNLM_EACH

static inline Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline Vec all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline Vec load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
static inline void store(float* to, Vec x) {
    _mm256_storeu_ps(to, x.a);
    _mm256_storeu_ps(to + 8, x.b);
}
static inline Vec multiply_add(Vec x, Vec y, Vec z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline Vec magnitude(Vec x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
static inline float sum_of(Vec x) {
    const __m256 a = _mm256_add_ps(x.a, x.b);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline Vec larger_magnitude(Vec x, Vec y) {
    return {_mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(x.a), _mm256_castps_si256(y.a))),
            _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(x.b), _mm256_castps_si256(y.b)))};
}
static inline float largest_of(Vec x) {
    const __m256i a = _mm256_max_epi32(_mm256_castps_si256(x.a), _mm256_castps_si256(x.b));
    const __m128i b = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    const __m128i c = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0x4E));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(c, _mm_shuffle_epi32(c, 0xB1))));
}

static inline Ints whole(Vec x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
static inline Vec to_float(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
static inline int32_t sum_of(Ints x) {
    const __m256i a = _mm256_add_epi32(x.a, x.b);
    const __m128i b = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    const __m128i c = _mm_add_epi32(b, _mm_shuffle_epi32(b, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(c, _mm_shuffle_epi32(c, 0xB1)));
}
static inline __m128i narrow_words(__m256i x) {  // 8 whole numbers as 16 bits
    return _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
static inline void store_bytes(int8_t* to, Ints x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(narrow_words(x.a), narrow_words(x.b)));
}
static inline __m256 scale_by_power(__m256 x, __m256 power) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
}
static inline Vec scale_by_power(Vec x, Vec power) {
    return {scale_by_power(x.a, power.a), scale_by_power(x.b, power.b)};
}

static inline Vec load_half(const void* from) {
    const auto* place = static_cast<const __m128i*>(from);
    return {_mm256_cvtph_ps(_mm_loadu_si128(place)), _mm256_cvtph_ps(_mm_loadu_si128(place + 1))};
}

static inline Ints load_pairs(const void* from) {
    const auto* place = static_cast<const __m256i*>(from);
    return {_mm256_loadu_si256(place), _mm256_loadu_si256(place + 1)};
}
static inline Vec even(Ints pairs) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs.a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(pairs.b, 16))};
}
static inline Vec odd(Ints pairs) {
    const __m256i mask = _mm256_set1_epi32(static_cast<int32_t>(0xFFFF0000u));
    return {_mm256_castsi256_ps(_mm256_and_si256(pairs.a, mask)), _mm256_castsi256_ps(_mm256_and_si256(pairs.b, mask))};
}
static inline __m256i rounded_bits(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i tie = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(tie, _mm256_set1_epi32(0x7FFF)));
}
static inline Vec round_to_half(Vec x) { return odd({rounded_bits(x.a), rounded_bits(x.b)}); }
static inline void store_halves(uint16_t* to, Vec x) {
    const __m256i low = _mm256_srli_epi32(rounded_bits(x.a), 16), high = _mm256_srli_epi32(rounded_bits(x.b), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8));
}

// Pairs of products are summed in 16 bits: none of ±127 · ±127 · 2 is too large, which an offset of 128 would make.
static inline __m256i quads(__m256i products) { return _mm256_madd_epi16(products, _mm256_set1_epi16(1)); }
static inline __m256i dot_signed(__m256i sum, __m256i weights, __m256i four) {
    return _mm256_add_epi32(
        sum, quads(_mm256_maddubs_epi16(_mm256_sign_epi8(weights, weights), _mm256_sign_epi8(four, weights))));
}
static inline __m256i dot_positive(__m256i sum, __m256i weights, __m256i four) {
    return _mm256_add_epi32(sum, quads(_mm256_maddubs_epi16(weights, four)));
}
static inline __m256i broadcast(const int8_t* four) {
    int32_t bytes;
    __builtin_memcpy(&bytes, four, 4);
    return _mm256_set1_epi32(bytes);
}
static inline Bytes load_int8(const uint8_t* from) { return load_pairs(from); }
static inline Ints start_int8(int32_t) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
static inline Ints dot_int8(Ints sum, Bytes weights, const int8_t* four) {
    const __m256i x = broadcast(four);
    return {dot_signed(sum.a, weights.a, x), dot_signed(sum.b, weights.b, x)};
}
static inline void load_int4(const uint8_t* from, Bytes& low, Bytes& high) {
    const Ints both = load_pairs(from);
    const __m256i mask = _mm256_set1_epi8(15);
    low = {_mm256_and_si256(both.a, mask), _mm256_and_si256(both.b, mask)};
    high = {_mm256_and_si256(_mm256_srli_epi16(both.a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(both.b, 4), mask)};
}
static inline Ints start_int4(int32_t sum) { return {_mm256_set1_epi32(-8 * sum), _mm256_set1_epi32(-8 * sum)}; }
static inline Ints dot_int4(Ints sum, Bytes weights, const int8_t* four) {
    const __m256i x = broadcast(four);
    return {dot_positive(sum.a, weights.a, x), dot_positive(sum.b, weights.b, x)};
}
