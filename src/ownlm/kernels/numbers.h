// Storage types and the few functions of numbers that loops are made of. Included once for each instruction set.
// No include guard on purpose: see native.cpp.

struct bfloat16 {
    uint16_t bits;
};

static inline float load(float value) { return value; }
static inline float load(bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float result;
    __builtin_memcpy(&result, &bits, 4);
    return result;
}

static inline void store(float* place, float value) { *place = value; }
// Round to nearest, ties to even; the NaN that arithmetic makes (quiet, high bit set) stays one.
static inline void store(bfloat16* place, float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    bits += 0x7FFFu + ((bits >> 16) & 1u);
    place->bits = static_cast<uint16_t>(bits >> 16);
}

// e^x to about 2 units in the last place for x in [-60, 60], the value at the border outside: e^-60 is nothing beside the
// largest term of a softmax, and smaller numbers would make denormal products, which cost a hundred times as much.
// Cody & Waite reduction, polynomial of Cephes' expf.
static inline float exponential(float x) {
    x = x < -60.0f ? -60.0f : x;
    x = x > 60.0f ? 60.0f : x;
    const float shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to the nearest whole number
    const float whole = shifted - 12582912.0f;
    const float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float series = 1.9875691500e-4f;
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    series = series * rest * rest + rest + 1.0f;
    const int32_t power = (static_cast<int32_t>(whole) + 127) << 23;
    float scale;
    __builtin_memcpy(&scale, &power, 4);
    return series * scale;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
