// How quickly a few threads read a buffer, again and again: the ceiling of everything that reads weights once a token.
//
//     g++ -O3 -march=native -pthread bench/read_bandwidth.cpp -o read_bandwidth
//     ./read_bandwidth BYTES THREADS SECONDS     prints bytes a second, the best pass
//
// Each thread fills and reads its own part; a pass ends when the last thread has read its part.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

typedef uint64_t Line __attribute__((vector_size(64)));
constexpr size_t kAtOnce = 8;   // lines: enough loads under way to hide the time of one
constexpr size_t kAhead = 4096; // bytes of software prefetch

static uint64_t read_all(const Line *lines, size_t count) {
    Line sums[kAtOnce] = {};
    for (size_t i = 0; i < count; i += kAtOnce)
        for (size_t j = 0; j < kAtOnce; j++) {
            __builtin_prefetch(reinterpret_cast<const char *>(lines + i + j) + kAhead);
            sums[j] += lines[i + j];
        }
    for (size_t j = 1; j < kAtOnce; j++) sums[0] += sums[j];
    return sums[0][0];
}

int main(int, char **argv) {
    const size_t bytes = strtoull(argv[1], nullptr, 10);
    const int threads = atoi(argv[2]);
    const double seconds = atof(argv[3]);
    const size_t count = bytes / sizeof(Line) / threads / kAtOnce * kAtOnce;
    std::atomic<int> arrived{0}, pass{0};
    std::atomic<bool> done{false};
    std::atomic<uint64_t> seen{0};
    auto wait_for_all = [&] {
        const int now = pass.load();
        if (arrived.fetch_add(1) + 1 == threads) {
            arrived = 0;
            pass.fetch_add(1);
        } else {
            while (pass.load() == now) __builtin_ia32_pause();
        }
    };
    double best = 1e30;
    auto work = [&](int thread) {
        Line *lines = static_cast<Line *>(aligned_alloc(4096, (count * sizeof(Line) + 2 * kAhead + 4095) / 4096 * 4096));
        memset(lines, thread + 1, count * sizeof(Line));
        const auto begin = std::chrono::steady_clock::now();
        while (true) {
            wait_for_all();
            if (done) break;
            const auto start = std::chrono::steady_clock::now();
            seen += read_all(lines, count);
            wait_for_all();
            if (thread == 0) {
                const auto now = std::chrono::steady_clock::now();
                const double taken = std::chrono::duration<double>(now - start).count();
                if (taken < best) best = taken;
                done = std::chrono::duration<double>(now - begin).count() > seconds;
            }
        }
        free(lines);
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; t++) others.emplace_back(work, t);
    work(0);
    for (auto &other : others) other.join();
    printf("%.0f\n", count * sizeof(Line) * threads / best);
    return seen == 0;  // the sums must be made
}
