// Kernels of a training step: everything between the matrix products. Included once for each instruction set.
// No include guard on purpose: see native.cpp.
//
// Shapes: rows = tokens of a micro-batch, width = C, heads [B, H, T, D]. S is how activations are stored (float or
// bfloat16); sums are float. Sums over rows are made in blocks of fixed size that are added in order, so they do not
// depend on the number of threads. No function of the C++ library is called: its templates would be compiled for one of
// the instruction sets and shared by all.

constexpr int64_t BLOCK = 64;  // rows summed together before partial sums are added

static inline int64_t blocks_of(int64_t rows) { return (rows + BLOCK - 1) / BLOCK; }

// total[c] (+)= sum over blocks of partial[block, c]
static void add_partials(const float* partial, int64_t blocks, int64_t width, float* total, bool add) {
    parallel_for((width + 63) / 64, [=](int64_t begin, int64_t end) {
        const int64_t last = end * 64 < width ? end * 64 : width;
        for (int64_t c = begin * 64; c < last; ++c) {
            float sum = add ? total[c] : 0.0f;
            for (int64_t block = 0; block < blocks; ++block) sum += partial[block * width + c];
            total[c] = sum;
        }
    });
}

// sum = x (+ branch); out = norm(sum). RMS norm: x / sqrt(mean x^2 + eps) * w (Zhang & Sennrich 2019, eq. 4);
// layer norm: (x - mean) / sqrt(var + eps) * w + b (Ba et al. 2016).
template <class S>
static inline void norm_row(const float* __restrict x, const S* __restrict branch, const float* __restrict weight,
                            const float* __restrict bias, float* __restrict sum_out, S* __restrict out,
                            float* mean_out, float* scale_out, int64_t width, float eps) {
    const float* from = x;
    if (branch != nullptr) {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) sum_out[c] = x[c] + load(branch[c]);
        from = sum_out;
    }
    float mean = 0.0f, squares = 0.0f;
    if (bias != nullptr) {
#pragma omp simd reduction(+ : mean)
        for (int64_t c = 0; c < width; ++c) mean += from[c];
        mean /= static_cast<float>(width);
        *mean_out = mean;
    }
#pragma omp simd reduction(+ : squares)
    for (int64_t c = 0; c < width; ++c) squares += (from[c] - mean) * (from[c] - mean);
    const float scale = 1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + eps);
    *scale_out = scale;
    if (bias != nullptr) {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) store(out + c, (from[c] - mean) * scale * weight[c] + bias[c]);
    } else {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) store(out + c, from[c] * scale * weight[c]);
    }
}

template <class S>
void norm_forward(const float* x, const S* branch, const float* weight, const float* bias, float* sum_out, S* out,
                  float* mean_out, float* scale_out, int64_t rows, int64_t width, float eps) {
    parallel_for(rows, [=](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t at = row * width;
            norm_row(x + at, branch == nullptr ? branch : branch + at, weight, bias, sum_out + at, out + at,
                     mean_out + row, scale_out + row, width, eps);
        }
    });
}

// gradient += d loss / d x of the norm (or = , when it is the first), also in S for the next product; partials:
// [blocks, width], to be added up.
template <class S>
static inline void norm_row_backward(const S* __restrict d, const float* __restrict x, const float* __restrict weight,
                                     float mean, float scale, bool centered_norm, bool first, float* __restrict to,
                                     S* __restrict stored, float* __restrict d_weight, int64_t width) {
    float along = 0.0f, sum = 0.0f;
#pragma omp simd reduction(+ : along, sum)
    for (int64_t c = 0; c < width; ++c) {
        const float change = load(d[c]) * weight[c];
        along += change * (x[c] - mean);
        sum += change;
    }
    along *= scale * scale / static_cast<float>(width);
    sum = centered_norm ? sum / static_cast<float>(width) : 0.0f;
    const float keep = first ? 0.0f : 1.0f;
    if (first) memset(to, 0, sizeof(float) * width);
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) {
        const float centered = x[c] - mean, change = load(d[c]);
        d_weight[c] += change * centered * scale;
        const float value = to[c] * keep + scale * (change * weight[c] - sum - centered * along);
        to[c] = value;
        store(stored + c, value);
    }
}

template <class S>
static inline void add_row(const S* __restrict from, float* __restrict to, int64_t width) {
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) to[c] += load(from[c]);
}

