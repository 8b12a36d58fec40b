#pragma once
/// A small thread pool: an executor for hosts that have none. Optional; nothing else in the library starts threads.
///
/// Work is claimed in pieces from one atomic word, the caller's thread included, and the caller waits only for pieces
/// that somebody has claimed. So a worker that the operating system did not schedule costs nothing, and one that lost its
/// processor in the middle costs at most one piece.
#include <phi4flash/core/executor.hpp>
#include <phi4flash/core/result.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>
#include <vector>
#if defined(__cpp_exceptions)
#include <system_error>
#endif

PHI4FLASH_BEGIN

/// `threads` in all: the calling one and `threads` - 1 workers, which sleep when there is nothing to do. `run` is for one caller at a
/// time. Movable while nothing runs; the destructor joins the workers.
class thread_pool {
public:
    /// 0 means one thread for each processor. Errors: invalid_argument above 1024; out_of_memory, also when the system
    /// refuses a thread (which, built without exceptions, ends the program inside the standard library).
    static result<thread_pool> create(std::size_t threads) {
        if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
        if (threads > max_threads) return error::format(errc::invalid_argument, "threads: want 0 to %zu, have %zu", max_threads, threads);
        thread_pool pool;
        pool.shared_.reset(new (std::nothrow) shared);
        if (!pool.shared_) return error::format(errc::out_of_memory, "cannot take memory for a pool of %zu threads", threads);
        for (std::size_t i = 1; i < threads; ++i) {
#if defined(__cpp_exceptions)
            try {
                pool.workers_.emplace_back(&work, pool.shared_.get());
            } catch (const std::system_error&) {
                return error::format(errc::out_of_memory, "the system refused thread %zu of %zu", i + 1, threads);
            }
#else
            pool.workers_.emplace_back(&work, pool.shared_.get());
#endif
        }
        return pool;
    }

    thread_pool(thread_pool&&) = default;
    thread_pool& operator=(thread_pool&&) = delete;
    ~thread_pool() {
        if (!shared_) return;
        shared_->stopping.store(true, std::memory_order_relaxed);
        shared_->epoch.fetch_add(1, std::memory_order_release);
        shared_->epoch.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    [[nodiscard]] std::size_t concurrency() const { return workers_.size() + 1; }

    /// See the executor concept.
    void run(std::size_t count, std::size_t grain, void (*body)(void*, std::size_t, std::size_t), void* context) {
        // A few pieces a thread: enough to even out, long enough to stream.
        const std::size_t wanted = std::min((count + grain - 1) / grain, concurrency() * pieces_a_thread);
        if (wanted <= 1 || workers_.empty()) {
            if (count != 0) body(context, 0, count);
            return;
        }
        shared& s = *shared_;
        const std::size_t piece = (count + wanted - 1) / wanted;
        const auto pieces = static_cast<std::uint32_t>((count + piece - 1) / piece);
        s.body = body;
        s.context = context;
        s.count = count;
        s.piece = piece;
        s.pieces = pieces;
        s.done.store(0, std::memory_order_relaxed);
        const std::uint64_t generation = (s.tickets.load(std::memory_order_relaxed) >> 32) + 1;
        s.tickets.store((generation << 32) | pieces, std::memory_order_release);
        s.epoch.fetch_add(1, std::memory_order_release);
        s.epoch.notify_all();
        while (run_one(s)) {
        }
        for (std::uint32_t done = s.done.load(std::memory_order_acquire), spins = 0; done != pieces; done = s.done.load(std::memory_order_acquire)) {
            if (++spins < spins_before_sleep) {
                pause();
            } else {
                s.done.wait(done, std::memory_order_acquire);
            }
        }
    }

private:
    static constexpr std::size_t max_threads = 1024;
    static constexpr std::size_t pieces_a_thread = 8;
    static constexpr std::uint32_t spins_before_sleep = 1000;  // some 10 to 40 microseconds: the gap between two layers

    struct shared {
        alignas(64) std::atomic<std::uint64_t> tickets{0};  ///< generation << 32 | pieces not yet claimed
        alignas(64) std::atomic<std::uint32_t> epoch{0};    ///< changes with every job
        alignas(64) std::atomic<std::uint32_t> done{0};     ///< pieces of this job that are finished
        std::atomic<bool> stopping{false};
        // The job; stable from the release of `tickets` until `done` reaches `pieces`.
        void (*body)(void*, std::size_t, std::size_t) = nullptr;
        void* context = nullptr;
        std::size_t count = 0;
        std::size_t piece = 0;
        std::uint32_t pieces = 0;
    };

    thread_pool() = default;

    static void pause() {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb");
#endif
    }

    /// Claims and runs one piece. The claim is a compare-exchange of the whole word, generation included, so a worker that comes late
    /// can never take a piece of a job whose description it has not seen.
    static bool run_one(shared& s) {
        std::uint64_t ticket = s.tickets.load(std::memory_order_acquire);
        do {
            if ((ticket & 0xffffffffu) == 0) return false;
        } while (!s.tickets.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire));
        const std::size_t index = s.pieces - static_cast<std::size_t>(ticket & 0xffffffffu);
        const std::size_t begin = index * s.piece;
        const std::uint32_t pieces = s.pieces;
        s.body(s.context, begin, std::min(begin + s.piece, s.count));
        if (s.done.fetch_add(1, std::memory_order_acq_rel) + 1 == pieces) s.done.notify_one();
        return true;
    }

    static void work(shared* s) {
        std::uint32_t seen = s->epoch.load(std::memory_order_acquire);
        while (!s->stopping.load(std::memory_order_relaxed)) {
            while (run_one(*s)) {
            }
            std::uint32_t spins = 0;
            while (s->epoch.load(std::memory_order_acquire) == seen && ++spins < spins_before_sleep) pause();
            if (spins >= spins_before_sleep) s->epoch.wait(seen, std::memory_order_acquire);
            seen = s->epoch.load(std::memory_order_acquire);
        }
    }

    std::unique_ptr<shared> shared_;
    std::vector<std::thread> workers_;
};

PHI4FLASH_END
