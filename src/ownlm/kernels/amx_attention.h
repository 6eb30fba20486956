// Causal attention on the tile unit: a head of a row of tokens at a time, all of it in the cache of one thread. Scores stay
// float until they are probabilities. Included with amx.h.
//
// q, k, v and their gradients: [B·H, T, D]; mixed and its gradient: [B, T, H, D]; T and D multiples of 32.

constexpr int64_t QUERIES = 32;    // whose scores exist together
constexpr int64_t TOGETHER = 128;  // queries whose share of the keys' gradients is added at once

struct AttentionShape {
    int64_t batch, heads, length, size;
    const int64_t* first_keys;  // [B, T] the first key that a query sees, never falling along T; null: 0 for all
    float scale;

    int64_t first_key(int64_t head, int64_t query) const {
        return first_keys == nullptr ? 0 : first_keys[head / heads * length + query];
    }
};

static inline void pack_keys(const bfloat16* x, int64_t length, int64_t size, bfloat16* packed) {
    for (int64_t first = 0; first < length; first += PANEL)
        pack_transposed_panel(x, size, length, first, size, packed + first * size);
}

static inline void pack_values(const bfloat16* x, int64_t stride, int64_t depth, int64_t size, bfloat16* packed) {
    for (int64_t first = 0; first < size; first += PANEL)
        pack_panel(x, stride, size, first, 0, depth, packed + first * depth);
}

// Rows are worked on in whole vectors of 16, from the one that holds the first key to the one that holds the last:
// what lies outside the keys that count is hidden first.
constexpr int64_t VECTOR = 16;
constexpr float HIDDEN = -1e30f;

static inline int64_t down(int64_t i) { return i / VECTOR * VECTOR; }
static inline int64_t up(int64_t i) { return (i + VECTOR - 1) / VECTOR * VECTOR; }

static inline void hide(float* row, int64_t start, int64_t stop, float value) {
    for (int64_t i = down(start); i < start; ++i) row[i] = value;
    for (int64_t i = stop; i < up(stop); ++i) row[i] = value;
}

static inline void clear_outside(bfloat16* row, int64_t start, int64_t stop, int64_t end) {
    memset(row, 0, 2 * start);
    memset(row + stop, 0, 2 * (end - stop));
}

// e^x of 16 numbers, as `exponential` in numbers.h: x at least -60, and not far above 0 where probabilities come out.
// The maximum of NaN and a number is its second operand: NaN stays.
static inline __m512 exponentials(__m512 x) {
    const __m512 magic = _mm512_set1_ps(12582912.0f);
    x = _mm512_max_ps(_mm512_set1_ps(-60.0f), x);
    const __m512 whole = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), magic), magic);
    __m512 rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), x);
    rest = _mm512_fmadd_ps(whole, _mm512_set1_ps(2.12194440e-4f), rest);
    __m512 series = _mm512_set1_ps(1.9875691500e-4f);
    series = _mm512_fmadd_ps(series, rest, _mm512_set1_ps(1.3981999507e-3f));
    series = _mm512_fmadd_ps(series, rest, _mm512_set1_ps(8.3334519073e-3f));
    series = _mm512_fmadd_ps(series, rest, _mm512_set1_ps(4.1665795894e-2f));
    series = _mm512_fmadd_ps(series, rest, _mm512_set1_ps(1.6666665459e-1f));
    series = _mm512_fmadd_ps(series, rest, _mm512_set1_ps(5.0000001201e-1f));
    series = _mm512_fmadd_ps(series, _mm512_mul_ps(rest, rest), _mm512_add_ps(rest, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(series, whole);
}

static inline void store16(bfloat16* to, __m512 values) {
    const __m256bh stored = _mm512_cvtneps_pbh(values);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<const __m256i&>(stored));
}

