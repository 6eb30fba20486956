// Weights as files and torch have them become packed panels, quantised on the way. Included once for each instruction set.
//
// engine/quantized.py does the same in torch, to the bit: operations and their order are fixed.

enum Source { FROM_FLOAT32 = 0, FROM_BFLOAT16 = 1, FROM_FLOAT16 = 2, FROM_INT8 = 3, FROM_INT4 = 4 };

// A group of 32 inputs for the 16 outputs of a panel.
struct WeightGroup {
    float values[GROUP][PANEL];
    int8_t whole[GROUP][PANEL];
    float scales[PANEL];
    uint16_t halves[PANEL];  // the scales
};

// `count` numbers of a row of the source, from `at` on, as one output of a group.
static inline void read_floats(int32_t source, const void* weights, int64_t at, int64_t count, int64_t lane,
                               WeightGroup& group) {
    const float* floats = static_cast<const float*>(weights) + (source == FROM_FLOAT32 ? at : 0);
    const uint16_t* halves = static_cast<const uint16_t*>(weights) + (source == FROM_FLOAT32 ? 0 : at);
    if (source == FROM_FLOAT32) {
        for (int64_t k = 0; k < count; ++k) group.values[k][lane] = floats[k];
    } else if (source == FROM_FLOAT16) {
        for (int64_t k = 0; k < count; ++k) group.values[k][lane] = float_of_half(halves[k]);
    } else {
        for (int64_t k = 0; k < count; ++k) {
            const uint32_t bits = static_cast<uint32_t>(halves[k]) << 16;
            __builtin_memcpy(&group.values[k][lane], &bits, 4);
        }
    }
}

static inline void keep_scale(WeightGroup& group, int64_t lane, float scale) {
    group.halves[lane] = half_of_float(scale);
    group.scales[lane] = float_of_half(group.halves[lane]);
}

// q = round(w / s) in [low, high]; zero where the scale is none.
static inline void divide_group(WeightGroup& group, const float* scales, float low, float high, float q[GROUP][PANEL]) {
    for (int64_t k = 0; k < GROUP; ++k)
        for (int64_t lane = 0; lane < PANEL; ++lane) {
            const float s = scales[lane];
            float x = group.values[k][lane] / (s == 0.0f ? 1.0f : s);
            x = x < low ? low : x;
            x = x > high ? high : x;
            q[k][lane] = s == 0.0f ? 0.0f : (x + 12582912.0f) - 12582912.0f;
        }
}

static inline void keep_whole(WeightGroup& group, const float q[GROUP][PANEL]) {
    for (int64_t k = 0; k < GROUP; ++k)
        for (int64_t lane = 0; lane < PANEL; ++lane)
            group.whole[k][lane] = q[k][lane] == q[k][lane] ? static_cast<int8_t>(q[k][lane]) : 0;
}

// The number of the largest magnitude of each output, with its sign; what is not a number is larger than all.
static inline void find_largest(const WeightGroup& group, float largest[PANEL]) {
    uint32_t most[PANEL];
    for (int64_t lane = 0; lane < PANEL; ++lane) most[lane] = 0, largest[lane] = 0.0f;
    for (int64_t k = 0; k < GROUP; ++k)
        for (int64_t lane = 0; lane < PANEL; ++lane) {
            uint32_t bits;
            __builtin_memcpy(&bits, &group.values[k][lane], 4);
            bits &= 0x7FFFFFFFu;
            const bool more = bits > most[lane];
            most[lane] = more ? bits : most[lane];
            largest[lane] = more ? group.values[k][lane] : largest[lane];
        }
}

static void quantize_int8(WeightGroup& group) {
    float largest[PANEL], q[GROUP][PANEL];
    find_largest(group, largest);
    for (int64_t lane = 0; lane < PANEL; ++lane) keep_scale(group, lane, __builtin_fabsf(largest[lane]) / 127.0f);
    divide_group(group, group.scales, -127.0f, 127.0f, q);
    keep_whole(group, q);
}

// Of several scales the one with the smallest squared error. The first, -8, is Q4_0's.
static void quantize_int4(WeightGroup& group) {
    constexpr float DIVISORS[] = {-8.0f, -7.75f, -7.25f, -8.25f, -8.5f, -9.0f, 7.0f, 7.5f};
    float largest[PANEL], least[PANEL] = {}, q[GROUP][PANEL], best_q[GROUP][PANEL] = {};
    uint16_t best[PANEL] = {};
    find_largest(group, largest);
    for (const float divisor : DIVISORS) {
        for (int64_t lane = 0; lane < PANEL; ++lane) keep_scale(group, lane, largest[lane] / divisor);
        divide_group(group, group.scales, -8.0f, 7.0f, q);
        float error[PANEL] = {};
        for (int64_t k = 0; k < GROUP; ++k)
            for (int64_t lane = 0; lane < PANEL; ++lane) {
                const float off = group.values[k][lane] - q[k][lane] * group.scales[lane];
                error[lane] = error[lane] + off * off;
            }
        bool better[PANEL];
        for (int64_t lane = 0; lane < PANEL; ++lane) {
            better[lane] = divisor == DIVISORS[0] || error[lane] < least[lane];
            least[lane] = better[lane] ? error[lane] : least[lane];
            best[lane] = better[lane] ? group.halves[lane] : best[lane];
        }
        for (int64_t k = 0; k < GROUP; ++k)
            for (int64_t lane = 0; lane < PANEL; ++lane) best_q[k][lane] = better[lane] ? q[k][lane] : best_q[k][lane];
    }
    for (int64_t lane = 0; lane < PANEL; ++lane) group.halves[lane] = best[lane];
    keep_whole(group, best_q);
}

