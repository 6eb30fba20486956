// Memory of weights, cache and scratch: zeroed, aligned to cache lines, in huge pages where the system has them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

namespace ownlm {

constexpr int64_t LINE = 64;

inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Zeroed bytes that are given back to the system when the region goes. Pages are taken when they are first written.
class Region {
  public:
    Region() = default;
    explicit Region(int64_t bytes) : bytes_(bytes) {
#if (defined(__unix__) || defined(__APPLE__)) && !defined(__SANITIZE_ADDRESS__)
        constexpr int64_t HUGE_PAGE = int64_t{2} << 20;
        reserved_ = round_up(bytes, 4096) + (bytes >= HUGE_PAGE ? HUGE_PAGE : 0);
        whole_ = mmap(nullptr, static_cast<size_t>(reserved_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (whole_ == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<uint8_t*>(whole_);
        if (bytes >= HUGE_PAGE) {
            data_ = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<intptr_t>(whole_), HUGE_PAGE));
#ifdef MADV_HUGEPAGE
            madvise(data_, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
        }
#else
        whole_ = std::calloc(1, static_cast<size_t>(bytes + LINE));  // a heap block of this size: overruns can be found
        if (whole_ == nullptr) throw std::bad_alloc();
        data_ = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<intptr_t>(whole_), LINE));
#endif
    }
    Region(const Region&) = delete;
    Region(Region&& other) noexcept { *this = static_cast<Region&&>(other); }
    Region& operator=(Region&& other) noexcept {
        release();
        data_ = other.data_, whole_ = other.whole_, bytes_ = other.bytes_, reserved_ = other.reserved_;
        other.data_ = nullptr, other.whole_ = nullptr, other.bytes_ = 0;
        return *this;
    }
    ~Region() { release(); }

    uint8_t* data() const { return data_; }
    int64_t bytes() const { return bytes_; }

  private:
    void release() {
        if (whole_ == nullptr) return;
#if (defined(__unix__) || defined(__APPLE__)) && !defined(__SANITIZE_ADDRESS__)
        munmap(whole_, static_cast<size_t>(reserved_));
#else
        std::free(whole_);
#endif
        whole_ = nullptr;
    }

    uint8_t* data_ = nullptr;
    void* whole_ = nullptr;
    int64_t bytes_ = 0, reserved_ = 0;
};

// Pieces of one region of a size that is known from the start: small matrices share huge pages.
class Arena {
  public:
    explicit Arena(int64_t bytes) {
#ifndef __SANITIZE_ADDRESS__
        regions_.emplace_back(bytes);
#else
        (void)bytes;
#endif
    }

    uint8_t* take(int64_t bytes) {
#ifndef __SANITIZE_ADDRESS__
        uint8_t* place = regions_[0].data() + used_;
#else
        uint8_t* place = regions_.emplace_back(bytes).data();  // a block of its own: overruns can be found
#endif
        used_ += round_up(bytes, LINE);
        return place;
    }
    int64_t used() const { return used_; }

  private:
    std::vector<Region> regions_;
    int64_t used_ = 0;
};

// Memory that grows when more is asked for, and then stays; its content is lost when it grows.
template <class T>
class Scratch {
  public:
    T* at_least(int64_t count) {
        const int64_t bytes = round_up(count * static_cast<int64_t>(sizeof(T)), LINE);
        if (bytes > region_.bytes()) region_ = Region(bytes);
        return reinterpret_cast<T*>(region_.data());
    }

  private:
    Region region_;
};

}  // namespace ownlm
