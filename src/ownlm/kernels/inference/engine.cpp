// Inference for the CPU behind a C interface: a model's packed weights and cache, and one call for a step of all of it.
//
// Functions are called through ctypes (kernels/inference.py). No header of torch or Python.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <vector>

#include "levels.h"
#include "step.h"

namespace ownlm {

// Numbers below 2^-126 count as zero on this thread while it lives: the tile unit knows no others, and they are slow.
class Denormals {
  public:
#ifdef OWNLM_X86
    Denormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
    ~Denormals() { _mm_setcsr(before_); }

  private:
    unsigned before_;
#endif
};

struct Engine {
    explicit Engine(const ModelShape& shape) : model(shape) {}
    Model model;
    Workspace space;
};

// layer -1: 0 embedding, 1 head; else 0 q, k, v; 1 output; 2 gate and up; 3 down
static Matrix& matrix_of(Engine& engine, int64_t layer, int32_t which) {
    if (layer < 0) return which == 0 ? engine.model.embedding : engine.model.head;
    Layer& found = engine.model.layers[layer];
    return which == 0 ? found.qkv : which == 1 ? found.output : which == 2 ? found.up : found.down;
}

// layer -1: 0 final norm, 1 position table; else 0 attention norm, 1 MLP norm, 2 query norm, 3 key norm, 4 + matrix: bias.
static float* vector_of(Engine& engine, int64_t layer, int32_t which, bool bias) {
    if (layer < 0 && which == 1) return engine.model.position_table;
    if (layer >= 0 && which >= 4) return matrix_of(engine, layer, which - 4).bias;
    Layer* found = layer < 0 ? nullptr : &engine.model.layers[layer];
    const Norm& norm = layer < 0    ? engine.model.final_norm
                       : which == 0 ? found->before_attention
                       : which == 1 ? found->before_mlp
                       : which == 2 ? found->query
                                    : found->key;
    return bias ? norm.bias : norm.weight;
}

}  // namespace ownlm

using ownlm::Engine;

OWNLM_API int ownlm_inference_level() { return ownlm::level; }

// Use a lower instruction set than the best one; returns the one in use.
OWNLM_API int ownlm_inference_set_level(int wanted) {
    const int best = ownlm::best_level();
    ownlm::level = wanted < best ? wanted : best;
    return ownlm::level;
}

// A model with memory for its weights, all zero; null when there is not enough memory.
OWNLM_API void* ownlm_inference_create(const ownlm::ModelShape* shape) {
    try {
        return new Engine(*shape);
    } catch (const std::exception&) {
        return nullptr;
    }
}

OWNLM_API void ownlm_inference_destroy(void* engine) { delete static_cast<Engine*>(engine); }

// Rows of a matrix (see `matrix_of`) from weights of the given source (weights.h) [count, inputs], beginning with output `first`.
OWNLM_API void ownlm_inference_pack(void* engine, int64_t layer, int32_t which, int64_t first, int64_t count,
                                    int32_t source, const void* weights, const void* scales, int threads) {
    struct Job {
        const ownlm::Matrix& matrix;
        int64_t first, count;
        int32_t source;
        const void *weights, *scales;
        ownlm::Team& team;
    };
    ownlm::TeamLock lock(threads);
    Job job{ownlm::matrix_of(*static_cast<Engine*>(engine), layer, which), first, count, source, weights, scales, lock.team()};
    lock.team().run([](void* context, int) {
        const Job& j = *static_cast<Job*>(context);
        const int64_t begin = j.first / ownlm::PANEL, end = (j.first + j.count + ownlm::PANEL - 1) / ownlm::PANEL;
        j.team.share(end - begin, 4, [&](int64_t from, int64_t to) {
            ownlm::kernels().pack(j.matrix, j.first, j.count, j.source, j.weights, j.scales, begin + from, begin + to);
        });
    }, &job);
}

// Numbers [first, first + count) of a vector (see `vector_of`).
OWNLM_API void ownlm_inference_set_vector(void* engine, int64_t layer, int32_t which, int32_t bias, int64_t first,
                                          int64_t count, const float* values) {
    float* to = ownlm::vector_of(*static_cast<Engine*>(engine), layer, which, bias != 0);
    std::memcpy(to + first, values, static_cast<size_t>(count) * sizeof(float));
}

