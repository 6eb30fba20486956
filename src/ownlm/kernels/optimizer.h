// Kernels of the optimizer: all matrices of one shape in one call. Included once for each instruction set.
// No include guard on purpose: see native.cpp.

constexpr int64_t PIECE = 4096;  // values that are worked on, and summed, together

// momentum += (gradient - momentum)·(1 - beta); out = gradient + (momentum - gradient)·beta; returns sum of out².
template <class S>
static inline float momentum_piece(const float* __restrict gradient, float* __restrict momentum, S* __restrict out,
                                   int64_t count, float beta) {
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < count; ++i) {
        const float g = gradient[i], m = momentum[i] + (g - momentum[i]) * (1.0f - beta);
        const float ahead = g + (m - g) * beta;
        momentum[i] = m;
        squares += ahead * ahead;
        store(out + i, ahead);
    }
    return squares;
}

template <class S>
static inline void scale_piece(S* __restrict x, int64_t count, float factor) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) store(x + i, load(x[i]) * factor);
}

// Momentum with a look ahead (Nesterov) of `matrices` matrices of `count` values, each divided by its Frobenius norm;
// out: [matrices, count]. partial: [matrices, pieces of a matrix].
template <class S>
void muon_momentum(const float* const* gradients, float* const* momenta, S* out, float* partial, int64_t matrices,
                   int64_t count, float beta) {
    const int64_t pieces = (count + PIECE - 1) / PIECE;
    parallel_for(matrices * pieces, [=](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; ++piece) {
            const int64_t matrix = piece / pieces, first = piece % pieces * PIECE;
            const int64_t size = first + PIECE < count ? PIECE : count - first;
            partial[piece] = momentum_piece(gradients[matrix] + first, momenta[matrix] + first,
                                            out + matrix * count + first, size, beta);
        }
    });
    parallel_for(matrices * pieces, [=](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; ++piece) {
            const int64_t matrix = piece / pieces, first = piece % pieces * PIECE;
            const int64_t size = first + PIECE < count ? PIECE : count - first;
            float squares = 0.0f;
            for (int64_t other = 0; other < pieces; ++other) squares += partial[matrix * pieces + other];
            const float norm = __builtin_sqrtf(squares);
            scale_piece(out + matrix * count + first, size, 1.0f / (norm > 1e-7f ? norm : 1e-7f));
        }
    });
}

template <class S>
static inline void apply_piece(float* __restrict weights, const S* __restrict update, int64_t count, float keep,
                               float scale) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) weights[i] = weights[i] * keep - scale * load(update[i]);
}

// weights = weights · keep - scale · update.
template <class S>
void muon_apply(float* const* weights, const S* update, int64_t matrices, int64_t count, float keep, float scale) {
    const int64_t pieces = (count + PIECE - 1) / PIECE;
    parallel_for(matrices * pieces, [=](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; ++piece) {
            const int64_t matrix = piece / pieces, first = piece % pieces * PIECE;
            const int64_t size = first + PIECE < count ? PIECE : count - first;
            apply_piece(weights[matrix] + first, update + matrix * count + first, size, keep, scale);
        }
    });
}
