// The C interface of the kernels: plain pointers and numbers, no header of torch or Python.
//
// Each kernel is compiled for several instruction sets by `target` pragmas; which one runs is chosen when the library
// is loaded. Functions are called through ctypes (kernels/library.py). `stored` says how activations are kept:
// 0 float, 1 bfloat16.

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <vector>

#include "parallel.h"
#include "platform.h"

namespace ownlm {

ForkFunction fork_threads = nullptr;
ThreadFunction thread_number = nullptr;
int num_threads = 1;

float* scratch(int64_t count) {
    constexpr int64_t LINE = 16;  // floats of a cache line
    thread_local std::vector<float> buffer;
    if (static_cast<int64_t>(buffer.size()) < count + LINE) buffer.resize(count + LINE);
    const auto place = reinterpret_cast<uintptr_t>(buffer.data());
    return reinterpret_cast<float*>((place + 63) / 64 * 64);
}

namespace portable {
#include "numbers.h"
#include "training.h"
#include "optimizer.h"
}  // namespace portable

#ifdef OWNLM_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace avx2 {
#include "numbers.h"
#include "training.h"
#include "optimizer.h"
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
namespace avx512 {
#include "numbers.h"
#include "training.h"
#include "optimizer.h"
}  // namespace avx512
#pragma GCC pop_options
#ifdef OWNLM_AMX
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,fma,prefer-vector-width=512")
namespace amx {
#include "numbers.h"
#include "amx.h"
#include "amx_attention.h"
#include "amx_muon.h"
}  // namespace amx
#pragma GCC pop_options
#endif
#endif

enum Level { PORTABLE = 0, AVX2 = 1, AVX512 = 2 };

static int best_level() {
#ifdef OWNLM_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
    return PORTABLE;
}

static int level = best_level();

}  // namespace ownlm

// Calls `function` of the chosen instruction set; CALL_STORED also chooses how activations are stored.
#ifdef OWNLM_X86
#define CALL(function, ...)                                             \
    (ownlm::level == ownlm::AVX512 ? ownlm::avx512::function(__VA_ARGS__) \
     : ownlm::level == ownlm::AVX2 ? ownlm::avx2::function(__VA_ARGS__)   \
                                   : ownlm::portable::function(__VA_ARGS__))
#define IN_SET(set, statement) \
    {                          \
        using namespace ownlm::set; \
        statement;             \
    }
#define CALL_STORED(stored, statement_with_S)                                              \
    do {                                                                                   \
        if (ownlm::level == ownlm::AVX512) IN_SET(avx512, STORED(stored, statement_with_S)) \
        else if (ownlm::level == ownlm::AVX2) IN_SET(avx2, STORED(stored, statement_with_S)) \
        else IN_SET(portable, STORED(stored, statement_with_S))                            \
    } while (0)
#else
#define CALL(function, ...) ownlm::portable::function(__VA_ARGS__)
#define CALL_STORED(stored, statement_with_S)                   \
    do {                                                        \
        using namespace ownlm::portable;                        \
        STORED(stored, statement_with_S);                       \
    } while (0)
#endif
#define STORED(stored, statement_with_S) \
    if (stored == 0) {                   \
        using S = float;                 \
        statement_with_S;                \
    } else {                             \
        using S = bfloat16;              \
        statement_with_S;                \
    }
#define AS(pointer) static_cast<S*>(pointer)
#define CONST(pointer) static_cast<const S*>(pointer)

OWNLM_API int ownlm_level() { return ownlm::level; }

// Use a lower instruction set than the best one (tests compare them); returns the one in use.
OWNLM_API int ownlm_set_level(int wanted) {
    const int best = ownlm::best_level();
    ownlm::level = wanted < best ? wanted : best;
    return ownlm::level;
}

OWNLM_API void ownlm_set_runtime(void* fork, void* number) {
    ownlm::fork_threads = reinterpret_cast<ownlm::ForkFunction>(fork);
    ownlm::thread_number = reinterpret_cast<ownlm::ThreadFunction>(number);
}

OWNLM_API void ownlm_set_threads(int threads) { ownlm::num_threads = threads < 1 ? 1 : threads; }

OWNLM_API int64_t ownlm_block_rows() { return ownlm::portable::BLOCK; }

OWNLM_API void ownlm_norm_forward(int stored, const float* x, const void* branch, const float* weight,
                                  const float* bias, float* sum_out, void* out, float* means, float* scales,
                                  int64_t rows, int64_t width, float eps) {
    CALL_STORED(stored, norm_forward(x, CONST(branch), weight, bias, sum_out, AS(out), means, scales, rows, width, eps));
}

