// The table of kernels: one for each instruction set, all with the same arithmetic.
#pragma once

#include <cstdint>

#include "model.h"

namespace ownlm {

// Rows of numbers as the weights want them to be multiplied: float32, rounded to bfloat16, or whole numbers in groups of
// 32 with a scale. A row is filled up with zeros to whole groups; `stride` numbers lie between two rows.
struct Rows {
    int64_t count = 0, padded = 0, width = 0, groups = 0, stride = 0;  // padded: the count, filled up to 16
    float* floats = nullptr;     // FLOAT32, and BFLOAT16 where no tile unit is used: rounded
    uint16_t* halves = nullptr;  // BFLOAT16 for the tile unit
    int8_t* bytes = nullptr;     // INT8, INT4
    float* scales = nullptr;     // [groups, padded]: those of 16 rows lie together
    int32_t* sums = nullptr;     // [groups, padded] of the bytes of a group
};

// Where a chunk of queries attends to: one sequence, one key head.
struct Attention {
    const float* queries;      // [rows of the step, query_stride], heads side by side
    int64_t query_stride;
    const int32_t* positions;  // [rows of the step]
    const int32_t* rows;       // the rows of the step that attend, of one sequence, ascending
    int64_t row_count;
    float* out;                // [row_count, out_stride], heads side by side
    int64_t out_stride;
    const uint8_t* cache;      // of block 0, this layer and key head
    const int32_t* blocks;     // of the sequence
    int64_t block_bytes;
    int64_t first_head, shared;  // the query heads of this key head
    int64_t head_width, cached_width, window;
    float scale;
};

// Tokens of one sequence in one cache block, one key head: their queries and keys are normalised and turned in place,
// keys and values go into the cache.
struct Heads {
    float* qkv;              // first row; query heads, key heads, value heads side by side
    int64_t stride, count;
    int64_t query_offset, shared, key_offset, value_offset;
    const float *cosines, *sines;  // of the first row's position, or null
    const float *query_norm, *key_norm;  // per head, or null
    float eps;
    int64_t head_width, cached_width;
    uint8_t* cache;          // this block, layer and head
    int64_t slot;            // of the first row
};

struct Kernels {
    // Rows from which on the tile unit multiplies bfloat16; it wants them stored otherwise. Beyond any number: no unit.
    int64_t tile_rows;
    // Panels [first, last) of a product; `out` is where the first panel's columns of row 0 go.
    void (*linear)(const Matrix& matrix, const Rows& x, float* out, int64_t out_stride, int64_t first_panel,
                   int64_t last_panel, uint8_t* scratch);
    void (*store_row)(int32_t kind, const float* from, const Rows& to, int64_t row, int64_t first, int64_t count);
    void (*norm)(const float* x, const Norm& norm, int64_t width, float eps, float* out);
    void (*add)(float* x, const float* more, int64_t width);
    void (*activate)(int32_t activation, const float* x, const float* factor, int64_t width, float* out);
    void (*adapt)(const Delta& delta, const float* x, float* y, float* middle);
    void (*heads)(int32_t kind, const Heads& heads);
    void (*attend)(int32_t kind, const Attention& attention, int64_t tile, uint8_t* scratch);
    void (*pack)(const Matrix& matrix, int64_t first_output, int64_t count, int32_t source, const void* weights,
                 const void* scales, int64_t first_panel, int64_t last_panel);
};

constexpr int64_t NO_TILES = int64_t{1} << 62;

}  // namespace ownlm
