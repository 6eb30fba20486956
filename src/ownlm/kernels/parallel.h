// Loops over rows, shared out among the threads of the OpenMP runtime that the caller already uses.
//
// The library links no runtime of its own: two pools of spinning threads on the same cores would slow both down.
// The caller hands over GOMP_parallel and omp_get_thread_num of the one that torch has loaded; without them a loop
// runs on the calling thread.
#pragma once

#include <cstdint>

namespace ownlm {

using ForkFunction = void (*)(void (*)(void*), void*, unsigned, unsigned);
using ThreadFunction = int (*)();

extern ForkFunction fork_threads;
extern ThreadFunction thread_number;
extern int num_threads;

// `count` floats, at the beginning of a cache line, that belong to the calling thread until its next call.
float* scratch(int64_t count);

template <class Body>
struct Loop {
    const Body* body;
    int64_t count;
    int64_t threads;
};

template <class Body>
void run_share(void* data) {
    const auto* loop = static_cast<const Loop<Body>*>(data);
    const int64_t me = thread_number();
    const int64_t begin = loop->count * me / loop->threads, end = loop->count * (me + 1) / loop->threads;
    if (begin < end) (*loop->body)(begin, end);
}

// body(begin, end) for shares of [0, count). Results must not depend on where the shares are cut.
template <class Body>
void parallel_for(int64_t count, const Body& body) {
    const int64_t threads = num_threads < count ? num_threads : count;
    if (threads <= 1 || fork_threads == nullptr) {
        if (count > 0) body(int64_t{0}, count);
        return;
    }
    Loop<Body> loop{&body, count, threads};
    fork_threads(run_share<Body>, &loop, static_cast<unsigned>(threads), 0);
}

}  // namespace ownlm
