// Causal attention on the tile unit: a head of a row of tokens at a time, all of it in the cache of one thread. Scores stay
// float until they are probabilities. Included with amx.h.
//
// q, k, v and their gradients: [B·H, T, D]; mixed and its gradient: [B, T, H, D]; T and D multiples of 32.

constexpr int64_t QUERIES = 32;    // whose scores exist together
constexpr int64_t TOGETHER = 128;  // queries whose share of the keys' gradients is added at once

struct AttentionShape {
    int64_t batch, heads, length, size, window;  // window 0: all keys before
    float scale;

    int64_t first_key(int64_t query) const {
        const int64_t first = window > 0 && query + 1 > window ? query + 1 - window : 0;
        return first;
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

// Scores of keys [start, stop) become probabilities; returns the log of the sum of e^(scale · score).
static inline float softmax_of(float* __restrict scores, bfloat16* __restrict p, int64_t start, int64_t stop,
                               float scale) {
    hide(scores, start, stop, HIDDEN);
    float largest = HIDDEN, sum = 0.0f;
    const int64_t first = down(start), vectors = (up(stop) - first) / VECTOR;
    for (int64_t i = 0; i < vectors; ++i) {
        const float* x = scores + first + i * VECTOR;
        float top = HIDDEN;
#pragma omp simd reduction(max : top)
        for (int64_t j = 0; j < VECTOR; ++j) top = x[j] > top ? x[j] : top;
        largest = top > largest ? top : largest;
    }
    largest *= scale;
    alignas(64) float sums[VECTOR] = {};
    for (int64_t i = 0; i < vectors; ++i) {
        float* x = scores + first + i * VECTOR;
#pragma omp simd
        for (int64_t j = 0; j < VECTOR; ++j) {
            x[j] = exponential(x[j] * scale - largest);
            sums[j] += x[j];
        }
    }
    for (int64_t j = 0; j < VECTOR; ++j) sum += sums[j];
    const float factor = 1.0f / sum;
    for (int64_t i = 0; i < vectors; ++i) {
        const float* x = scores + first + i * VECTOR;
        bfloat16* to = p + first + i * VECTOR;
#pragma omp simd
        for (int64_t j = 0; j < VECTOR; ++j) store(to + j, x[j] * factor);
    }
    return largest + logf(sum);
}

// normalizers: [B·H, T], log of the sum of e^score, for the way back.
static void attention_forward(const bfloat16* q, const bfloat16* k, const bfloat16* v, bfloat16* mixed,
                              float* normalizers, AttentionShape shape) {
    parallel_for(shape.batch * shape.heads, [=](int64_t begin, int64_t end) {
        TileUse tiles;
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
                const int64_t stop = first + QUERIES, start = shape.first_key(first) / 32 * 32;
                product_rows(q + at + first * size, size, keys + start * size, size, 0, size, scores + start, length,
                             stop - start, FLOAT, QUERIES, Finish{});
                for (int64_t i = 0; i < QUERIES; ++i) {
                    const int64_t query = first + i, from = shape.first_key(query);
                    float* row = scores + i * length;
                    normalizers[head * length + query] =
                        softmax_of(row, p + i * length, from, query + 1, shape.scale);
                    clear_outside(p + i * length, from, query + 1, stop);
                }
                product_rows(p, length, values, length, start, stop - start, out + first * width, width, size, STORED,
                             QUERIES, Finish{});
            }
        }
    });
}

// Probabilities again from scores and their normalizer, and the gradient of the scores:
// d = scale · p · (d_p - sum p · d_p).
static inline void softmax_gradient(float* __restrict scores, float* __restrict d_p, bfloat16* __restrict p,
                                    bfloat16* __restrict d, int64_t start, int64_t stop, float scale,
                                    float normalizer) {
    hide(scores, start, stop, HIDDEN);
    hide(d_p, start, stop, 0.0f);
    const int64_t first = down(start), vectors = (up(stop) - first) / VECTOR;
    alignas(64) float sums[VECTOR] = {};
    for (int64_t i = 0; i < vectors; ++i) {
        float* x = scores + first + i * VECTOR;
        const float* change = d_p + first + i * VECTOR;
        bfloat16* to = p + first + i * VECTOR;
#pragma omp simd
        for (int64_t j = 0; j < VECTOR; ++j) {
            x[j] = exponential(x[j] * scale - normalizer);
            sums[j] += x[j] * change[j];
            store(to + j, x[j]);
        }
    }
    float along = 0.0f;
    for (int64_t j = 0; j < VECTOR; ++j) along += sums[j];
    for (int64_t i = 0; i < vectors; ++i) {
        const float* x = scores + first + i * VECTOR;
        const float* change = d_p + first + i * VECTOR;
        bfloat16* to = d + first + i * VECTOR;
#pragma omp simd
        for (int64_t j = 0; j < VECTOR; ++j) store(to + j, scale * x[j] * (change[j] - along));
    }
}

static inline void store_rows(const float* __restrict from, bfloat16* __restrict to, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) store(to + i, from[i]);
}

static void attention_backward(const bfloat16* q, const bfloat16* k, const bfloat16* v, const bfloat16* d_mixed,
                               const float* normalizers, bfloat16* d_q, bfloat16* d_k, bfloat16* d_v,
                               AttentionShape shape) {
    parallel_for(shape.batch * shape.heads, [=](int64_t begin, int64_t end) {
        TileUse tiles;
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
                const int64_t depth = group_end - group, group_start = shape.first_key(group) / 32 * 32;
                for (int64_t first = group; first < group_end; first += QUERIES) {
                    const int64_t stop = first + QUERIES, start = shape.first_key(first) / 32 * 32;
                    product_rows(q + at + first * size, size, keys + start * size, size, 0, size, scores + start,
                                 length, stop - start, FLOAT, QUERIES, Finish{});
                    product_rows(d + first * width, width, values + start * size, size, 0, size, d_p + start, length,
                                 stop - start, FLOAT, QUERIES, Finish{});
                    for (int64_t i = 0; i < QUERIES; ++i) {
                        const int64_t query = first + i, from = shape.first_key(query);
                        softmax_gradient(scores + i * length, d_p + i * length, p + i * length, d_s + i * length, from,
                                         query + 1, shape.scale, normalizers[head * length + query]);
                        clear_outside(p + i * length, from, query + 1, group_end);
                        clear_outside(d_s + i * length, from, query + 1, group_end);
                    }
                    product_rows(d_s, length, key_rows, length, start, stop - start, d_q + at + first * size, size,
                                 size, STORED, QUERIES, Finish{});
                    for (int64_t key = group_start; key < group_end; key += 16) {
                        transpose_piece(p + key, length, p_turned + key * TOGETHER + first - group, TOGETHER, 16);
                        transpose_piece(d_s + key, length, d_s_turned + key * TOGETHER + first - group, TOGETHER, 16);
                    }
                }
                pack_values(q + at + group * size, size, depth, size, query_rows);
                pack_values(d + group * width, width, depth, size, d_rows);
                for (int64_t key = group_start; key < group_end; key += 32) {
                    product_rows(p_turned + key * TOGETHER, TOGETHER, d_rows, depth, 0, depth, sum_v + key * size, size,
                                 size, ADDED, 32, Finish{});
                    product_rows(d_s_turned + key * TOGETHER, TOGETHER, query_rows, depth, 0, depth, sum_k + key * size,
                                 size, size, ADDED, 32, Finish{});
                }
            }
            store_rows(sum_k, d_k + at, area);
            store_rows(sum_v, d_v + at, area);
        }
    });
}
