// A team of threads that work on one step together: they wait for work spinning, and sleep when none comes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace ownlm {

inline void pause_briefly() {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_ia32_pause();
#endif
}

inline int64_t process_number() {
#if defined(__unix__) || defined(__APPLE__)
    return getpid();
#else
    return 0;
#endif
}

class Team {
  public:
    using Work = void (*)(void* context, int thread);

    // `work(context, thread)` on all threads, the caller being the first; returns when all are done.
    void run(Work work, void* context) {
        work_ = work, context_ = context;
        if (threads_ > 1) {
            {
                const std::lock_guard<std::mutex> hold(mutex_);  // else a worker that is going to sleep would miss it
                jobs_.fetch_add(1, std::memory_order_release);
            }
            wake_.notify_all();
        }
        work(context, 0);
        meet();
    }

    // body(begin, end) for pieces of [0, count) of `piece` each, whoever is free taking the next; then all wait for all.
    // Which thread takes which piece varies: results must not depend on it.
    template <class Body>
    void share(int64_t count, int64_t piece, const Body& body) {
        if (count <= piece) {
            // One piece: who comes first takes it.
            if (count > 0 && next_.fetch_add(1, std::memory_order_relaxed) == 0) body(int64_t{0}, count);
        } else {
            for (;;) {
                const int64_t begin = next_.fetch_add(piece, std::memory_order_relaxed);
                if (begin >= count) break;
                body(begin, begin + piece < count ? begin + piece : count);
            }
        }
        meet();
    }

    int threads() const { return threads_; }

    // Workers end at a job without work; then the new ones begin, as many as the system lets begin.
    void resize(int threads) {
        if (threads == threads_) return;
        if (threads_ > 1) {
            work_ = nullptr;
            {
                const std::lock_guard<std::mutex> hold(mutex_);
                jobs_.fetch_add(1, std::memory_order_release);
            }
            wake_.notify_all();
            meet();
        }
        const int64_t seen = jobs_.load();
        for (threads_ = 1; threads_ < threads; ++threads_) {
            try {
                std::thread(&Team::work_on, this, threads_, seen).detach();
            } catch (const std::system_error&) {
                return;
            }
        }
    }

  private:
    static constexpr int SPINS_FOR_WORK = 8'000;  // 0.1 to 0.4 ms: longer than the caller takes between two steps
    static constexpr int SPINS_AT_MEETING = 8'000;

    // A barrier; the last to come makes the counter of `share` ready for the next use.
    void meet() {
        if (threads_ == 1) {
            next_.store(0, std::memory_order_relaxed);
            return;
        }
        const int64_t meeting = meetings_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            next_.store(0, std::memory_order_relaxed);
            meetings_.fetch_add(1, std::memory_order_release);
            return;
        }
        for (int spins = 0; meetings_.load(std::memory_order_acquire) == meeting; ++spins) {
            if (spins < SPINS_AT_MEETING) pause_briefly();
            else std::this_thread::yield();  // another program has the processor that the last one needs
        }
    }

    void work_on(int thread, int64_t seen) {
        for (;;) {
            for (int spins = 0; spins < SPINS_FOR_WORK && jobs_.load(std::memory_order_acquire) == seen; ++spins) pause_briefly();
            if (jobs_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> hold(mutex_);
                wake_.wait(hold, [&] { return jobs_.load(std::memory_order_acquire) != seen; });
            }
            seen = jobs_.load(std::memory_order_acquire);
            if (work_ == nullptr) break;
            work_(context_, thread);
            meet();
        }
        meet();
    }

    alignas(LINE) std::atomic<int64_t> jobs_{0};
    alignas(LINE) std::atomic<int64_t> next_{0};
    alignas(LINE) std::atomic<int> arrived_{0};
    alignas(LINE) std::atomic<int64_t> meetings_{0};
    Work work_ = nullptr;
    void* context_ = nullptr;
    int threads_ = 1;
    std::mutex mutex_;
    std::condition_variable wake_;
};

// The one team of this process, for one step at a time. It is never destroyed: its threads may sleep until the very end.
class TeamLock {
  public:
    explicit TeamLock(int threads) : hold_(lock()) {
        static int64_t made_in = -1;
        if (made_in != process_number()) {  // a forked process has none of the threads
            made_in = process_number();
            team_ = new Team();
        }
        team_->resize(threads);
    }
    Team& team() { return *team_; }

  private:
    static std::mutex& lock() {
        static auto* mutex = new std::mutex();
        return *mutex;
    }
    std::lock_guard<std::mutex> hold_;
    static inline Team* team_ = nullptr;
};

}  // namespace ownlm