// Scores of keys [start, stop) become probabilities; returns the log of the sum of e^(scale · score).
static inline float softmax_of(float* scores, bfloat16* p, int64_t start, int64_t stop, float scale) {
    hide(scores, start, stop, HIDDEN);
    const int64_t first = down(start), end = up(stop);
    __m512 tops = _mm512_set1_ps(HIDDEN), sums = _mm512_setzero_ps();
    for (int64_t i = first; i < end; i += VECTOR) tops = _mm512_max_ps(tops, _mm512_loadu_ps(scores + i));
    const float largest = _mm512_reduce_max_ps(tops) * scale;
    const __m512 by = _mm512_set1_ps(scale), minus = _mm512_set1_ps(largest);
    for (int64_t i = first; i < end; i += VECTOR) {
        const __m512 e = exponentials(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), by, minus));
        sums = _mm512_add_ps(sums, e);
        _mm512_storeu_ps(scores + i, e);
    }
    const float sum = _mm512_reduce_add_ps(sums);
    const __m512 factor = _mm512_set1_ps(1.0f / sum);
    for (int64_t i = first; i < end; i += VECTOR)
        store16(p + i, _mm512_mul_ps(_mm512_loadu_ps(scores + i), factor));
    return largest + logf(sum);
}

// normalizers: [B·H, T], log of the sum of e^score, for the way back.
static void attention_forward(const bfloat16* q, const bfloat16* k, const bfloat16* v, bfloat16* mixed,
                              float* normalizers, AttentionShape shape) {
    parallel_for(shape.batch * shape.heads, [=](int64_t begin, int64_t end) {
        TileUse tiles;
        Writer writer;
        const int64_t length = shape.length, size = shape.size, width = shape.heads * size;
        float* scores = scratch(QUERIES * length + QUERIES * length / 2 + length * size);
        bfloat16* p = reinterpret_cast<bfloat16*>(scores + QUERIES * length);
        bfloat16 *keys = p + QUERIES * length, *values = keys + length * size;
        for (int64_t head = begin; head < end; ++head) {
            const int64_t at = head * length * size;
            pack_keys(k + at, length, size, keys);
            pack_values(v + at, size, length, size, values);
            bfloat16* out = mixed + head / shape.heads * length * width + head % shape.heads * size;
            for (int64_t first = 0; first < length; first += QUERIES) {
                const int64_t stop = first + QUERIES, start = shape.first_key(head, first) / 32 * 32;
                float_rows(q + at + first * size, size, keys + start * size, size, 0, size, scores + start, length,
                           stop - start, false, QUERIES);
                for (int64_t i = 0; i < QUERIES; ++i) {
                    const int64_t query = first + i, from = shape.first_key(head, query);
                    float* row = scores + i * length;
                    normalizers[head * length + query] =
                        softmax_of(row, p + i * length, from, query + 1, shape.scale);
                    clear_outside(p + i * length, from, query + 1, stop);
                }
                stored_rows(writer, p, length, values, length, start, stop - start, out + first * width, width,
                            size, QUERIES, Finish{});
            }
        }
    });
}

// Probabilities again from scores and their normalizer, and the gradient of the scores:
// d = scale · p · (d_p - sum p · d_p).
static inline void softmax_gradient(float* scores, float* d_p, bfloat16* p, bfloat16* d, int64_t start, int64_t stop,
                                    float scale, float normalizer) {
    hide(scores, start, stop, HIDDEN);
    hide(d_p, start, stop, 0.0f);
    const int64_t first = down(start), end = up(stop);
    const __m512 by = _mm512_set1_ps(scale), minus = _mm512_set1_ps(normalizer);
    __m512 sums = _mm512_setzero_ps();
    for (int64_t i = first; i < end; i += VECTOR) {
        const __m512 e = exponentials(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), by, minus));
        sums = _mm512_fmadd_ps(e, _mm512_loadu_ps(d_p + i), sums);
        _mm512_storeu_ps(scores + i, _mm512_mul_ps(e, by));
        store16(p + i, e);
    }
    const __m512 along = _mm512_set1_ps(_mm512_reduce_add_ps(sums));
    for (int64_t i = first; i < end; i += VECTOR)
        store16(d + i, _mm512_mul_ps(_mm512_loadu_ps(scores + i), _mm512_sub_ps(_mm512_loadu_ps(d_p + i), along)));
}

