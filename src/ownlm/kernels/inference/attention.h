// Heads and attention over the paged cache. Included once for each instruction set.
//
// A query sees the keys of its sequence block by block, 64 at a time, from left to right. In a block: scores, their
// maximum m, p = e^(score - m), the sum of p, the values weighted with p; then blocks are merged by
//   o = o · e^(m_o - m) + o_b · e^(m_b - m),   m = max(m_o, m_b)    (Dao et al. 2022, arXiv 2205.14135, §3.1)
// A block is computed in the same way whether it is full or not, so a query's result depends on its keys alone. Queries
// of one sequence that share a key head go through the blocks together, up to 16 at a time: a tile.
// In bfloat16 queries and p are rounded to it, as the products want; p before it is summed, so that weights add up to 1.

constexpr int64_t TILE = 16;

// Halves (i, i + D/2) of a head turn by the angle of their position (Su et al. 2021, arXiv 2104.09864, eq. 34).
static inline void rotate(float* head, const float* cosines, const float* sines, int64_t width) {
    const int64_t half = width / 2;
    for (int64_t i = 0; i < half; ++i) {
        const float a = head[i], b = head[i + half];
        head[i] = a * cosines[i] - b * sines[i];
        head[i + half] = b * cosines[i] + a * sines[i];
    }
}

