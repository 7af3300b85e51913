// A pool of threads, teams of them that meet at barriers, and the memory of their tasks.

#pragma once

#include <sys/mman.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace {

constexpr int SPINS = 1000;  // some ten microseconds, before a waiting thread gives up its processor

// Where the threads of a team meet. The work between two meetings is short, so a waiting thread spins; if that takes
// too long, because other programs use the processor too, it goes to sleep.
class Barrier {
  public:
    void meet(int size) {
        if (size == 1) return;
        const int round = round_.load(std::memory_order_acquire);
        if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            waiting_.store(0, std::memory_order_relaxed);
            std::unique_lock<std::mutex> hold(lock_);
            round_.store(round + 1, std::memory_order_release);
            const bool wake = sleeping_ > 0;
            hold.unlock();
            if (wake) all_here_.notify_all();
            return;
        }
        for (int spins = 0; spins < SPINS; ++spins) {
            if (round_.load(std::memory_order_acquire) != round) return;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        std::unique_lock<std::mutex> hold(lock_);
        ++sleeping_;
        all_here_.wait(hold, [&] { return round_.load(std::memory_order_relaxed) != round; });
        --sleeping_;
    }

  private:
    alignas(64) std::atomic<int> waiting_{0};
    alignas(64) std::atomic<int> round_{0};
    std::mutex lock_;
    std::condition_variable all_here_;
    int sleeping_ = 0;
};

struct Team {
    int rank, size;
    Barrier* barrier;

    void meet() const { barrier->meet(size); }
    int from(int n) const { return int(std::int64_t(n) * rank / size); }
    int to(int n) const { return int(std::int64_t(n) * (rank + 1) / size); }
};

// Threads that are created once; run(n, work) calls work(0) ... work(n - 1), work(0) on the calling thread.
class Pool {
  public:
    void run(int threads, void (*work)(void*, int), void* context) {
        while (int(threads_.size()) < threads - 1) threads_.emplace_back(&Pool::serve, this, int(threads_.size()) + 1);
        {
            std::lock_guard<std::mutex> hold(lock_);
            work_ = work, context_ = context, wanted_ = threads, running_ = threads - 1, ++job_;
        }
        if (threads > 1) started_.notify_all();
        work(context, 0);
        std::unique_lock<std::mutex> hold(lock_);
        ended_.wait(hold, [this] { return running_ == 0; });
    }

  private:
    void serve(int rank) {
        long seen = 0;
        std::unique_lock<std::mutex> hold(lock_);
        seen = rank < wanted_ ? job_ - 1 : job_;
        for (;;) {
            started_.wait(hold, [&] { return job_ != seen; });
            seen = job_;
            if (rank >= wanted_) continue;
            hold.unlock();
            work_(context_, rank);
            hold.lock();
            if (--running_ == 0) ended_.notify_one();
        }
    }

    std::mutex lock_;
    std::condition_variable started_, ended_;
    std::vector<std::thread> threads_;
    void (*work_)(void*, int) = nullptr;
    void* context_ = nullptr;
    int wanted_ = 0, running_ = 0;
    long job_ = 0;
};

// Memory of one thread's current task, reused by later calls and enlarged when too small.
class Arena {
  public:
    Arena() = default;
    Arena(const Arena&) = delete;
    ~Arena() { std::free(memory_); }

    char* of(std::size_t bytes) {
        if (bytes > size_) {
            std::free(memory_);
            size_ = 0;
            const std::size_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
            memory_ = std::aligned_alloc(HUGE_PAGE, rounded);
            if (memory_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
            madvise(memory_, rounded, MADV_HUGEPAGE);
#endif
            size_ = rounded;
        }
        return static_cast<char*>(memory_);
    }

  private:
    static constexpr std::size_t HUGE_PAGE = 2 * 1024 * 1024;
    void* memory_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace
