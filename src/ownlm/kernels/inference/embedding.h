// One row of packed weights as floats: what the embedding of a token is.
#pragma once

#include <cstdint>
#include <cstring>

#include "halves.h"
#include "model.h"

namespace ownlm {

inline void embed_row(const Matrix& table, int64_t id, float* to) {
    const int64_t lane = id % PANEL;
    const uint8_t* panel = table.panel(id / PANEL);
    for (int64_t c = 0; c < table.inputs; ++c) {
        if (table.kind == FLOAT32) {
            to[c] = reinterpret_cast<const float*>(panel)[c * PANEL + lane];
        } else if (table.kind == BFLOAT16) {
            const uint32_t bits = static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(panel)[c / 2 * 32 + 2 * lane + c % 2]) << 16;
            std::memcpy(to + c, &bits, 4);
        } else {
            const int64_t group = c / GROUP, k = c % GROUP;
            const bool wide = table.kind == INT8;
            const uint8_t* pair = panel + group / 2 * (wide ? Matrix::PAIR_INT8 : Matrix::PAIR_INT4);
            const uint8_t* weights = pair + 64 + group % 2 * (wide ? 512 : 256);
            const float scale = float_of_half(reinterpret_cast<const uint16_t*>(pair)[group % 2 * PANEL + lane]);
            const uint8_t byte = wide ? weights[k / 4 * 64 + 4 * lane + k % 4] : weights[k / 8 * 64 + 4 * lane + k % 4];
            to[c] = scale * static_cast<float>(wide ? static_cast<int8_t>(byte) : (k % 8 < 4 ? byte & 15 : byte >> 4) - 8);
        }
    }
}

}  // namespace ownlm
