// The kernels of one instruction set. No include guard on purpose: see engine.cpp.

#ifdef OWNLM_TILES
static void linear(const Matrix& matrix, const Rows& x, float* out, int64_t out_stride, int64_t first, int64_t last,
                   uint8_t* scratch) {
    const bool on_tiles = matrix.kind != FLOAT32 && x.count >= FEWEST_ON_TILES;
    if (on_tiles) linear_on_tiles(matrix, x, out, out_stride, first, last, scratch);
    else linear_without_tiles(matrix, x, out, out_stride, first, last);
}
static const Kernels KERNELS = {FEWEST_ON_TILES, linear, store_row, norm_row, add_row, activate_row, adapt_row, prepare_heads,
                                attend_tile, pack_panels};
#else
static void linear(const Matrix& matrix, const Rows& x, float* out, int64_t out_stride, int64_t first, int64_t last,
                   uint8_t*) {
    linear_without_tiles(matrix, x, out, out_stride, first, last);
}
static const Kernels KERNELS = {NO_TILES, linear, store_row, norm_row, add_row, activate_row, adapt_row, prepare_heads,
                                attend_tile, pack_panels};
#endif
