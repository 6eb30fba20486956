// What a model is for the kernels: shapes, packed weights, small float vectors. Nothing here computes.
//
// C width, V vocabulary, H query heads, G key (and value) heads, D head width, I inner width of the MLP.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "memory.h"

namespace ownlm {

constexpr int64_t BLOCK = 64;   // tokens of a cache block
constexpr int64_t GROUP = 32;   // weights with one scale; also what the tile unit sums up before it adds
constexpr int64_t PANEL = 16;   // outputs that lie together in packed weights

enum WeightKind { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3 };
enum NormKind { RMS_NORM = 0, LAYER_NORM = 1 };
enum Positions { NO_POSITIONS = 0, ROTARY = 1, LEARNED = 2 };
enum QueryKeyNorm { NO_NORM = 0, NORM_PER_HEAD = 1, NORM_FULL_WIDTH = 2 };
enum Activation { SILU = 0, GELU = 1, GELU_TANH = 2, RELU = 3, RELU_SQUARED = 4 };

// Filled by kernels/inference.py; the fields and their order are part of the interface.
struct ModelShape {
    int64_t vocabulary, width, layers, heads, key_heads, head_width, inner, context;
    int32_t weights, norm, norm_after, positions, qk_norm, gated, activation, tied;
    float norm_eps, attention_scale;
    const int64_t* windows;        // [layers] tokens a query sees, itself included; 0: all
    const uint8_t* rotary_layers;  // [layers]
    const float* cosines;          // [context, D / 2]; owned by the caller, as all pointers here
    const float* sines;
};

// y = x Wᵀ (+ bias). W [outputs, inputs] is packed in panels of 16 outputs, so that 64 bytes hold for each of them
//   float32:  one weight                                   panel: [inputs][16]
//   bfloat16: two, of inputs 2k and 2k + 1                 panel: [groups of 32][16 pairs][16][2]
//   int8:     four, of inputs 4k … 4k + 3                  panel: [groups / 2] of: float16 scales [2][16],
//                                                                 [2 groups][8 quads][16][4]
//   int4:     eight, inputs 8k … 8k + 3 in the low halves  panel: the same with [2 groups][4 eights][16][4]
//             of bytes and 8k + 4 … 8k + 7 in the high ones, as q + 8
// Outputs are filled up with zeros to 16, inputs to 32 (bfloat16) or 64 (int8, int4).
struct Matrix {
    int32_t kind = FLOAT32;
    int64_t outputs = 0, inputs = 0, groups = 0, panels = 0, panel_bytes = 0;
    uint8_t* data = nullptr;
    float* bias = nullptr;  // [panels * 16], or null

    Matrix() = default;
    Matrix(int32_t kind, int64_t outputs, int64_t inputs)
        : kind(kind), outputs(outputs), inputs(inputs), panels((outputs + PANEL - 1) / PANEL) {
        groups = (inputs + GROUP - 1) / GROUP;
        if (kind == INT8 || kind == INT4) groups += groups % 2;
        panel_bytes = kind == FLOAT32    ? inputs * 64
                      : kind == BFLOAT16 ? groups * 1024
                      : kind == INT8     ? groups / 2 * PAIR_INT8
                                         : groups / 2 * PAIR_INT4;
    }
    int64_t bytes() const { return panels * panel_bytes; }
    const uint8_t* panel(int64_t number) const { return data + number * panel_bytes; }

    static constexpr int64_t PAIR_INT8 = 64 + 1024, PAIR_INT4 = 64 + 512;
};

// Values that multiply a row: float weights of norms, filled up with zeros to 16.
struct Norm {
    float *weight = nullptr, *bias = nullptr;
};

struct Layer {
    Matrix qkv, output, up, down;  // `up` holds gate and up one after the other when the MLP is gated
    Norm before_attention, before_mlp, query, key;  // the first two: on the output where norm_after
};

// What an adapter adds to outputs [first, first + outputs) of a matrix: y += (x Aᵀ) Bᵀ, in float32 (Hu et al. 2021, arXiv
// 2106.09685, eq. 3).
struct Delta {
    const Matrix* matrix;
    int64_t first, outputs, inputs, rank;
    std::vector<float> down, up;  // A [rank, inputs], Bᵀ [rank, outputs]
};
using Adapter = std::vector<Delta>;

struct Cache {
    Region memory;
    int64_t blocks = 0;
};

class Model {
  public:
    explicit Model(const ModelShape& given);

