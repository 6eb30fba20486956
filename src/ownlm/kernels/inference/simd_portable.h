// 16 floats or whole numbers at once, in plain C++: the reference, and the seam for other processors.
// No include guard on purpose: see engine.cpp. Products are rounded before they are added.

constexpr int FLOAT_ROWS = 2, PAIR_ROWS = 1, WHOLE_ROWS = 1;  // computed together in registers

struct Vec {
    float x[16];
};
struct Ints {
    int32_t x[16];
};
struct Bytes {
    int8_t x[64];
};

#define OWNLM_LANES(statement)        \
    for (int i = 0; i < 16; ++i) {    \
        statement;                    \
    }
#define OWNLM_EACH(name, one)               \
    static inline Vec name(Vec a, Vec b) {  \
        Vec r;                              \
        OWNLM_LANES(r.x[i] = one)           \
        return r;                           \
    }
OWNLM_EACH(add, a.x[i] + b.x[i])
OWNLM_EACH(subtract, a.x[i] - b.x[i])
OWNLM_EACH(multiply, a.x[i] * b.x[i])
OWNLM_EACH(divide, a.x[i] / b.x[i])
OWNLM_EACH(minimum, a.x[i] < b.x[i] ? a.x[i] : b.x[i])
OWNLM_EACH(maximum, a.x[i] > b.x[i] ? a.x[i] : b.x[i])
#undef OWNLM_EACH

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}
static inline float float_of(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

static inline Vec all(float x) {
    Vec r;
    OWNLM_LANES(r.x[i] = x)
    return r;
}
static inline Vec zero() { return all(0.0f); }
static inline Vec load(const float* from) {
    Vec r;
    __builtin_memcpy(&r, from, sizeof r);
    return r;
}
static inline void store(float* to, Vec x) { __builtin_memcpy(to, &x, sizeof x); }
static inline Vec multiply_add(Vec a, Vec b, Vec c) {
    OWNLM_LANES(c.x[i] += a.x[i] * b.x[i])
    return c;
}
static inline Vec magnitude(Vec a) {
    OWNLM_LANES(a.x[i] = float_of(bits_of(a.x[i]) & 0x7FFFFFFFu))
    return a;
}
static inline float sum_of(Vec a) {
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) a.x[i] += a.x[i + half];
    return a.x[0];
}
static inline Vec larger_magnitude(Vec a, Vec b) {
    OWNLM_LANES(a.x[i] = bits_of(a.x[i]) > bits_of(b.x[i]) ? a.x[i] : b.x[i])
    return a;
}
static inline float largest_of(Vec a) {
    uint32_t most = 0;
    OWNLM_LANES(most = bits_of(a.x[i]) > most ? bits_of(a.x[i]) : most)
    return float_of(most);
}

static inline Ints whole(Vec a) {
    Ints r;
    // Adding 1.5 · 2^23 rounds to the nearest whole number; what is none becomes the smallest, as in hardware.
    OWNLM_LANES(r.x[i] = a.x[i] > -4194304.0f && a.x[i] < 4194304.0f
                             ? static_cast<int32_t>((a.x[i] + 12582912.0f) - 12582912.0f) : INT32_MIN)
    return r;
}
static inline Vec to_float(Ints a) {
    Vec r;
    OWNLM_LANES(r.x[i] = static_cast<float>(a.x[i]))
    return r;
}
static inline int32_t sum_of(Ints a) {
    int32_t sum = 0;
    OWNLM_LANES(sum += a.x[i])
    return sum;
}
static inline void store_bytes(int8_t* to, Ints a) {
    OWNLM_LANES(to[i] = static_cast<int8_t>(a.x[i] < -128 ? -128 : a.x[i] > 127 ? 127 : a.x[i]))
}
static inline Vec scale_by_power(Vec a, Vec power) {
    OWNLM_LANES(a.x[i] *= float_of(static_cast<uint32_t>(static_cast<int32_t>(power.x[i]) + 127) << 23))
    return a;
}

static inline Vec load_half(const void* from) {
    uint16_t halves[16];
    __builtin_memcpy(halves, from, sizeof halves);
    Vec r;
    OWNLM_LANES(r.x[i] = float_of_half(halves[i]))
    return r;
}

static inline Ints load_pairs(const void* from) {
    Ints r;
    __builtin_memcpy(&r, from, sizeof r);
    return r;
}
static inline Vec even(Ints pairs) {
    Vec r;
    OWNLM_LANES(r.x[i] = float_of(static_cast<uint32_t>(pairs.x[i]) << 16))
    return r;
}
static inline Vec odd(Ints pairs) {
    Vec r;
    OWNLM_LANES(r.x[i] = float_of(static_cast<uint32_t>(pairs.x[i]) & 0xFFFF0000u))
    return r;
}
static inline uint32_t rounded_bits(float x) { return bits_of(x) + 0x7FFFu + ((bits_of(x) >> 16) & 1u); }
static inline Vec round_to_half(Vec a) {
    OWNLM_LANES(a.x[i] = float_of(rounded_bits(a.x[i]) & 0xFFFF0000u))
    return a;
}
static inline void store_halves(uint16_t* to, Vec a) {
    OWNLM_LANES(to[i] = static_cast<uint16_t>(rounded_bits(a.x[i]) >> 16))
}

static inline Bytes load_int8(const uint8_t* from) {
    Bytes r;
    __builtin_memcpy(&r, from, sizeof r);
    return r;
}
static inline void load_int4(const uint8_t* from, Bytes& low, Bytes& high) {
    for (int i = 0; i < 64; ++i) {
        low.x[i] = static_cast<int8_t>((from[i] & 15) - 8);
        high.x[i] = static_cast<int8_t>((from[i] >> 4) - 8);
    }
}
static inline Ints start_int8(int32_t) { return Ints{}; }
static inline Ints start_int4(int32_t) { return Ints{}; }
static inline Ints dot_int8(Ints sum, const Bytes& weights, const int8_t* four) {
    OWNLM_LANES(for (int j = 0; j < 4; ++j) sum.x[i] += weights.x[4 * i + j] * four[j])
    return sum;
}
static inline Ints dot_int4(Ints sum, const Bytes& weights, const int8_t* four) { return dot_int8(sum, weights, four); }
#undef OWNLM_LANES
