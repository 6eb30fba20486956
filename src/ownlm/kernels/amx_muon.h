// Newton–Schulz iterations (Jordan et al. 2024) on the tile unit: each thread takes whole matrices, which then stay in its
// cache. Included with amx.h.

static inline void pack_all_transposed(const bfloat16* x, int64_t columns, int64_t depth, bfloat16* packed) {
    for (int64_t first = 0; first < columns; first += PANEL)
        pack_transposed_panel(x, depth, columns, first, depth, packed + first * depth);
}

static inline void pack_all(const bfloat16* x, int64_t columns, int64_t depth, bfloat16* packed) {
    for (int64_t first = 0; first < columns; first += PANEL)
        pack_panel(x, columns, columns, first, 0, depth, packed + first * depth);
}

static inline void transpose_all(const bfloat16* x, int64_t rows, int64_t columns, bfloat16* out) {
    for (int64_t row = 0; row < rows; row += 32)
        for (int64_t column = 0; column < columns; column += 16)
            transpose_piece(x + row * columns + column, columns, out + column * rows + row, rows, 16);
}

// out [rows, columns] = A [rows, depth] · B, with what Finish says of the first row's addend.
static inline void whole_product(const bfloat16* a, const bfloat16* packed, bfloat16* out, int64_t rows, int64_t depth,
                                 int64_t columns, const bfloat16* addend, float alpha, float beta) {
    Writer writer;
    for (int64_t row = 0; row < rows; row += 32) {
        const bfloat16* here = addend == nullptr ? nullptr : addend + row * columns;
        stored_rows(writer, a + row * depth, depth, packed, depth, 0, depth, out + row * columns, columns, columns, 32,
                    Finish{nullptr, here, columns, alpha, beta});
    }
}

// out [side, side] = alpha · A · B + beta · addend, which is known to be symmetric: what stands right of the diagonal is
// computed and mirrored. The mirrored numbers are the same bits: equal products added in the same order.
static inline void symmetric_product(const bfloat16* a, const bfloat16* packed, bfloat16* out, int64_t side,
                                     int64_t depth, const bfloat16* addend, float alpha, float beta) {
    {
        Writer writer;
        for (int64_t row = 0; row < side; row += 32) {
            const int64_t corner = row * side + row;
            const bfloat16* here = addend == nullptr ? nullptr : addend + corner;
            stored_rows(writer, a + row * depth, depth, packed + row * depth, depth, 0, depth, out + corner, side,
                        side - row, 32, Finish{nullptr, here, side, alpha, beta});
        }
    }
    for (int64_t row = 0; row < side; row += 32)
        for (int64_t column = row + 32; column < side; column += 16)
            transpose_piece(out + row * side + column, side, out + column * side + row, side, 16);
}

// In place: x [matrices, rows, columns], both multiples of 32, Frobenius norm one. With A = x xᵀ of a wide matrix each
// iteration makes x = (a + b·A + c·A²)·x of it, with A = xᵀ x of a tall one x·(a + b·A + c·A²); coefficients:
// [iterations, 3].
static void newton_schulz(bfloat16* x, int64_t matrices, int64_t rows, int64_t columns, const float* coefficients,
                          int64_t iterations) {
    parallel_for(matrices, [=](int64_t begin, int64_t end) {
        TileUse tiles;
        const bool tall = rows > columns;
        const int64_t side = tall ? columns : rows, area = rows * columns;
        bfloat16* gram = reinterpret_cast<bfloat16*>(scratch((3 * side * side + 3 * area) / 2));
        bfloat16 *polynomial = gram + side * side, *packed_gram = polynomial + side * side;
        bfloat16 *packed = packed_gram + side * side, *turned = packed + area, *next = turned + area;
        for (int64_t matrix = begin; matrix < end; ++matrix) {
            bfloat16 *from = x + matrix * area, *to = next;
            for (int64_t i = 0; i < iterations; ++i) {
                const float a = coefficients[3 * i], b = coefficients[3 * i + 1], c = coefficients[3 * i + 2];
                if (tall) {
                    transpose_all(from, rows, columns, turned);
                    pack_all(from, columns, rows, packed);
                    symmetric_product(turned, packed, gram, side, rows, nullptr, 1.0f, 0.0f);
                } else {
                    pack_all_transposed(from, rows, columns, packed);
                    symmetric_product(from, packed, gram, side, columns, nullptr, 1.0f, 0.0f);
                }
                pack_all(gram, side, side, packed_gram);
                symmetric_product(gram, packed_gram, polynomial, side, side, gram, c, b);
                if (tall) {
                    pack_all(polynomial, side, side, packed_gram);
                    whole_product(from, packed_gram, to, rows, side, side, from, 1.0f, a);
                } else {
                    pack_all(from, columns, rows, packed);
                    whole_product(polynomial, packed, to, side, side, columns, from, 1.0f, a);
                }
                bfloat16* other = from;
                from = to;
                to = other;
            }
            if (from != x + matrix * area) memcpy(x + matrix * area, from, 2 * area);
        }
    });
}
