// Runs the inference kernels over odd shapes, for builds with sanitizers: see test_inference_sanitizers.py.

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "engine.cpp"

static uint32_t state = 1;
static float draw() {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
}
static std::vector<float> draws(int64_t count) {
    std::vector<float> numbers(static_cast<size_t>(count));
    for (float& number : numbers) number = draw();
    return numbers;
}

struct Case {
    int64_t heads, key_heads, head_width, width, inner;
    int32_t norm, norm_after, positions, qk_norm, gated, tied;
    int64_t window;
};

constexpr int64_t VOCABULARY = 37, CONTEXT = 200, LAYERS = 2;

static void fill(void* engine, const ownlm::ModelShape& s, int64_t layer, int32_t which, int64_t outputs, int64_t inputs) {
    const std::vector<float> numbers = draws(outputs * inputs);
    const int64_t cut = outputs / 3;  // two parts that share a panel
    ownlm_inference_pack(engine, layer, which, 0, cut, 0, numbers.data(), nullptr, 2);
    ownlm_inference_pack(engine, layer, which, cut, outputs - cut, 0, numbers.data() + cut * inputs, nullptr, 2);
    (void)s;
}

static void fill_vector(void* engine, int64_t layer, int32_t which, int32_t bias, int64_t count) {
    ownlm_inference_set_vector(engine, layer, which, bias, 0, count, draws(count).data());
}

static void* make(const ownlm::ModelShape& s) {
    void* engine = ownlm_inference_create(&s);
    const int64_t query = s.heads * s.head_width, key = s.key_heads * s.head_width;
    const int32_t layer_norm = s.norm == ownlm::LAYER_NORM;
    fill(engine, s, -1, 0, s.vocabulary, s.width);
    if (!s.tied) fill(engine, s, -1, 1, s.vocabulary, s.width);
    if (s.positions == ownlm::LEARNED) fill_vector(engine, -1, 1, 0, s.context * s.width);
    for (int32_t bias = 0; bias <= layer_norm; ++bias) fill_vector(engine, -1, 0, bias, s.width);
    for (int64_t layer = 0; layer < s.layers; ++layer) {
        const int64_t up = (s.gated ? 2 : 1) * s.inner;
        fill(engine, s, layer, 0, query + 2 * key, s.width), fill_vector(engine, layer, 4, 1, query + 2 * key);
        fill(engine, s, layer, 1, s.width, query), fill_vector(engine, layer, 5, 1, s.width);
        fill(engine, s, layer, 2, up, s.width), fill_vector(engine, layer, 6, 1, up);
        fill(engine, s, layer, 3, s.width, s.inner), fill_vector(engine, layer, 7, 1, s.width);
        for (int32_t norm = 0; norm < 2; ++norm)
            for (int32_t bias = 0; bias <= layer_norm; ++bias) fill_vector(engine, layer, norm, bias, s.width);
        if (s.qk_norm == ownlm::NO_NORM) continue;
        fill_vector(engine, layer, 2, 0, s.qk_norm == ownlm::NORM_PER_HEAD ? s.head_width : query);
        fill_vector(engine, layer, 3, 0, s.qk_norm == ownlm::NORM_PER_HEAD ? s.head_width : key);
    }
    return engine;
}

struct Sequence {
    int32_t length = 0;
    std::vector<int32_t> blocks;
};

