// What happens between two meetings of a step's threads (step.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "step.h"

namespace ownlm {

inline void Step::embed() {
    team_.share(call_.rows, pieces_of(call_.rows, team_.threads()), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            embed_row(model_.embedding, call_.ids[row], x_ + row * width_);
            if (shape_.positions != LEARNED) continue;
            const float* position = model_.position_table + call_.positions[row] * shape_.width;
            kernels_.add(x_ + row * width_, position, shape_.width);
        }
    });
}

// x += branch; then x, normalised or not, is kept as the next product wants it. With `gather` those rows of x go on alone.
inline void Step::enter(int thread, float* x, const int32_t* gather, int64_t count, bool add, const Norm* after,
                        const Norm* norm) {
    const Rows rows = rows_of(shape_.width, count, space_.entering);
    auto* normed = reinterpret_cast<float*>(mine(thread));
    team_.share(count, pieces_of(count, team_.threads()), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            float *to = x + row * width_, *branch = branch_ + row * width_;
            if (gather != nullptr) {
                to = kept_ + row * width_;
                std::memcpy(to, x + gather[row] * width_, static_cast<size_t>(shape_.width) * sizeof(float));
            }
            if (add && after != nullptr) kernels_.norm(branch, *after, shape_.width, shape_.norm_eps, branch);
            if (add) kernels_.add(to, branch, shape_.width);
            if (norm != nullptr) kernels_.norm(to, *norm, shape_.width, shape_.norm_eps, normed);
            const float* kept = norm != nullptr ? normed : to;
            kernels_.store_row(shape_.weights, kept, rows, row, 0, shape_.width);
            if (adapted_) std::memcpy(exact_ + row * exact_stride_, kept, static_cast<size_t>(shape_.width) * sizeof(float));
        }
    });
}

// Panels that a thread takes at once: enough for memory to run at its full speed, few enough for all threads to get some.
inline int64_t Step::panels_at_once(const Matrix& matrix) const {
    constexpr int64_t STREAM = 64 << 10;
    const int64_t most = round_up(pieces_of(matrix.panels, team_.threads()), 2);
    return std::max<int64_t>(2, std::min(round_up((STREAM + matrix.panel_bytes - 1) / matrix.panel_bytes, 2), most));
}

inline void Step::multiply(int thread, const Matrix& matrix, const Rows& x, float* out, int64_t out_stride) {
    team_.share(matrix.panels, panels_at_once(matrix), [&](int64_t begin, int64_t end) {
        kernels_.linear(matrix, x, out + begin * PANEL, out_stride, begin, end, mine(thread));
    });
}

// Columns of the MLP's inside that are computed for `count` rows before they are activated: they stay in the cache.
inline int64_t Step::columns_at_once(int64_t count) const {
    constexpr int64_t NUMBERS = 8192;
    const int64_t most = std::min(NUMBERS / std::max<int64_t>(count, 1), panels_at_once(model_.layers[0].up) * PANEL);
    return std::max(GROUP, most / GROUP * GROUP);
}

inline void Step::multiply_and_activate(int thread, const Layer& layer, const Rows& x, const Rows& to) {
    const int64_t at_once = columns_at_once(x.count);
    uint8_t* unpacked = mine(thread);
    auto* gate = reinterpret_cast<float*>(unpacked + round_up(std::max(shape_.width, shape_.inner), 64) * PANEL);
    float* up = gate + at_once * x.count;
    team_.share(shape_.inner / GROUP, at_once / GROUP, [&](int64_t begin, int64_t end) {
        for (int64_t first = begin * GROUP; first < end * GROUP; first += at_once) {
            const int64_t columns = std::min(at_once, end * GROUP - first), panel = first / PANEL, panels = columns / PANEL;
            const int64_t other = panel + shape_.inner / PANEL;
            kernels_.linear(layer.up, x, gate, columns, panel, panel + panels, unpacked);
            if (shape_.gated) kernels_.linear(layer.up, x, up, columns, other, other + panels, unpacked);
            for (int64_t row = 0; row < x.count; ++row) {
                float* active = gate + row * columns;
                kernels_.activate(shape_.activation, active, shape_.gated ? up + row * columns : nullptr, columns, active);
                kernels_.store_row(shape_.weights, active, to, row, first, columns);
            }
        }
    });
}

inline void Step::adapt(int thread, const Matrix& matrix, const float* x, int64_t stride, const Part& part, float* out,
                        int64_t out_stride) {
    if (!adapted_) return;
    auto* middle = reinterpret_cast<float*>(mine(thread));
    team_.share(part.count, pieces_of(part.count, team_.threads()), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int32_t number = call_.adapters[part.piece_of(row)];
            if (number == 0) continue;
            for (const Delta& delta : model_.adapters[number])
                if (delta.matrix == &matrix) kernels_.adapt(delta, x + row * stride, out + row * out_stride, middle);
        }
    });
}

inline void Step::norm_full_width(const Layer& layer) {
    if (shape_.qk_norm != NORM_FULL_WIDTH) return;
    team_.share(call_.rows, pieces_of(call_.rows, team_.threads()), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            float* query = qkv_ + row * qkv_width_;
            float* key = query + model_.query_width();
            kernels_.norm(query, layer.query, model_.query_width(), shape_.norm_eps, query);
            kernels_.norm(key, layer.key, model_.key_width(), shape_.norm_eps, key);
        }
    });
}