template <class S>
static inline void store_row(const float* __restrict from, S* __restrict to, int64_t width) {
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) store(to + c, from[c]);
}

template <class S>
void norm_backward(const S* d_out, const float* x, const float* weight, const float* means, const float* scales,
                   bool first, float* gradient, S* gradient_stored, float* weight_partial, float* bias_partial,
                   int64_t rows, int64_t width) {
    parallel_for(blocks_of(rows), [=](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
            float* d_weight = weight_partial + block * width;
            float* d_bias = bias_partial == nullptr ? nullptr : bias_partial + block * width;
            memset(d_weight, 0, sizeof(float) * width);
            if (d_bias != nullptr) memset(d_bias, 0, sizeof(float) * width);
            const int64_t last = (block + 1) * BLOCK < rows ? (block + 1) * BLOCK : rows;
            for (int64_t row = block * BLOCK; row < last; ++row) {
                const int64_t at = row * width;
                norm_row_backward(d_out + at, x + at, weight, means == nullptr ? 0.0f : means[row], scales[row],
                                  means != nullptr, first, gradient + at, gradient_stored + at, d_weight, width);
                if (d_bias != nullptr) add_row(d_out + at, d_bias, width);
            }
        }
    });
}

// One head of one token: y = x * scale * weight, then the pair (i, i + D/2) turned by the position's angle
// (Su et al. 2021, eq. 34, half-split order).
template <class S>
static inline void head_forward(const S* __restrict x, const float* __restrict weight, const float* __restrict cosine,
                                const float* __restrict sine, S* __restrict out, float* scale_out, int64_t size,
                                float eps, float* __restrict y) {
    float scale = 1.0f;
    if (weight != nullptr) {
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < size; ++i) squares += load(x[i]) * load(x[i]);
        scale = 1.0f / __builtin_sqrtf(squares / static_cast<float>(size) + eps);
        *scale_out = scale;
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) y[i] = load(x[i]) * scale * weight[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) y[i] = load(x[i]);
    }
    if (cosine == nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) store(out + i, y[i]);
        return;
    }
    const int64_t half = size / 2;
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) store(out + i, y[i] * cosine[i] - y[i + half] * sine[i]);
#pragma omp simd
    for (int64_t i = half; i < size; ++i) store(out + i, y[i] * cosine[i] + y[i - half] * sine[i]);
}

// The other way: d loss / d x from the gradient of the turned head, which may be the sum over a group's heads.
template <class S>
static inline void head_backward(const float* __restrict d, const S* __restrict x, const float* __restrict weight,
                                 const float* __restrict cosine, const float* __restrict sine, float scale,
                                 S* __restrict d_x, float* __restrict d_weight, int64_t size, float* __restrict y) {
    const int64_t half = size / 2;
    if (cosine != nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < half; ++i) {
            y[i] = d[i] * cosine[i] + d[i + half] * sine[i + half];
            y[i + half] = d[i + half] * cosine[i + half] - d[i] * sine[i];
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) y[i] = d[i];
    }
    if (weight == nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) store(d_x + i, y[i]);
        return;
    }
    float along = 0.0f;
#pragma omp simd reduction(+ : along)
    for (int64_t i = 0; i < size; ++i) along += y[i] * weight[i] * load(x[i]);
    along *= scale * scale / static_cast<float>(size);
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
        const float value = load(x[i]);
        d_weight[i] += y[i] * value * scale;
        store(d_x + i, scale * (y[i] * weight[i] - value * along));
    }
}

struct Heads {
    int64_t batch, length, query, shared, size;  // B, T, query heads, key (and value) heads, D
    int64_t width() const { return (query + 2 * shared) * size; }
};

constexpr int64_t MAX_HEAD = 512;