// Rows [0, lanes) of `group` from rows `row`, `row` + 1, … of the source; inputs that are not there are zero.
static void read_group(WeightGroup& group, int32_t source, const void* weights, const void* scales, int64_t row,
                       int64_t lanes, int64_t first, int64_t inputs) {
    __builtin_memset(&group, 0, sizeof group);
    const int64_t count = inputs - first < GROUP ? inputs - first : GROUP;
    const int64_t groups = (inputs + GROUP - 1) / GROUP, packed = (inputs + 1) / 2;
    for (int64_t lane = 0; lane < lanes; ++lane) {
        if (source == FROM_INT8 || source == FROM_INT4)
            group.halves[lane] = static_cast<const uint16_t*>(scales)[(row + lane) * groups + first / GROUP];
        if (source < FROM_INT8) {
            read_floats(source, weights, (row + lane) * inputs + first, count, lane, group);
        } else if (source == FROM_INT8) {
            const int8_t* from = static_cast<const int8_t*>(weights) + (row + lane) * inputs + first;
            for (int64_t k = 0; k < count; ++k) group.whole[k][lane] = from[k];
        } else {
            const uint8_t* from = static_cast<const uint8_t*>(weights) + (row + lane) * packed + first / 2;
            for (int64_t k = 0; k < count; ++k)
                group.whole[k][lane] = static_cast<int8_t>((k % 2 == 0 ? from[k / 2] & 15 : from[k / 2] >> 4) - 8);
        }
    }
}

// Outputs [lane, lane + lanes) of a panel.
static void write_group(const Matrix& matrix, uint8_t* panel, const WeightGroup& group, int64_t number, int64_t lane,
                        int64_t lanes) {
    for (int64_t i = 0; i < lanes; ++i) {
        const int64_t to = lane + i;
        if (matrix.kind == FLOAT32) {
            for (int64_t k = 0; k < GROUP && number * GROUP + k < matrix.inputs; ++k)
                reinterpret_cast<float*>(panel)[(number * GROUP + k) * PANEL + to] = group.values[k][i];
        } else if (matrix.kind == BFLOAT16) {
            auto* pairs = reinterpret_cast<uint16_t*>(panel + number * 1024);
            for (int64_t k = 0; k < GROUP; ++k) pairs[k / 2 * 32 + 2 * to + k % 2] = half_bits(group.values[k][i]);
        } else {
            const bool wide = matrix.kind == INT8;
            uint8_t* pair = panel + number / 2 * (wide ? Matrix::PAIR_INT8 : Matrix::PAIR_INT4);
            reinterpret_cast<uint16_t*>(pair)[number % 2 * PANEL + to] = group.halves[i];
            uint8_t* weights = pair + 64 + number % 2 * (wide ? 512 : 256);
            for (int64_t k = 0; k < GROUP && wide; ++k)
                weights[k / 4 * 64 + 4 * to + k % 4] = static_cast<uint8_t>(group.whole[k][i]);
            for (int64_t k = 0; k < GROUP && !wide; ++k) {
                uint8_t& both = weights[k / 8 * 64 + 4 * to + k % 4];
                const auto q = static_cast<uint8_t>(group.whole[k][i] + 8);
                both = static_cast<uint8_t>(k % 8 < 4 ? (both & 0xF0) | q : (both & 15) | q << 4);
            }
        }
    }
}

// A whole group whose numbers stay as they are: pairs of inputs are moved, nothing is rounded. `row`: of the source.
static void move_pairs(uint8_t* panel, const uint16_t* weights, int64_t row, int64_t inputs, int64_t number, int64_t lane,
                       int64_t lanes) {
    uint8_t* group = panel + number * 1024 + 4 * lane;
    for (int64_t i = 0; i < lanes; ++i) {
        const uint16_t* from = weights + (row + i) * inputs + number * GROUP;
        for (int64_t pair = 0; pair < GROUP / 2; ++pair) __builtin_memcpy(group + pair * 64 + 4 * i, from + 2 * pair, 4);
    }
}

// Rows of the source that fall into panels [first_panel, last_panel) of a matrix; row 0 is the output `first_output`.
static void pack_panels(const Matrix& matrix, int64_t first_output, int64_t count, int32_t source, const void* weights,
                        const void* scales, int64_t first_panel, int64_t last_panel) {
    WeightGroup group;
    for (int64_t number = first_panel; number < last_panel; ++number) {
        const int64_t begin = number * PANEL > first_output ? number * PANEL : first_output;
        const int64_t after = first_output + count, end = (number + 1) * PANEL < after ? (number + 1) * PANEL : after;
        for (int64_t g = 0; g * GROUP < matrix.inputs; ++g) {
            if (source == FROM_BFLOAT16 && matrix.kind == BFLOAT16 && (g + 1) * GROUP <= matrix.inputs) {
                move_pairs(matrix.data + number * matrix.panel_bytes, static_cast<const uint16_t*>(weights),
                           begin - first_output, matrix.inputs, g, begin - number * PANEL, end - begin);
                continue;
            }
            read_group(group, source, weights, scales, begin - first_output, end - begin, g * GROUP, matrix.inputs);
            if (source < FROM_INT8 && matrix.kind == INT8) quantize_int8(group);
            if (source < FROM_INT8 && matrix.kind == INT4) quantize_int4(group);
            write_group(matrix, matrix.data + number * matrix.panel_bytes, group, g, begin - number * PANEL, end - begin);
        }
    }
}