static inline void store_rows(const float* from, bfloat16* to, int64_t count) {
    for (int64_t i = 0; i < count; i += VECTOR) store16(to + i, _mm512_loadu_ps(from + i));
}

static void attention_backward(const bfloat16* q, const bfloat16* k, const bfloat16* v, const bfloat16* d_mixed,
                               const float* normalizers, bfloat16* d_q, bfloat16* d_k, bfloat16* d_v,
                               AttentionShape shape) {
    parallel_for(shape.batch * shape.heads, [=](int64_t begin, int64_t end) {
        TileUse tiles;
        Writer writer;
        const int64_t length = shape.length, size = shape.size, width = shape.heads * size, area = length * size;
        const int64_t block = QUERIES * length, together = TOGETHER * length;
        float* memory = scratch(2 * block + 2 * area + (2 * block + 2 * together + 3 * area + 2 * TOGETHER * size) / 2);
        float *scores = memory, *d_p = scores + block, *sum_k = d_p + block, *sum_v = sum_k + area;
        bfloat16* p = reinterpret_cast<bfloat16*>(sum_v + area);
        bfloat16 *d_s = p + block, *p_turned = d_s + block, *d_s_turned = p_turned + together;
        bfloat16 *keys = d_s_turned + together, *values = keys + area, *key_rows = values + area;
        bfloat16 *query_rows = key_rows + area, *d_rows = query_rows + TOGETHER * size;
        for (int64_t head = begin; head < end; ++head) {
            const int64_t at = head * area;
            const bfloat16* d = d_mixed + head / shape.heads * length * width + head % shape.heads * size;
            pack_keys(k + at, length, size, keys);
            pack_keys(v + at, length, size, values);
            pack_values(k + at, size, length, size, key_rows);
            memset(sum_k, 0, 4 * area);
            memset(sum_v, 0, 4 * area);
            for (int64_t group = 0; group < length; group += TOGETHER) {
                const int64_t group_end = group + TOGETHER < length ? group + TOGETHER : length;
                const int64_t depth = group_end - group, group_start = shape.first_key(head, group) / 32 * 32;
                for (int64_t first = group; first < group_end; first += QUERIES) {
                    const int64_t stop = first + QUERIES, start = shape.first_key(head, first) / 32 * 32;
                    float_rows(q + at + first * size, size, keys + start * size, size, 0, size, scores + start, length,
                               stop - start, false, QUERIES);
                    float_rows(d + first * width, width, values + start * size, size, 0, size, d_p + start, length,
                               stop - start, false, QUERIES);
                    for (int64_t i = 0; i < QUERIES; ++i) {
                        const int64_t query = first + i, from = shape.first_key(head, query);
                        softmax_gradient(scores + i * length, d_p + i * length, p + i * length, d_s + i * length, from,
                                         query + 1, shape.scale, normalizers[head * length + query]);
                        clear_outside(p + i * length, from, query + 1, group_end);
                        clear_outside(d_s + i * length, from, query + 1, group_end);
                    }
                    stored_rows(writer, d_s, length, key_rows, length, start, stop - start, d_q + at + first * size,
                                size, size, QUERIES, Finish{});
                    for (int64_t key = group_start; key < group_end; key += 16) {
                        transpose_piece(p + key, length, p_turned + key * TOGETHER + first - group, TOGETHER, 16);
                        transpose_piece(d_s + key, length, d_s_turned + key * TOGETHER + first - group, TOGETHER, 16);
                    }
                }
                pack_values(q + at + group * size, size, depth, size, query_rows);
                pack_values(d + group * width, width, depth, size, d_rows);
                for (int64_t key = group_start; key < group_end; key += 32) {
                    float_rows(p_turned + key * TOGETHER, TOGETHER, d_rows, depth, 0, depth, sum_v + key * size, size,
                               size, true, 32);
                    float_rows(d_s_turned + key * TOGETHER, TOGETHER, query_rows, depth, 0, depth, sum_k + key * size,
                               size, size, true, 32);
                }
            }
            store_rows(sum_k, d_k + at, area);
            store_rows(sum_v, d_v + at, area);
        }
    });
}
