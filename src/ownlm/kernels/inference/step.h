// One step of the whole model: rows of tokens in, logits or hidden states of the wanted ones out.
//
// All threads run `work` together. Between two meetings they share out rows, panels of weights or heads; what is computed
// for a row never depends on the other rows, on who computes it, or on how many rows there are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "call.h"
#include "embedding.h"
#include "kernels.h"
#include "model.h"
#include "threads.h"

namespace ownlm {

class Step {
  public:
    Step(const Model& model, Workspace& space, const Kernels& kernels, Team& team, const StepCall& call);
    void work(int thread);

  private:
    struct Part {  // rows that are computed on, out of those of the step
        const int32_t *rows, *first;  // of the step's rows; [pieces + 1] where those of a piece begin
        const std::vector<int64_t>* tiles;
        int64_t count;

        int64_t piece_of(int64_t row) const {
            int64_t piece = 0;
            while (first[piece + 1] <= row) ++piece;
            return piece;
        }
    };

    static int64_t pieces_of(int64_t count, int64_t threads) { return (count + 4 * threads - 1) / (4 * threads); }
    void plan();
    void take_memory();
    std::vector<int64_t>& count_tiles(const int32_t* first, std::vector<int64_t>& tiles) const;
    Rows rows_of(int64_t width, int64_t count, Forms& forms) const {
        return rows_in(forms, shape_.weights, width, count, kernels_.tile_rows);
    }
    uint8_t* mine(int thread) const { return own_ + thread * own_bytes_; }
    int64_t panels_at_once(const Matrix& matrix) const;
    int64_t columns_at_once(int64_t count) const;
    // What one thread may do without waiting for another between two products.
    bool activates_at_once() const { return !adapted_ && shape_.inner % GROUP == 0; }
    bool keeps_at_once() const { return shape_.head_width % GROUP == 0; }
    bool prepares_at_once(const Part& part) const {
        return call_.rows == call_.pieces && part.count == call_.rows && shape_.heads / shape_.key_heads <= 16;
    }

    void embed();
    void enter(int thread, float* x, const int32_t* gather, int64_t count, bool add, const Norm* after, const Norm* norm);
    void multiply(int thread, const Matrix& matrix, const Rows& x, float* out, int64_t out_stride);
    void adapt(int thread, const Matrix& matrix, const float* x, int64_t stride, const Part& part, float* out,
               int64_t out_stride);
    void norm_full_width(const Layer& layer);
    void prepare(int64_t number);
    void prepare_heads(int64_t number, const Segment& segment, int64_t head);
    void attend(int thread, int64_t number, const Part& part);
    void attend_tile(int thread, int64_t number, const Part& part, int64_t tile, int64_t head, const Rows& kept);
    void multiply_and_activate(int thread, const Layer& layer, const Rows& x, const Rows& to);
    void activate(int thread, const Rows& to);
    void keep(const Rows& to);
    void finish(int thread, float* x, int64_t count);