inline void Step::prepare(int64_t number) {
    const int64_t items = static_cast<int64_t>(space_.segments.size()) * shape_.key_heads;
    team_.share(items, pieces_of(items, team_.threads()), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item)
            prepare_heads(number, space_.segments[item / shape_.key_heads], item % shape_.key_heads);
    });
}

inline void Step::prepare_heads(int64_t number, const Segment& segment, int64_t head) {
    const Layer& layer = model_.layers[number];
    const int64_t width = shape_.head_width, shared = shape_.heads / shape_.key_heads;
    const int64_t at = call_.positions[segment.row] * (width / 2);
    Heads heads{};
    heads.qkv = qkv_ + segment.row * qkv_width_, heads.stride = qkv_width_, heads.count = segment.count;
    heads.query_offset = head * shared * width, heads.shared = shared;
    heads.key_offset = model_.query_width() + head * width;
    heads.value_offset = heads.key_offset + model_.key_width();
    if (shape_.positions == ROTARY && model_.rotary_layers[number] != 0)
        heads.cosines = shape_.cosines + at, heads.sines = shape_.sines + at;
    if (shape_.qk_norm == NORM_PER_HEAD) heads.query_norm = layer.query.weight, heads.key_norm = layer.key.weight;
    heads.eps = shape_.norm_eps, heads.head_width = width, heads.cached_width = model_.cached_width();
    heads.cache = model_.cached(segment.block, number, head), heads.slot = segment.slot;
    kernels_.heads(shape_.weights, heads);
}

inline void Step::attend(int thread, int64_t number, const Part& part) {
    const Rows kept = rows_of(model_.query_width(), part.count, space_.inside);
    const bool prepares = prepares_at_once(part);
    team_.share(part.tiles->back() * shape_.key_heads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t tile = item / shape_.key_heads, head = item % shape_.key_heads;
            if (prepares) prepare_heads(number, space_.segments[tile], head);  // each piece has one row and one tile
            attend_tile(thread, number, part, tile, head, kept);
        }
    });
}

inline void Step::attend_tile(int thread, int64_t number, const Part& part, int64_t tile, int64_t head, const Rows& kept) {
    int64_t piece = 0;
    while ((*part.tiles)[piece + 1] <= tile) ++piece;
    const int64_t first = part.first[piece], width = shape_.head_width, query_width = model_.query_width();
    Attention a{};
    a.queries = qkv_, a.query_stride = qkv_width_, a.positions = call_.positions;
    a.rows = part.rows + first, a.row_count = part.first[piece + 1] - first;
    a.out = mixed_ + first * query_width, a.out_stride = query_width;
    a.cache = model_.cached(0, number, head), a.blocks = call_.blocks + call_.first_blocks[piece];
    a.block_bytes = model_.block_bytes(), a.shared = shape_.heads / shape_.key_heads, a.first_head = head * a.shared;
    a.head_width = width, a.cached_width = model_.cached_width();
    a.window = model_.windows[number], a.scale = shape_.attention_scale;
    const int64_t begin = (tile - (*part.tiles)[piece]) * 16, end = std::min(begin + 16, a.row_count * a.shared);
    kernels_.attend(shape_.weights, a, begin / 16, mine(thread));
    if (!keeps_at_once()) return;
    for (int64_t query = begin; query < end; ++query) {
        const int64_t row = first + query / a.shared, column = (a.first_head + query % a.shared) * width;
        kernels_.store_row(shape_.weights, mixed_ + row * query_width + column, kept, row, column, width);
    }
}

inline void Step::activate(int thread, const Rows& to) {
    constexpr int64_t COLUMNS = 512;  // a multiple of the groups
    auto* active = reinterpret_cast<float*>(mine(thread));
    const int64_t parts = (shape_.inner + COLUMNS - 1) / COLUMNS, items = to.count * parts;
    team_.share(items, pieces_of(items, team_.threads()), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t row = item / parts, first = item % parts * COLUMNS;
            const int64_t columns = std::min(COLUMNS, shape_.inner - first);
            const float* gate = inner_ + row * inner_width_ + first;
            kernels_.activate(shape_.activation, gate, shape_.gated ? gate + shape_.inner : nullptr, columns, active);
            kernels_.store_row(shape_.weights, active, to, row, first, columns);
            float* exact = exact_ + row * exact_stride_ + first;
            if (adapted_) std::memcpy(exact, active, static_cast<size_t>(columns) * sizeof(float));
        }
    });
}

inline void Step::keep(const Rows& to) {
    team_.share(to.count, pieces_of(to.count, team_.threads()), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
            kernels_.store_row(shape_.weights, mixed_ + row * to.width, to, row, 0, to.width);
    });
}

inline void Step::finish(int thread, float* x, int64_t count) {
    const Norm* after = shape_.norm_after ? &model_.layers.back().before_mlp : nullptr;
    if (call_.hidden == 0) {
        enter(thread, x, nullptr, count, true, after, &model_.final_norm);
        multiply(thread, model_.head_matrix(), rows_of(shape_.width, count, space_.entering), call_.out, shape_.vocabulary);
        adapt(thread, model_.head_matrix(), exact_, exact_stride_, wanted_, call_.out, shape_.vocabulary);
        return;
    }
    team_.share(count, pieces_of(count, team_.threads()), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            float *to = x + row * width_, *branch = branch_ + row * width_;
            if (after != nullptr) kernels_.norm(branch, *after, shape_.width, shape_.norm_eps, branch);
            kernels_.add(to, branch, shape_.width);
            kernels_.norm(to, model_.final_norm, shape_.width, shape_.norm_eps, call_.out + row * shape_.width);
        }
    });
}

}  // namespace ownlm