// Memory for so many cache blocks, all zero; 0 when there is not enough.
OWNLM_API int ownlm_inference_reserve(void* engine, int64_t blocks) {
    auto& model = static_cast<Engine*>(engine)->model;
    try {
        model.cache.memory = ownlm::Region(blocks * model.block_bytes());
        model.cache.blocks = blocks;
        return 1;
    } catch (const std::exception&) {
        return 0;
    }
}

OWNLM_API int64_t ownlm_inference_block_bytes(void* engine) { return static_cast<Engine*>(engine)->model.block_bytes(); }

OWNLM_API int64_t ownlm_inference_weight_bytes(void* engine) { return static_cast<Engine*>(engine)->model.weight_bytes(); }

OWNLM_API void ownlm_inference_copy_block(void* engine, int64_t source, int64_t target) {
    auto& model = static_cast<Engine*>(engine)->model;
    const int64_t bytes = model.block_bytes();
    std::memcpy(model.cache.memory.data() + target * bytes, model.cache.memory.data() + source * bytes,
                static_cast<size_t>(bytes));
}

// Room for an adapter; gives its number.
OWNLM_API int64_t ownlm_inference_add_adapter(void* engine) {
    auto& adapters = static_cast<Engine*>(engine)->model.adapters;
    if (adapters.empty()) adapters.emplace_back();  // 0: none
    adapters.emplace_back();
    return static_cast<int64_t>(adapters.size()) - 1;
}

OWNLM_API void ownlm_inference_remove_adapter(void* engine, int64_t number) {
    static_cast<Engine*>(engine)->model.adapters[number] = ownlm::Adapter();
}

// One layer of an adapter: A [rank, inputs] and Bᵀ [rank, outputs], for outputs from `first` on of a matrix.
OWNLM_API void ownlm_inference_add_delta(void* engine, int64_t number, int64_t layer, int32_t which, int64_t first,
                                         int64_t outputs, int64_t inputs, int64_t rank, const float* down,
                                         const float* up) {
    auto& e = *static_cast<Engine*>(engine);
    const ownlm::Matrix& matrix = ownlm::matrix_of(e, layer, which);
    e.model.adapters[number].push_back({&matrix, first, outputs, inputs, rank, std::vector<float>(down, down + rank * inputs),
                                        std::vector<float>(up, up + rank * outputs)});
}

// out [rows, outputs] = x [rows, inputs] Wᵀ (+ bias) of one matrix, as a step computes it: to test and to measure.
OWNLM_API void ownlm_inference_product(void* engine, int64_t layer, int32_t which, int64_t count, const float* x,
                                       float* out, int threads) {
    auto& e = *static_cast<Engine*>(engine);
    struct Job {
        const ownlm::Matrix& matrix;
        ownlm::Rows rows;
        float* out;
        ownlm::Team& team;
        std::vector<ownlm::Region> scratch;
    };
    ownlm::TeamLock lock(threads);
    const ownlm::Matrix& matrix = ownlm::matrix_of(e, layer, which);
    const ownlm::Kernels& kernels = ownlm::kernels();
    Job job{matrix, ownlm::rows_in(e.space.entering, matrix.kind, matrix.inputs, count, kernels.tile_rows), out, lock.team(), {}};
    for (int64_t row = 0; row < count; ++row)
        kernels.store_row(matrix.kind, x + row * matrix.inputs, job.rows, row, 0, matrix.inputs);
    for (int thread = 0; thread < lock.team().threads(); ++thread) job.scratch.emplace_back(ownlm::round_up(matrix.inputs, 64) * 16);
    lock.team().run([](void* context, int thread) {
        const ownlm::Denormals no_denormals;
        Job& j = *static_cast<Job*>(context);
        j.team.share(j.matrix.panels, 4, [&](int64_t begin, int64_t end) {
            ownlm::kernels().linear(j.matrix, j.rows, j.out + begin * 16, j.matrix.outputs, begin, end, j.scratch[thread].data());
        });
    }, &job);
}

// Computes a step on so many threads; 0 when there is not enough memory, and nothing was computed.
OWNLM_API int ownlm_inference_step(void* engine, const ownlm::StepCall* call, int threads) {
    auto& e = *static_cast<Engine*>(engine);
    ownlm::TeamLock lock(threads);
    try {
        ownlm::Step step(e.model, e.space, ownlm::kernels(), lock.team(), *call);
        lock.team().run([](void* context, int thread) {
            const ownlm::Denormals no_denormals;
            static_cast<ownlm::Step*>(context)->work(thread);
        }, &step);
        return 1;
    } catch (const std::exception&) {
        return 0;
    }
}