OWNLM_API void ownlm_norm_backward(int stored, const void* d_out, const float* x, const float* weight,
                                   const float* means, const float* scales, int first, float* gradient,
                                   void* gradient_stored, float* weight_partial, float* bias_partial, int64_t rows,
                                   int64_t width) {
    CALL_STORED(stored, norm_backward(CONST(d_out), x, weight, means, scales, first != 0, gradient,
                                      AS(gradient_stored), weight_partial, bias_partial, rows, width));
}

OWNLM_API void ownlm_heads_forward(int stored, const void* qkv, const float* q_weight, const float* k_weight,
                                   const float* cosine, const float* sine, void* q, void* k, void* v, float* scales,
                                   int64_t batch, int64_t length, int64_t query, int64_t shared, int64_t size,
                                   float eps) {
    CALL_STORED(stored, heads_forward(CONST(qkv), q_weight, k_weight, cosine, sine, AS(q), AS(k), AS(v), scales,
                                      Heads{batch, length, query, shared, size}, eps));
}

OWNLM_API void ownlm_heads_backward(int stored, const void* d_q, const void* d_k, const void* d_v, const void* qkv,
                                    const float* q_weight, const float* k_weight, const float* cosine,
                                    const float* sine, const float* scales, void* d_qkv, float* partial, int64_t batch,
                                    int64_t length, int64_t query, int64_t shared, int64_t size) {
    CALL_STORED(stored, heads_backward(CONST(d_q), CONST(d_k), CONST(d_v), CONST(qkv), q_weight, k_weight, cosine,
                                       sine, scales, AS(d_qkv), partial, Heads{batch, length, query, shared, size}));
}

OWNLM_API void ownlm_swap_heads(int stored, const void* from, void* to, int64_t batch, int64_t first, int64_t second,
                                int64_t size) {
    CALL_STORED(stored, swap_heads(CONST(from), AS(to), batch, first, second, size));
}

// first_keys may be null; see Seen.
OWNLM_API void ownlm_softmax_forward(int stored, void* scores, int64_t matrices, int64_t heads, int64_t queries,
                                     int64_t keys, const int64_t* first_keys, int64_t length, int64_t first_query,
                                     int64_t first_key, float scale) {
    CALL_STORED(stored, softmax_forward(AS(scores), matrices,
                                        Seen{heads, queries, keys, first_query - first_key, first_keys, length,
                                             first_query, first_key},
                                        scale));
}

OWNLM_API void ownlm_softmax_backward(int stored, const void* probabilities, void* d_p, int64_t matrices,
                                      int64_t heads, int64_t queries, int64_t keys, const int64_t* first_keys,
                                      int64_t length, int64_t first_query, int64_t first_key, float scale) {
    CALL_STORED(stored, softmax_backward(CONST(probabilities), AS(d_p), matrices,
                                         Seen{heads, queries, keys, first_query - first_key, first_keys, length,
                                              first_query, first_key},
                                         scale));
}

OWNLM_API void ownlm_swiglu_forward(int stored, const void* gate_up, void* out, int64_t rows, int64_t inner) {
    CALL_STORED(stored, swiglu_forward(CONST(gate_up), AS(out), rows, inner));
}

OWNLM_API void ownlm_swiglu_backward(int stored, const void* d_out, const void* gate_up, void* d_gate_up, int64_t rows,
                                     int64_t inner) {
    CALL_STORED(stored, swiglu_backward(CONST(d_out), CONST(gate_up), AS(d_gate_up), rows, inner));
}

OWNLM_API void ownlm_gelu_forward(int stored, const void* x, void* out, int64_t count) {
    CALL_STORED(stored, gelu_forward(CONST(x), AS(out), count));
}

OWNLM_API void ownlm_gelu_backward(int stored, const void* d_out, const void* x, void* d_x, int64_t count) {
    CALL_STORED(stored, gelu_backward(CONST(d_out), CONST(x), AS(d_x), count));
}

OWNLM_API void ownlm_cross_entropy(int stored, void* logits, const int64_t* targets, float* losses, int64_t rows,
                                   int64_t vocabulary, int64_t stride, float factor) {
    CALL_STORED(stored, cross_entropy(AS(logits), targets, losses, rows, vocabulary, stride, factor));
}