// A step of the given numbers of tokens, one for each sequence; returns a sum of the results.
static double run(void* engine, std::vector<Sequence>& sequences, const std::vector<int32_t>& counts, bool hidden,
                  int32_t adapter, int64_t width) {
    std::vector<int32_t> ids, positions, first_rows{0}, blocks, first_blocks{0}, outputs, first_outputs{0}, adapters;
    for (size_t i = 0; i < counts.size(); ++i) {
        for (int32_t t = 0; t < counts[i]; ++t) {
            ids.push_back(static_cast<int32_t>(positions.size() * 7 % VOCABULARY));
            positions.push_back(sequences[i].length + t);
            if (t % 3 != 1 && i != 1) outputs.push_back(static_cast<int32_t>(positions.size()) - 1);
        }
        sequences[i].length += counts[i];
        const int32_t needed = (sequences[i].length + 63) / 64;
        blocks.insert(blocks.end(), sequences[i].blocks.begin(), sequences[i].blocks.begin() + needed);
        first_rows.push_back(static_cast<int32_t>(ids.size())), first_blocks.push_back(static_cast<int32_t>(blocks.size()));
        first_outputs.push_back(static_cast<int32_t>(outputs.size()));
        adapters.push_back(i == 0 ? adapter : 0);
    }
    std::vector<float> out(outputs.size() * static_cast<size_t>(width));
    ownlm::StepCall call{static_cast<int64_t>(ids.size()), static_cast<int64_t>(counts.size()), ids.data(), positions.data(),
                         first_rows.data(), blocks.data(), first_blocks.data(), outputs.data(), first_outputs.data(),
                         adapters.data(), hidden, out.data()};
    if (!ownlm_inference_step(engine, &call, 2)) std::abort();
    double sum = 0;
    for (const float number : out) sum += number;
    return sum;
}

static double run_case(const Case& c, int32_t weights) {
    const int64_t windows[LAYERS] = {0, c.window};
    const uint8_t rotary[LAYERS] = {1, 0};
    const std::vector<float> cosines = draws(CONTEXT * c.head_width), sines = draws(CONTEXT * c.head_width);
    const ownlm::ModelShape shape{VOCABULARY, c.width, LAYERS, c.heads, c.key_heads, c.head_width, c.inner, CONTEXT,
                                  weights, c.norm, c.norm_after, c.positions, c.qk_norm, c.gated, 1, c.tied, 1e-5f, 0.2f,
                                  windows, rotary, cosines.data(), sines.data()};
    void* engine = make(shape);
    if (!ownlm_inference_reserve(engine, 12)) std::abort();
    const std::vector<float> down = draws(3 * c.width), up = draws(3 * c.heads * c.head_width);
    const auto adapter = static_cast<int32_t>(ownlm_inference_add_adapter(engine));
    ownlm_inference_add_delta(engine, adapter, 0, 0, 0, c.heads * c.head_width, c.width, 3, down.data(), up.data());
    std::vector<Sequence> sequences{{0, {3, 0, 7, 9}}, {0, {1, 2, 11, 10}}, {0, {8, 4, 5, 6}}};
    double sum = run(engine, sequences, {1, 1, 1}, false, 0, VOCABULARY);
    sum += run(engine, sequences, {70, 1, 5}, false, adapter, VOCABULARY);
    sum += run(engine, sequences, {1, 100, 2}, true, 0, c.width);
    sum += run(engine, sequences, {3, 1, 60}, false, 0, VOCABULARY);
    ownlm_inference_copy_block(engine, 3, 8);
    ownlm_inference_remove_adapter(engine, adapter);
    const std::vector<float> x = draws(19 * c.width);
    std::vector<float> product(19 * static_cast<size_t>((c.gated ? 2 : 1) * c.inner));
    ownlm_inference_product(engine, 1, 2, 19, x.data(), product.data(), 2);
    ownlm_inference_destroy(engine);
    return sum + product.back();
}

int main() {
    const Case cases[] = {
        {4, 2, 24, 96, 200, 0, 0, 1, 1, 1, 0, 0},   // Qwen3, nothing a multiple of 32 but the width
        {4, 4, 16, 64, 256, 1, 0, 2, 0, 0, 1, 20},  // GPT-2
        {7, 1, 10, 61, 37, 0, 1, 1, 2, 1, 1, 3},    // OLMo 2, odd
        {4, 1, 32, 128, 256, 0, 0, 1, 0, 1, 1, 0},  // Llama, whole groups
    };
    for (int level = ownlm_inference_level(); level >= 0; --level) {
        ownlm_inference_set_level(level);
        for (int32_t weights = 0; weights < 4; ++weights)
            for (const Case& c : cases) std::printf("level %d, weights %d: %g\n", level, weights, run_case(c, weights));
    }
    return 0;
}
