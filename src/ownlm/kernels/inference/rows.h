// What is done to one row of numbers between the products. Included once for each instruction set.
//
// Each function depends on its row alone. Sums run over 16 lanes in order, the lanes are added at the end.

// The first `count` (at most 16) of `from`, then zeros.
static inline Vec load_first(const float* from, int64_t count) {
    if (count >= 16) return load(from);
    alignas(64) float lanes[16] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
    return load(lanes);
}
static inline void store_first(float* to, Vec x, int64_t count) {
    if (count >= 16) {
        store(to, x);
        return;
    }
    alignas(64) float lanes[16];
    store(lanes, x);
    for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

// e^x to about 2 units in the last place for x in [-60, 60], the value at the border outside: e^-60 is nothing beside the
// largest term of a softmax. Cody & Waite reduction, polynomial of Cephes' expf.
static inline Vec exponential(Vec x) {
    x = minimum(all(60.0f), maximum(all(-60.0f), x));  // in this order, which keeps what is not a number
    const Vec shift = all(12582912.0f);  // adding 1.5 · 2^23 rounds to the nearest whole number
    const Vec power = subtract(multiply_add(x, all(1.44269504f), shift), shift);
    const Vec rest = multiply_add(power, all(2.12194440e-4f), multiply_add(power, all(-0.693359375f), x));
    Vec series = all(1.9875691500e-4f);
    series = multiply_add(series, rest, all(1.3981999507e-3f));
    series = multiply_add(series, rest, all(8.3334519073e-3f));
    series = multiply_add(series, rest, all(4.1665795894e-2f));
    series = multiply_add(series, rest, all(1.6666665459e-1f));
    series = multiply_add(series, rest, all(5.0000001201e-1f));
    series = add(multiply_add(series, multiply(rest, rest), rest), all(1.0f));
    return scale_by_power(series, power);
}

static inline Vec sigmoid(Vec x) { return divide(all(1.0f), add(all(1.0f), exponential(subtract(zero(), x)))); }

static inline float sum_of_squares(const float* x, int64_t width, float mean) {
    Vec sums = zero();
    for (int64_t c = 0; c < width; c += 16) {
        Vec centered = subtract(load_first(x + c, width - c), all(mean));
        if (width - c < 16) {
            alignas(64) float lanes[16];
            store(lanes, centered);
            centered = load_first(lanes, width - c);
        }
        sums = multiply_add(centered, centered, sums);
    }
    return sum_of(sums);
}

// RMS norm: x / sqrt(mean x² + eps) · w (Zhang & Sennrich 2019, eq. 4); layer norm, which has a bias:
// (x - mean) / sqrt(var + eps) · w + b (Ba et al. 2016). `out` may be `x`.
static void norm_row(const float* x, const Norm& norm, int64_t width, float eps, float* out) {
    float mean = 0.0f;
    if (norm.bias != nullptr) {
        Vec sums = zero();
        for (int64_t c = 0; c < width; c += 16) sums = add(sums, load_first(x + c, width - c));
        mean = sum_of(sums) / static_cast<float>(width);
    }
    const float variance = sum_of_squares(x, width, mean) / static_cast<float>(width);
    const Vec scale = all(1.0f / __builtin_sqrtf(variance + eps));
    for (int64_t c = 0; c < width; c += 16) {
        Vec y = multiply(multiply(subtract(load_first(x + c, width - c), all(mean)), scale), load(norm.weight + c));
        if (norm.bias != nullptr) y = add(y, load(norm.bias + c));
        store_first(out + c, y, width - c);
    }
}

static void add_row(float* x, const float* more, int64_t width) {
    for (int64_t c = 0; c < width; c += 16)
        store_first(x + c, add(load_first(x + c, width - c), load_first(more + c, width - c)), width - c);
}

static inline Vec activated(int32_t activation, Vec x) {
    switch (activation) {
        case SILU: return multiply(x, sigmoid(x));
        case GELU_TANH: {  // x / 2 · (1 + tanh u) = x · sigmoid(2u), u = sqrt(2 / pi) · (x + 0.044715 x³)
            const Vec cube = multiply(multiply(x, x), x);
            const Vec u = multiply(all(0.7978845608f), multiply_add(all(0.044715f), cube, x));
            return multiply(x, sigmoid(add(u, u)));
        }
        case RELU: return maximum(x, zero());
        case RELU_SQUARED: {
            const Vec positive = maximum(x, zero());
            return multiply(positive, positive);
        }
        default: {
            alignas(64) float lanes[16];
            store(lanes, x);
            for (float& lane : lanes) lane *= 0.5f * (1.0f + __builtin_erff(lane * 0.70710678f));
            return load(lanes);
        }
    }
}

// out = activation(x) (· factor)
static void activate_row(int32_t activation, const float* x, const float* factor, int64_t width, float* out) {
    for (int64_t c = 0; c < width; c += 16) {
        Vec y = activated(activation, load_first(x + c, width - c));
        if (factor != nullptr) y = multiply(y, load_first(factor + c, width - c));
        store_first(out + c, y, width - c);
    }
}

// 32 numbers as whole numbers of [-127, 127] and one scale.
static inline void store_group(const float* from, int64_t count, int8_t* bytes, float* scale, int32_t* sum) {
    const Vec low = load_first(from, count), high = count > 16 ? load_first(from + 16, count - 16) : zero();
    const float largest = largest_of(larger_magnitude(magnitude(low), magnitude(high)));
    *scale = largest / 127.0f;
    const Vec inverse = all(largest == 0.0f ? 0.0f : 127.0f / largest);
    const Ints a = whole(multiply(low, inverse)), b = whole(multiply(high, inverse));
    store_bytes(bytes, a);
    store_bytes(bytes + 16, b);
    *sum = sum_of(a) + sum_of(b);
}

// Numbers [first, first + count) of a row in the form that weights of this kind are multiplied with; `first` is a multiple
// of 32. The row's last call fills it up with zeros.
static void store_row(int32_t kind, const float* from, const Rows& to, int64_t row, int64_t first, int64_t count) {
    const int64_t end = first + count == to.width ? to.groups * GROUP - first : count;
    if (kind == INT8 || kind == INT4) {
        for (int64_t c = 0; c < end; c += GROUP) {
            const int64_t group = (first + c) / GROUP * to.padded + row;
            store_group(from + c, count - c < 0 ? 0 : count - c, to.bytes + row * to.stride + first + c, to.scales + group,
                        to.sums + group);
        }
        return;
    }
    for (int64_t c = 0; c < end; c += 16) {
        const Vec x = load_first(from + c, count - c < 0 ? 0 : count - c);
        const int64_t place = row * to.stride + first + c;
        if (kind == FLOAT32) store(to.floats + place, x);
        else if (to.halves != nullptr) store_halves(to.halves + place, x);
        else store(to.floats + place, round_to_half(x));
    }
}

// y += (x Aᵀ) Bᵀ; `middle` holds `rank` numbers.
static void adapt_row(const Delta& delta, const float* x, float* y, float* middle) {
    for (int64_t j = 0; j < delta.rank; ++j) {
        const float* row = delta.down.data() + j * delta.inputs;
        Vec sums = zero();
        for (int64_t k = 0; k < delta.inputs; k += 16)
            sums = multiply_add(load_first(x + k, delta.inputs - k), load_first(row + k, delta.inputs - k), sums);
        middle[j] = sum_of(sums);
    }
    for (int64_t o = 0; o < delta.outputs; o += 16) {
        Vec sums = zero();
        for (int64_t j = 0; j < delta.rank; ++j)
            sums = multiply_add(all(middle[j]), load_first(delta.up.data() + j * delta.outputs + o, delta.outputs - o), sums);
        store_first(y + delta.first + o, add(load_first(y + delta.first + o, delta.outputs - o), sums), delta.outputs - o);
    }
}