    const Model& model_;
    const ModelShape& shape_;
    Workspace& space_;
    const Kernels& kernels_;
    Team& team_;
    const StepCall& call_;
    Part all_, wanted_;
    int64_t width_, qkv_width_, inner_width_, exact_stride_, own_bytes_;
    bool adapted_ = false;
    float *x_, *kept_, *qkv_, *mixed_, *branch_;
    float* inner_ = nullptr;  // gate and up, where they are not activated at once
    float* exact_ = nullptr;  // what is multiplied, as it was before it was rounded; kept for adapters alone
    uint8_t* own_;
};

inline Step::Step(const Model& model, Workspace& space, const Kernels& kernels, Team& team, const StepCall& call)
    : model_(model), shape_(model.shape), space_(space), kernels_(kernels), team_(team), call_(call) {
    plan();
    take_memory();
}

inline void Step::take_memory() {
    const int64_t rows = call_.rows, wide = std::max({shape_.width, model_.query_width(), shape_.inner});
    width_ = round_up(shape_.width, PANEL), qkv_width_ = model_.layers[0].qkv.panels * PANEL;
    inner_width_ = model_.layers[0].up.panels * PANEL;
    x_ = space_.x.at_least(rows * width_), kept_ = space_.kept.at_least(wanted_.count * width_);
    qkv_ = space_.qkv.at_least(rows * qkv_width_), mixed_ = space_.mixed.at_least(rows * model_.query_width());
    branch_ = space_.branch.at_least(rows * width_);
    for (int64_t piece = 0; piece < call_.pieces; ++piece) adapted_ = adapted_ || call_.adapters[piece] != 0;
    exact_stride_ = round_up(std::max(shape_.width, shape_.inner), PANEL);
    if (adapted_) exact_ = space_.exact.at_least(rows * exact_stride_);
    if (!activates_at_once()) inner_ = space_.inner.at_least(rows * inner_width_);
    const int64_t tile = 16 * (3 * model_.cached_width() + 2 * BLOCK) * 6, unpacked = round_up(wide, 64) * PANEL;
    const int64_t active = unpacked + columns_at_once(rows) * rows * 2 * 4;
    own_bytes_ = round_up(std::max({tile, active, wide * 4 + 64}), 4096);
    own_ = space_.threads.at_least(own_bytes_ * team_.threads());
    for (const int64_t count : {rows, wanted_.count})  // the threads find all that they ask for
        for (Forms* forms : {&space_.entering, &space_.inside}) rows_of(wide, count, *forms);
}

inline void Step::plan() {
    space_.segments.clear(), space_.all_rows.clear();
    for (int64_t piece = 0; piece < call_.pieces; ++piece)
        for (int32_t row = call_.first_rows[piece]; row < call_.first_rows[piece + 1]; ++row) {
            const auto slot = static_cast<int32_t>(call_.positions[row] % BLOCK);
            if (row > call_.first_rows[piece] && slot != 0) {
                ++space_.segments.back().count;
                continue;
            }
            const int32_t block = call_.blocks[call_.first_blocks[piece] + call_.positions[row] / BLOCK];
            space_.segments.push_back({row, 1, block, slot});
        }
    for (int64_t row = 0; row < call_.rows; ++row) space_.all_rows.push_back(static_cast<int32_t>(row));
    all_ = {space_.all_rows.data(), call_.first_rows, &count_tiles(call_.first_rows, space_.tiles), call_.rows};
    wanted_ = {call_.outputs, call_.first_outputs, &count_tiles(call_.first_outputs, space_.last_tiles),
               call_.first_outputs[call_.pieces]};
}

inline std::vector<int64_t>& Step::count_tiles(const int32_t* first, std::vector<int64_t>& tiles) const {
    const int64_t shared = shape_.heads / shape_.key_heads;
    tiles.assign(1, 0);
    for (int64_t piece = 0; piece < call_.pieces; ++piece)
        tiles.push_back(tiles.back() + ((first[piece + 1] - first[piece]) * shared + 15) / 16);
    return tiles;
}

inline void Step::work(int thread) {
    embed();
    float* x = x_;
    const int64_t query = model_.query_width();
    for (int64_t number = 0; number < shape_.layers; ++number) {
        const Layer& layer = model_.layers[number];
        const bool last = number + 1 == shape_.layers, after = shape_.norm_after != 0;
        const Part& part = last ? wanted_ : all_;  // of the last layer only what is asked for
        enter(thread, x, nullptr, all_.count, number > 0, after && number > 0 ? &model_.layers[number - 1].before_mlp : nullptr,
              after ? nullptr : &layer.before_attention);
        multiply(thread, layer.qkv, rows_of(shape_.width, all_.count, space_.entering), qkv_, qkv_width_);
        adapt(thread, layer.qkv, exact_, exact_stride_, all_, qkv_, qkv_width_);
        norm_full_width(layer);
        if (!prepares_at_once(part)) prepare(number);
        if (part.count == 0) return;
        attend(thread, number, part);
        const Rows mixed = rows_of(query, part.count, space_.inside);
        if (!keeps_at_once()) keep(mixed);
        multiply(thread, layer.output, mixed, branch_, width_);
        adapt(thread, layer.output, mixed_, query, part, branch_, width_);
        enter(thread, x, last ? part.rows : nullptr, part.count, true, after ? &layer.before_attention : nullptr,
              after ? nullptr : &layer.before_mlp);
        if (last) x = kept_;
        const Rows entering = rows_of(shape_.width, part.count, space_.entering);
        const Rows inside = rows_of(shape_.inner, part.count, space_.inside);
        if (activates_at_once()) {
            multiply_and_activate(thread, layer, entering, inside);
        } else {
            multiply(thread, layer.up, entering, inner_, inner_width_);
            adapt(thread, layer.up, exact_, exact_stride_, part, inner_, inner_width_);
            activate(thread, inside);
        }
        multiply(thread, layer.down, inside, branch_, width_);
        adapt(thread, layer.down, exact_, exact_stride_, part, branch_, width_);
    }
    finish(thread, x, wanted_.count);
}

}  // namespace ownlm

#include "phases.h"
