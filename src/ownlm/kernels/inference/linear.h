// y = x Wᵀ (+ bias) for panels of 16 outputs, without the tile unit. Included once for each instruction set.

static inline void store_columns(float* out, Vec sums, const float* bias, int64_t columns) {
    if (bias != nullptr) sums = add(sums, load(bias));
    if (columns >= PANEL) {
        store(out, sums);
        return;
    }
    alignas(64) float all_columns[PANEL];
    store(all_columns, sums);
    for (int64_t c = 0; c < columns; ++c) out[c] = all_columns[c];
}

// One panel for all rows.
struct PanelBlock {
    const Matrix& matrix;
    const Rows& x;
    const uint8_t* panel;
    const float* bias;
    float* out;
    int64_t out_stride, columns;

    template <int R>
    inline void keep(int64_t row, const Vec s[R]) const {
        for (int r = 0; r < R; ++r) store_columns(out + (row + r) * out_stride, s[r], bias, columns);
    }
};

template <class Product>
struct FloatBlock : PanelBlock {
    template <int R>
    inline void rows(int64_t row) const {
        Vec s[R];
        const int64_t depth = matrix.kind == FLOAT32 ? matrix.inputs : matrix.groups * GROUP;
        Product::template sums<R>(panel, 64, x.floats + row * x.stride, x.stride, depth, s);
        keep<R>(row, s);
    }
};

template <class Int>
struct WholeBlock : PanelBlock {
    template <int R>
    inline void rows(int64_t row) const {
        Vec s[R];
        whole_sums<Int, R>(panel, matrix.groups, x, row, s);
        keep<R>(row, s);
    }
};

static inline PanelBlock panel_block(const Matrix& matrix, const Rows& x, float* out, int64_t out_stride, int64_t panel) {
    return {matrix, x, matrix.panel(panel), matrix.bias == nullptr ? nullptr : matrix.bias + panel * PANEL, out, out_stride,
            matrix.outputs - panel * PANEL};
}

static void linear_without_tiles(const Matrix& matrix, const Rows& x, float* out, int64_t out_stride, int64_t first,
                                 int64_t last) {
    for (int64_t panel = first; panel < last; ++panel) {
        const PanelBlock block = panel_block(matrix, x, out + (panel - first) * PANEL, out_stride, panel);
        switch (matrix.kind) {
            case FLOAT32: rows_in_blocks<Floats::ROWS>(x.count, FloatBlock<Floats>{block}); break;
            case BFLOAT16: rows_in_blocks<Pairs::ROWS>(x.count, FloatBlock<Pairs>{block}); break;
            case INT8: rows_in_blocks<WHOLE_ROWS>(x.count, WholeBlock<Int8>{block}); break;
            default: rows_in_blocks<WHOLE_ROWS>(x.count, WholeBlock<Int4>{block}); break;
        }
    }
}