// [B·T, (H + 2·KV)·D] -> q, k, v each [B, H, T, D]: normalised where weights are given, turned where angles are, keys
// and values repeated for every query head of their group. scales: [B·T, H + KV].
template <class S>
void heads_forward(const S* qkv, const float* q_weight, const float* k_weight, const float* cosine, const float* sine,
                   S* q, S* k, S* v, float* scales, Heads heads, float eps) {
    parallel_for(heads.batch * heads.length, [=](int64_t begin, int64_t end) {
        float y[MAX_HEAD];
        const int64_t group = heads.query / heads.shared, size = heads.size;
        for (int64_t row = begin; row < end; ++row) {
            const int64_t b = row / heads.length, t = row % heads.length;
            const S* from = qkv + row * heads.width();
            const float* c = cosine == nullptr ? nullptr : cosine + t * size;
            const float* s = sine == nullptr ? nullptr : sine + t * size;
            float* scale = scales + row * (heads.query + heads.shared);
            for (int64_t h = 0; h < heads.query; ++h)
                head_forward(from + h * size, q_weight, c, s, q + ((b * heads.query + h) * heads.length + t) * size,
                             scale + h, size, eps, y);
            for (int64_t h = 0; h < heads.shared; ++h) {
                const int64_t first = ((b * heads.query + h * group) * heads.length + t) * size;
                head_forward(from + (heads.query + h) * size, k_weight, c, s, k + first, scale + heads.query + h, size,
                             eps, y);
                const S* value = from + (heads.query + heads.shared + h) * size;
                memcpy(v + first, value, sizeof(S) * size);
                for (int64_t g = 1; g < group; ++g) {
                    memcpy(k + first + g * heads.length * size, k + first, sizeof(S) * size);
                    memcpy(v + first + g * heads.length * size, value, sizeof(S) * size);
                }
            }
        }
    });
}

// partial: [blocks, 2·D], the gradients of both norms' weights (only where weights are given).
template <class S>
void heads_backward(const S* d_q, const S* d_k, const S* d_v, const S* qkv, const float* q_weight,
                    const float* k_weight, const float* cosine, const float* sine, const float* scales, S* d_qkv,
                    float* partial, Heads heads) {
    const int64_t rows = heads.batch * heads.length;
    parallel_for(blocks_of(rows), [=](int64_t begin, int64_t end) {
        float y[MAX_HEAD], d[MAX_HEAD];
        const int64_t group = heads.query / heads.shared, size = heads.size;
        for (int64_t block = begin; block < end; ++block) {
            float* d_weight = partial + block * 2 * size;
            memset(d_weight, 0, sizeof(float) * 2 * size);
            const int64_t last = (block + 1) * BLOCK < rows ? (block + 1) * BLOCK : rows;
            for (int64_t row = block * BLOCK; row < last; ++row) {
                const int64_t b = row / heads.length, t = row % heads.length;
                const S* from = qkv + row * heads.width();
                S* to = d_qkv + row * heads.width();
                const float* c = cosine == nullptr ? nullptr : cosine + t * size;
                const float* s = sine == nullptr ? nullptr : sine + t * size;
                const float* scale = scales + row * (heads.query + heads.shared);
                for (int64_t h = 0; h < heads.query; ++h) {
                    const S* change = d_q + ((b * heads.query + h) * heads.length + t) * size;
                    memset(d, 0, sizeof(float) * size);
                    add_row(change, d, size);
                    head_backward(d, from + h * size, q_weight, c, s, scale[h], to + h * size, d_weight, size, y);
                }
                for (int64_t h = 0; h < heads.shared; ++h) {
                    const int64_t first = ((b * heads.query + h * group) * heads.length + t) * size;
                    const int64_t step = heads.length * size;
                    memset(d, 0, sizeof(float) * size);
                    for (int64_t g = 0; g < group; ++g) add_row(d_k + first + g * step, d, size);
                    head_backward(d, from + (heads.query + h) * size, k_weight, c, s, scale[heads.query + h],
                                  to + (heads.query + h) * size, d_weight + size, size, y);
                    memset(d, 0, sizeof(float) * size);
                    for (int64_t g = 0; g < group; ++g) add_row(d_v + first + g * step, d, size);
                    store_row(d, to + (heads.query + heads.shared + h) * size, size);
                }
            }
        }
    });
}

// [B, H, T, D] <-> [B, T, H, D].
template <class S>
void swap_heads(const S* from, S* to, int64_t batch, int64_t first, int64_t second, int64_t size) {
    parallel_for(batch * second, [=](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t b = row / second, j = row % second;
            for (int64_t i = 0; i < first; ++i)
                memcpy(to + (row * first + i) * size, from + ((b * first + i) * second + j) * size,
                            sizeof(S) * size);
        }
    });
}

// The keys that queries see. Of `matrices` scores [queries, keys], `heads` in turn belong to a row of tokens; query i
// stands at key first + i and sees keys from the one that `first_keys` [rows, length] names, which counts from
// `first_query` and from `first_key`, to its own; without it from the first.
struct Seen {
    int64_t heads, queries, keys, first;
    const int64_t* first_keys;
    int64_t length, first_query, first_key;