static inline uint16_t half_bits(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

static void keep_key_and_value(int32_t kind, const Heads& h, const float* key, const float* value, int64_t slot) {
    const int64_t width = h.cached_width;
    if (kind == FLOAT32) {
        float* keys = reinterpret_cast<float*>(h.cache);
        float* values = keys + BLOCK * width;
        for (int64_t d = 0; d < h.head_width; ++d) keys[d * BLOCK + slot] = key[d];
        for (int64_t d = 0; d < h.head_width; ++d) values[slot * width + d] = value[d];
        return;
    }
    auto* keys = reinterpret_cast<uint16_t*>(h.cache);
    uint16_t* values = keys + BLOCK * width;
    for (int64_t d = 0; d < h.head_width; ++d) keys[d / 2 * 2 * BLOCK + 2 * slot + d % 2] = half_bits(key[d]);
    uint16_t* pair = values + slot / 2 * 2 * width + slot % 2;
    for (int64_t d = 0; d < h.head_width; ++d) pair[2 * d] = half_bits(value[d]);
}

static void prepare_heads(int32_t kind, const Heads& h) {
    const int64_t width = h.head_width, half = width / 2;
    // Values that no key weighs yet are multiplied with zero: they must be numbers, whatever was here before.
    const int64_t half_block = BLOCK * h.cached_width * (kind == FLOAT32 ? 4 : 2);
    if (h.slot == 0) __builtin_memset(h.cache, 0, static_cast<size_t>(2 * half_block));
    for (int64_t row = 0; row < h.count; ++row) {
        float* qkv = h.qkv + row * h.stride;
        const float* cosines = h.cosines == nullptr ? nullptr : h.cosines + row * half;
        const float* sines = h.sines == nullptr ? nullptr : h.sines + row * half;
        for (int64_t number = 0; number <= h.shared; ++number) {
            const bool is_key = number == h.shared;
            float* head = qkv + (is_key ? h.key_offset : h.query_offset + number * width);
            const float* weight = is_key ? h.key_norm : h.query_norm;
            if (weight != nullptr) norm_row(head, Norm{const_cast<float*>(weight), nullptr}, width, h.eps, head);
            if (cosines != nullptr) rotate(head, cosines, sines, width);
        }
        keep_key_and_value(kind, h, qkv + h.key_offset, qkv + h.value_offset, h.slot + row);
    }
}

// Queries of a tile, and what is known of each after the blocks so far.
struct AttentionTile {
    int64_t count;
    int64_t first_seen[TILE], position[TILE];
    float largest[TILE], sum[TILE];
    float *queries, *scores, *weights, *mixed, *total;  // [16][cached width], [16][64] twice, [16][cached width] twice
    uint16_t *query_halves, *weight_halves;             // the same for the tile unit
};

template <class Product>
struct ScoreBlock {
    const AttentionTile& tile;
    const uint8_t* keys;
    int64_t width, depth;
    template <int R>
    inline void rows(int64_t row) const {
        for (int64_t panel = 0; panel < BLOCK / PANEL; ++panel) {
            Vec s[R];
            Product::template sums<R>(keys + panel * 64, BLOCK * 4, tile.queries + row * width, width, depth, s);
            for (int r = 0; r < R; ++r) store(tile.scores + (row + r) * BLOCK + panel * PANEL, s[r]);
        }
    }
};

template <class Product>
struct MixBlock {
    const AttentionTile& tile;
    const uint8_t* values;
    int64_t width;
    template <int R>
    inline void rows(int64_t row) const {
        for (int64_t panel = 0; panel < width / PANEL; ++panel) {
            Vec s[R];
            Product::template sums<R>(values + panel * 64, width * 4, tile.weights + row * BLOCK, BLOCK, BLOCK, s);
            for (int r = 0; r < R; ++r) store(tile.mixed + (row + r) * width + panel * PANEL, s[r]);
        }
    }
};

// p of the keys [begin, end) of the block, zero for the others; their maximum and sum.
static inline void softmax_row(const float* scores, float scale, int64_t begin, int64_t end, bool rounded, float* weights,
                               float* largest, float* sum) {
    Vec most = all(-__builtin_inff()), s[4];
    alignas(64) float lanes[BLOCK];
    for (int64_t i = 0; i < BLOCK; ++i) lanes[i] = i >= begin && i < end ? scores[i] * scale : -__builtin_inff();
    for (int i = 0; i < 4; ++i) s[i] = load(lanes + 16 * i), most = maximum(s[i], most);
    store(lanes, most);
    float m = lanes[0];
    for (int i = 1; i < 16; ++i) m = lanes[i] > m ? lanes[i] : m;
    Vec total = zero();
    for (int i = 0; i < 4; ++i) {
        Vec p = exponential(subtract(s[i], all(m)));
        if (rounded) p = round_to_half(p);
        store(lanes, p);
        for (int64_t lane = 0; lane < 16; ++lane) {
            const int64_t key = 16 * i + lane;
            if (key < begin || key >= end) lanes[lane] = 0.0f;
        }
        p = load(lanes);
        store(weights + 16 * i, p);
        total = add(total, p);
    }
    *largest = m, *sum = sum_of(total);
}

// o = o · keep + mixed · more
static inline void merge_row(AttentionTile& tile, int64_t row, float largest, float sum, int64_t width) {
    float* total = tile.total + row * width;
    const float* mixed = tile.mixed + row * width;
    if (tile.sum[row] == 0.0f) {  // the first block
        for (int64_t d = 0; d < width; d += 16) store(total + d, load(mixed + d));
        tile.largest[row] = largest, tile.sum[row] = sum;
        return;
    }
    const float most = largest > tile.largest[row] ? largest : tile.largest[row];
    alignas(64) float powers[16] = {tile.largest[row] - most, largest - most};
    store(powers, exponential(load(powers)));
    const Vec keep = all(powers[0]), more = all(powers[1]);
    for (int64_t d = 0; d < width; d += 16)
        store(total + d, multiply_add(load(total + d), keep, multiply(load(mixed + d), more)));
    tile.sum[row] = tile.sum[row] * powers[0] + sum * powers[1];
    tile.largest[row] = most;
}

// The tile's queries, rounded where the products want it; memory for the rest is cut from `scratch`.
static AttentionTile begin_tile(int32_t kind, const Attention& a, int64_t number, uint8_t* scratch) {
    AttentionTile tile;
    const int64_t width = a.cached_width, all_queries = a.row_count * a.shared, first = number * TILE;
    tile.count = all_queries - first < TILE ? all_queries - first : TILE;
    auto* floats = reinterpret_cast<float*>(scratch);
    tile.queries = floats, tile.mixed = floats + TILE * width, tile.total = floats + 2 * TILE * width;
    tile.scores = floats + 3 * TILE * width, tile.weights = tile.scores + TILE * BLOCK;
    tile.query_halves = reinterpret_cast<uint16_t*>(tile.weights + TILE * BLOCK);
    tile.weight_halves = tile.query_halves + TILE * width;
    for (int64_t i = 0; i < tile.count; ++i) {
        const int64_t row = a.rows[(first + i) / a.shared], head = a.first_head + (first + i) % a.shared;
        const float* query = a.queries + row * a.query_stride + head * a.head_width;
        tile.position[i] = a.positions[row];
        tile.first_seen[i] = a.window > 0 && a.positions[row] >= a.window ? a.positions[row] - a.window + 1 : 0;
        tile.sum[i] = 0.0f, tile.largest[i] = 0.0f;
        for (int64_t d = 0; d < width; d += 16) {
            const Vec part = load_first(query + d, a.head_width - d < 0 ? 0 : a.head_width - d);
            store(tile.queries + i * width + d, kind == FLOAT32 ? part : round_to_half(part));
#ifdef OWNLM_TILES
            store_halves(tile.query_halves + i * width + d, part);
#endif
        }
    }
    return tile;
}

static inline void finish_tile(const Attention& a, const AttentionTile& tile, int64_t number) {
    for (int64_t i = 0; i < tile.count; ++i) {
        const int64_t query = number * TILE + i;
        float* out = a.out + query / a.shared * a.out_stride + (a.first_head + query % a.shared) * a.head_width;
        const Vec inverse = all(1.0f / tile.sum[i]);
        for (int64_t d = 0; d < a.head_width; d += 16)
            store_first(out + d, multiply(load(tile.total + i * a.cached_width + d), inverse), a.head_width - d);
    }
}

static void attend_tile(int32_t kind, const Attention& a, int64_t number, uint8_t* scratch) {
    AttentionTile tile = begin_tile(kind, a, number, scratch);
    const int64_t width = a.cached_width;
#ifdef OWNLM_TILES
    const bool on_tiles = kind != FLOAT32 && tile.count >= FEWEST_ON_TILES;
    const TileUse use(PAIR_CONFIG);
#endif
    int64_t first = tile.first_seen[0];
    for (int64_t i = 1; i < tile.count; ++i) first = tile.first_seen[i] < first ? tile.first_seen[i] : first;
    for (int64_t block = first / BLOCK; block <= tile.position[tile.count - 1] / BLOCK; ++block) {
        const uint8_t* keys = a.cache + a.blocks[block] * a.block_bytes;
        const uint8_t* values = keys + BLOCK * width * (kind == FLOAT32 ? 4 : 2);
#ifdef OWNLM_TILES
        if (on_tiles) scores_on_tiles(tile.query_halves, keys, width, tile.scores);
        else
#endif
        if (kind == FLOAT32) rows_in_blocks<Floats::ROWS>(tile.count, ScoreBlock<Floats>{tile, keys, width, a.head_width});
        else rows_in_blocks<Pairs::ROWS>(tile.count, ScoreBlock<Pairs>{tile, keys, width, width});
        float largest[TILE], sum[TILE];
        bool seen[TILE];
        for (int64_t i = 0; i < tile.count; ++i) {
            const int64_t begin = tile.first_seen[i] - block * BLOCK, end = tile.position[i] + 1 - block * BLOCK;
            seen[i] = begin < BLOCK && end > 0;
            softmax_row(tile.scores + i * BLOCK, a.scale, begin, end, kind != FLOAT32, tile.weights + i * BLOCK,
                        largest + i, sum + i);
#ifdef OWNLM_TILES
            if (on_tiles)
                for (int64_t key = 0; key < BLOCK; key += 16)
                    store_halves(tile.weight_halves + i * BLOCK + key, load(tile.weights + i * BLOCK + key));
#endif
        }
#ifdef OWNLM_TILES
        if (on_tiles) mix_on_tiles(tile.weight_halves, values, width, tile.mixed);
        else
#endif
        if (kind == FLOAT32) rows_in_blocks<Floats::ROWS>(tile.count, MixBlock<Floats>{tile, values, width});
        else rows_in_blocks<Pairs::ROWS>(tile.count, MixBlock<Pairs>{tile, values, width});
        for (int64_t i = 0; i < tile.count; ++i)
            if (seen[i]) merge_row(tile, i, largest[i], sum[i], width);
    }
    finish_tile(a, tile, number);
}