    int64_t query_width() const { return shape.heads * shape.head_width; }
    int64_t key_width() const { return shape.key_heads * shape.head_width; }
    int64_t value_bytes() const { return shape.weights == FLOAT32 ? 4 : 2; }
    // Head width as the cache keeps it, filled up with zeros for the kernels.
    int64_t cached_width() const { return round_up(shape.head_width, shape.weights == FLOAT32 ? 16 : GROUP); }
    // Keys of a block [cached width][64] (bfloat16: [cached width / 2][64][2]), then values [64][cached width]
    // (bfloat16: [32][cached width][2]), of one layer and head.
    int64_t head_bytes() const { return 2 * BLOCK * cached_width() * value_bytes(); }
    int64_t layer_bytes() const { return shape.key_heads * head_bytes(); }
    int64_t weight_bytes() const { return arena_->used(); }
    int64_t block_bytes() const { return shape.layers * layer_bytes(); }
    uint8_t* cached(int64_t block, int64_t layer, int64_t head) const {
        return cache.memory.data() + block * block_bytes() + layer * layer_bytes() + head * head_bytes();
    }
    const Matrix& head_matrix() const { return shape.tied ? embedding : head; }

    ModelShape shape;
    std::vector<int64_t> windows;
    std::vector<uint8_t> rotary_layers;
    std::vector<Layer> layers;
    Matrix embedding, head;
    Norm final_norm;
    float* position_table = nullptr;  // [context, C], learned positions
    Cache cache;
    std::vector<Adapter> adapters;  // by number, from 1; one that was removed is empty

  private:
    void plan();
    void place(Matrix& matrix, bool with_bias);
    void place(Norm& norm, int64_t width, bool with_bias);
    float* place_floats(int64_t count);

    std::unique_ptr<Arena> arena_;  // null while sizes are added up
    int64_t needed_ = 0;
};

inline Model::Model(const ModelShape& given) : shape(given) {
    windows.assign(given.windows, given.windows + given.layers);
    rotary_layers.assign(given.rotary_layers, given.rotary_layers + given.layers);
    layers.resize(static_cast<size_t>(given.layers));
    plan();
    arena_ = std::make_unique<Arena>(needed_);
    plan();
}

inline void Model::plan() {
    const int32_t kind = shape.weights;
    const int64_t width = shape.width, query = query_width(), key = key_width();
    const bool layer_norm = shape.norm == LAYER_NORM;
    embedding = Matrix(kind, shape.vocabulary, width);
    place(embedding, false);
    if (!shape.tied) {
        head = Matrix(kind, shape.vocabulary, width);
        place(head, false);
    }
    if (shape.positions == LEARNED) position_table = place_floats(shape.context * width);
    for (Layer& layer : layers) {
        layer.qkv = Matrix(kind, query + 2 * key, width);
        layer.output = Matrix(kind, width, query);
        layer.up = Matrix(kind, (shape.gated ? 2 : 1) * shape.inner, width);
        layer.down = Matrix(kind, width, shape.inner);
        for (Matrix* matrix : {&layer.qkv, &layer.output, &layer.up, &layer.down}) place(*matrix, true);
        place(layer.before_attention, width, layer_norm);
        place(layer.before_mlp, width, layer_norm);
        if (shape.qk_norm != NO_NORM) {
            place(layer.query, shape.qk_norm == NORM_PER_HEAD ? shape.head_width : query, false);
            place(layer.key, shape.qk_norm == NORM_PER_HEAD ? shape.head_width : key, false);
        }
    }
    place(final_norm, width, layer_norm);
}

inline void Model::place(Matrix& matrix, bool with_bias) {
    if (arena_ != nullptr) matrix.data = arena_->take(matrix.bytes());
    needed_ += round_up(matrix.bytes(), LINE);
    if (with_bias) matrix.bias = place_floats(matrix.panels * PANEL);
}

inline void Model::place(Norm& norm, int64_t width, bool with_bias) {
    norm.weight = place_floats(round_up(width, PANEL));
    if (with_bias) norm.bias = place_floats(round_up(width, PANEL));
}

inline float* Model::place_floats(int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(float));
    needed_ += round_up(bytes, LINE);
    return arena_ == nullptr ? nullptr : reinterpret_cast<float*>(arena_->take(bytes));
}

}  // namespace ownlm