    int64_t start(int64_t row) const {
        if (first_keys == nullptr) return 0;
        const int64_t query = first_query + row % queries;
        const int64_t key = first_keys[row / queries / heads * length + query] - first_key;
        return key > 0 ? key : 0;
    }
    int64_t stop(int64_t row) const { return first + row % queries + 1; }
};

// In place: scores [matrices, queries, keys] -> probabilities of the keys that are seen; the others become 0.
template <class S>
static inline void softmax_row(S* __restrict p, float* __restrict y, int64_t start, int64_t stop, float scale) {
    float largest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = start; i < stop; ++i) {
        y[i] = load(p[i]) * scale;
        largest = y[i] > largest ? y[i] : largest;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = start; i < stop; ++i) {
        y[i] = exponential(y[i] - largest);
        sum += y[i];
    }
    const float factor = 1.0f / sum;
#pragma omp simd
    for (int64_t i = start; i < stop; ++i) store(p + i, y[i] * factor);
}

template <class S>
void softmax_forward(S* scores, int64_t matrices, Seen seen, float scale) {
    const int64_t keys = seen.keys;
    parallel_for(matrices * seen.queries, [=](int64_t begin, int64_t end) {
        float* y = scratch(keys);
        for (int64_t row = begin; row < end; ++row) {
            const int64_t start = seen.start(row), stop = seen.stop(row);
            S* p = scores + row * keys;
            softmax_row(p, y, start, stop, scale);
            memset(p, 0, sizeof(S) * start);
            memset(p + stop, 0, sizeof(S) * (keys - stop));
        }
    });
}

// In place of d_p: d loss / d scores = scale · p · (d_p - sum p · d_p).
template <class S>
static inline void softmax_row_backward(const S* __restrict p, S* __restrict d, int64_t start, int64_t stop,
                                        float scale) {
    float along = 0.0f;
#pragma omp simd reduction(+ : along)
    for (int64_t i = start; i < stop; ++i) along += load(p[i]) * load(d[i]);
#pragma omp simd
    for (int64_t i = start; i < stop; ++i) store(d + i, scale * load(p[i]) * (load(d[i]) - along));
}

template <class S>
void softmax_backward(const S* probabilities, S* d_p, int64_t matrices, Seen seen, float scale) {
    const int64_t keys = seen.keys;
    parallel_for(matrices * seen.queries, [=](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t start = seen.start(row), stop = seen.stop(row);
            S* d = d_p + row * keys;
            softmax_row_backward(probabilities + row * keys, d, start, stop, scale);
            memset(d, 0, sizeof(S) * start);
            memset(d + stop, 0, sizeof(S) * (keys - stop));
        }
    });
}

// silu(gate) · up (Shazeer 2020): [rows, 2·inner] -> [rows, inner].
template <class S>
static inline void swiglu_row(const S* __restrict gate, const S* __restrict up, S* __restrict out, int64_t inner) {
#pragma omp simd
    for (int64_t i = 0; i < inner; ++i) {
        const float g = load(gate[i]);
        store(out + i, g * sigmoid(g) * load(up[i]));
    }
}

template <class S>
static inline void swiglu_row_backward(const S* __restrict d, const S* __restrict gate, const S* __restrict up,
                                       S* __restrict d_gate, S* __restrict d_up, int64_t inner) {
#pragma omp simd
    for (int64_t i = 0; i < inner; ++i) {
        const float g = load(gate[i]), share = sigmoid(g), change = load(d[i]);
        store(d_gate + i, change * load(up[i]) * share * (1.0f + g * (1.0f - share)));
        store(d_up + i, change * g * share);
    }
}

template <class S>
void swiglu_forward(const S* gate_up, S* out, int64_t rows, int64_t inner) {
    parallel_for(rows, [=](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const S* gate = gate_up + row * 2 * inner;
            swiglu_row(gate, gate + inner, out + row * inner, inner);
        }
    });
}

template <class S>
void swiglu_backward(const S* d_out, const S* gate_up, S* d_gate_up, int64_t rows, int64_t inner) {
    parallel_for(rows, [=](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const S* gate = gate_up + row * 2 * inner;
            S* d_gate = d_gate_up + row * 2 * inner;
            swiglu_row_backward(d_out + row * inner, gate, gate + inner, d_gate, d_gate + inner, inner);
        }
    });
}

