// What one call of the interface computes, and the memory it computes in.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace ownlm {

// What is to be computed; filled by kernels/inference.py. Piece p has the rows [first_rows[p], first_rows[p + 1]).
struct StepCall {
    int64_t rows, pieces;
    const int32_t *ids, *positions;                                       // [rows]
    const int32_t *first_rows, *blocks, *first_blocks;                    // [pieces + 1], [..], [pieces + 1]
    const int32_t *outputs, *first_outputs;                               // [first_outputs[pieces]] rows; [pieces + 1]
    const int32_t* adapters;                                              // [pieces]; 0: none
    int32_t hidden;                                                       // 1: hidden states, 0: logits
    float* out;                                                           // [outputs, V or C]
};

// Rows of one sequence in one cache block.
struct Segment {
    int32_t row, count, block, slot;
};

// Rows in the form of `Rows` (kernels.h).
struct Forms {
    Scratch<float> floats, scales;
    Scratch<uint16_t> halves;
    Scratch<int8_t> bytes;
    Scratch<int32_t> sums;
};

// An odd number of cache lines from row to row: 16 rows that are read together lie in different places of the cache.
inline Rows rows_in(Forms& forms, int32_t kind, int64_t width, int64_t count, int64_t tile_rows) {
    Rows rows;
    rows.count = count, rows.padded = round_up(count, 16), rows.width = width, rows.groups = round_up(width, 2 * GROUP) / GROUP;
    rows.stride = rows.groups * GROUP + (rows.groups % 4 == 0 ? 2 * GROUP : 0);
    const int64_t all = rows.padded * rows.stride, scales = rows.padded * rows.groups;
    if (kind == FLOAT32 || (kind == BFLOAT16 && count < tile_rows)) rows.floats = forms.floats.at_least(all);
    else if (kind == BFLOAT16) rows.halves = forms.halves.at_least(all);
    else rows.bytes = forms.bytes.at_least(all), rows.scales = forms.scales.at_least(scales), rows.sums = forms.sums.at_least(scales);
    return rows;
}

// Memory of a step, kept for the next one.
struct Workspace {
    Scratch<float> x, kept, qkv, mixed, inner, branch, exact;
    Forms entering, inside;  // what enters attention and MLP; what leaves heads and activations
    Scratch<uint8_t> threads;
    std::vector<Segment> segments;
    std::vector<int32_t> all_rows;
    std::vector<int64_t> tiles, last_tiles;  // [pieces + 1] tiles of queries before each piece; of the last layer
};

}  // namespace ownlm