OWNLM_API void ownlm_embedding_backward(const int64_t* ids, const float* d, float* table, int64_t rows,
                                        int64_t width) {
    CALL(embedding_backward, ids, d, table, rows, width);
}

OWNLM_API void ownlm_sum_rows(int stored, const void* d, float* partial, int64_t rows, int64_t width) {
    CALL_STORED(stored, sum_rows(CONST(d), partial, rows, width));
}

OWNLM_API void ownlm_add_partials(const float* partial, int64_t blocks, int64_t width, float* total, int add) {
    CALL(add_partials, partial, blocks, width, total, add != 0);
}

OWNLM_API void ownlm_muon_momentum(int stored, const float* const* gradients, float* const* momenta, void* out,
                                   float* partial, int64_t matrices, int64_t count, float beta) {
    CALL_STORED(stored, muon_momentum(gradients, momenta, AS(out), partial, matrices, count, beta));
}

OWNLM_API void ownlm_muon_apply(int stored, float* const* weights, const void* update, int64_t matrices, int64_t count,
                                float keep, float scale) {
    CALL_STORED(stored, muon_apply(weights, CONST(update), matrices, count, keep, scale));
}

OWNLM_API int64_t ownlm_piece() { return ownlm::portable::PIECE; }

// Whether products can run on the tile unit: the processor has it, and Linux lets this process use its state.
OWNLM_API int ownlm_has_amx() {
#ifdef OWNLM_AMX
    unsigned a, b, c, d;
    constexpr unsigned AVX512_BF16 = 1u << 5;
    if (ownlm::best_level() < ownlm::AVX512 || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a & AVX512_BF16) == 0) return 0;
    return ownlm::may_use_tiles(ownlm::AMX_BF16 | ownlm::AMX_TILE);
#else
    return 0;
#endif
}

#ifdef OWNLM_AMX
namespace amx = ownlm::amx;
#define BF(pointer) static_cast<amx::bfloat16*>(pointer)
#define CONST_BF(pointer) static_cast<const amx::bfloat16*>(pointer)

OWNLM_API void ownlm_amx_product(const void* a, int64_t stride, const void* packed, const float* bias, void* out,
                                 int64_t out_stride, int64_t rows, int64_t depth, int64_t columns) {
    amx::product(CONST_BF(a), stride, CONST_BF(packed), bias, BF(out), out_stride, rows, depth, columns);
}

OWNLM_API void ownlm_amx_weight_gradient(const void* d, int64_t stride, const void* packed, float* out, int64_t tokens,
                                         int64_t columns, int64_t width, int add) {
    amx::weight_gradient(CONST_BF(d), stride, CONST_BF(packed), out, tokens, columns, width, add != 0);
}

OWNLM_API void ownlm_amx_pack(const void* x, int64_t stride, void* packed, int64_t columns, int64_t depth) {
    amx::pack(CONST_BF(x), stride, BF(packed), columns, depth);
}

OWNLM_API void ownlm_amx_pack_transposed(const void* x, int64_t stride, void* packed, int64_t columns, int64_t depth) {
    amx::pack_transposed(CONST_BF(x), stride, BF(packed), columns, depth);
}

OWNLM_API void ownlm_amx_newton_schulz(void* x, int64_t matrices, int64_t rows, int64_t columns,
                                       const float* coefficients, int64_t iterations) {
    amx::newton_schulz(BF(x), matrices, rows, columns, coefficients, iterations);
}

OWNLM_API void ownlm_amx_attention_forward(const void* q, const void* k, const void* v, void* mixed,
                                           float* normalizers, int64_t batch, int64_t heads, int64_t length,
                                           int64_t size, const int64_t* first_keys, float scale) {
    amx::attention_forward(CONST_BF(q), CONST_BF(k), CONST_BF(v), BF(mixed), normalizers,
                           amx::AttentionShape{batch, heads, length, size, first_keys, scale});
}

OWNLM_API void ownlm_amx_attention_backward(const void* q, const void* k, const void* v, const void* d_mixed,
                                            const float* normalizers, void* d_q, void* d_k, void* d_v, int64_t batch,
                                            int64_t heads, int64_t length, int64_t size, const int64_t* first_keys,
                                            float scale) {
    amx::attention_backward(CONST_BF(q), CONST_BF(k), CONST_BF(v), CONST_BF(d_mixed), normalizers, BF(d_q), BF(d_k),
                            BF(d_v), amx::AttentionShape{batch, heads, length, size, first_keys, scale});
}
#endif