// GELU by its tanh form (Hendrycks & Gimpel 2016), as GPT-2 computes it: x · sigmoid(2u), u = sqrt(2/pi)(x + 0.044715 x³).
template <class S>
static inline void gelu_run(const S* __restrict x, S* __restrict out, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const float value = load(x[i]);
        store(out + i, value * sigmoid(1.5957691216f * (value + 0.044715f * value * value * value)));
    }
}

template <class S>
static inline void gelu_run_backward(const S* __restrict d, const S* __restrict x, S* __restrict d_x, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const float value = load(x[i]);
        const float share = sigmoid(1.5957691216f * (value + 0.044715f * value * value * value));
        const float slope = 1.5957691216f * (1.0f + 0.134145f * value * value);
        store(d_x + i, load(d[i]) * (share + value * share * (1.0f - share) * slope));
    }
}

constexpr int64_t RUN = 4096;  // values in a row without rows

template <class S>
void gelu_forward(const S* x, S* out, int64_t count) {
    parallel_for((count + RUN - 1) / RUN, [=](int64_t begin, int64_t end) {
        const int64_t first = begin * RUN, last = end * RUN < count ? end * RUN : count;
        gelu_run(x + first, out + first, last - first);
    });
}

template <class S>
void gelu_backward(const S* d_out, const S* x, S* d_x, int64_t count) {
    parallel_for((count + RUN - 1) / RUN, [=](int64_t begin, int64_t end) {
        const int64_t first = begin * RUN, last = end * RUN < count ? end * RUN : count;
        gelu_run_backward(d_out + first, x + first, d_x + first, last - first);
    });
}

// In place: logits [rows, stride], of which the first `vocabulary` count -> d loss / d logits = (softmax - one-hot) · factor; losses: nats a row.
// A negative target is not trained: loss and gradient 0.
template <class S>
static inline float cross_entropy_row(S* __restrict logits, float* __restrict y, int64_t target, int64_t vocabulary,
                                      float factor) {
    float largest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < vocabulary; ++i) {
        const float value = load(logits[i]);
        largest = value > largest ? value : largest;
    }
    const float wanted = load(logits[target]);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < vocabulary; ++i) {
        y[i] = exponential(load(logits[i]) - largest);
        sum += y[i];
    }
    const float share = factor / sum;
#pragma omp simd
    for (int64_t i = 0; i < vocabulary; ++i) store(logits + i, y[i] * share);
    store(logits + target, y[target] * share - factor);
    return largest + logf(sum) - wanted;
}

template <class S>
void cross_entropy(S* logits, const int64_t* targets, float* losses, int64_t rows, int64_t vocabulary, int64_t stride,
                   float factor) {
    parallel_for(rows, [=](int64_t begin, int64_t end) {
        float* y = scratch(vocabulary);
        for (int64_t row = begin; row < end; ++row) {
            S* from = logits + row * stride;
            memset(from + vocabulary, 0, sizeof(S) * (stride - vocabulary));
            if (targets[row] >= 0) {
                losses[row] = cross_entropy_row(from, y, targets[row], vocabulary, factor);
            } else {
                losses[row] = 0.0f;
                memset(from, 0, sizeof(S) * vocabulary);
            }
        }
    });
}

// table[ids[row]] += d[row]: each thread takes some columns of every row, so the order of additions is fixed.
static void embedding_backward(const int64_t* ids, const float* d, float* table, int64_t rows, int64_t width) {
    parallel_for((width + 15) / 16, [=](int64_t begin, int64_t end) {
        const int64_t first = begin * 16, last = end * 16 < width ? end * 16 : width;
        for (int64_t row = 0; row < rows; ++row)
            add_row(d + row * width + first, table + ids[row] * width + first, last - first);
    });
}

// partial[block, c] = sums of a block's rows: the gradient of a bias.
template <class S>
void sum_rows(const S* d, float* partial, int64_t rows, int64_t width) {
    parallel_for(blocks_of(rows), [=](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
            float* to = partial + block * width;
            memset(to, 0, sizeof(float) * width);
            const int64_t last = (block + 1) * BLOCK < rows ? (block + 1) * BLOCK : rows;
            for (int64_t row = block * BLOCK; row < last; ++row) add_row(d + row * width, to, width);
        }
    });
}
