#pragma once
/// A small thread pool: an executor for hosts that have none. Optional; nothing else in the library starts threads.
///
/// Work is claimed in pieces from one atomic word, the caller's thread included, and the caller waits only for pieces
/// that somebody has claimed. So a worker that the operating system did not schedule costs nothing, one that lost its
/// processor in the middle costs at most one piece, and one that keeps losing it is left out for a while.
#include <phi4flash/core/attendance.hpp>
#include <phi4flash/core/executor.hpp>
#include <phi4flash/core/processors.hpp>
#include <phi4flash/core/result.hpp>

#if PHI4FLASH_THREADS
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#if defined(__cpp_exceptions)
#include <system_error>
#endif

PHI4FLASH_BEGIN

/// `threads` in all: the calling one and `threads` - 1 workers, which sleep when there is nothing to do. `run` is for one caller at a
/// time. Movable while nothing runs; the destructor joins the workers.
class thread_pool {
public:
    /// 0 means default_concurrency(). Errors: invalid_argument above 1024; out_of_memory, also where the system refuses a thread (built
    /// without exceptions, the standard library ends the program in that case).
    static result<thread_pool> create(std::size_t threads) {
        if (threads == 0) threads = (std::min)(default_concurrency(), max_threads);
        if (threads > max_threads) return error::format(errc::invalid_argument, "threads: want 0 to %zu, have %zu", max_threads, threads);
        thread_pool pool;
        pool.shared_.reset(new (std::nothrow) shared);
        pool.places_.reset(new (std::nothrow) place[threads]);
        pool.workers_.reset(new (std::nothrow) std::thread[threads]);
        if (!pool.shared_ || !pool.places_ || !pool.workers_)
            return error::format(errc::out_of_memory, "cannot take memory for a pool of %zu threads", threads);
        for (; pool.n_workers_ + 1 < threads; ++pool.n_workers_) {
            if (!pool.start_worker())
                return error::format(errc::out_of_memory, "the system refused thread %zu of %zu", pool.n_workers_ + 2, threads);
        }
        return pool;
    }

    thread_pool(thread_pool&& other) noexcept
        : shared_(std::move(other.shared_)), places_(std::move(other.places_)), workers_(std::move(other.workers_)),
          n_workers_(std::exchange(other.n_workers_, 0)), absent_(std::exchange(other.absent_, 0)) {}
    thread_pool& operator=(thread_pool&&) = delete;
    ~thread_pool() {
        if (!shared_) return;
        shared_->stopping.store(true, std::memory_order_relaxed);
        shared_->epoch.fetch_add(1, std::memory_order_release);
        shared_->epoch.notify_all();
        for (std::size_t i = 0; i < n_workers_; ++i) call_back(places_[i]);
        for (std::size_t i = 0; i < n_workers_; ++i) workers_[i].join();
    }

    [[nodiscard]] std::size_t concurrency() const { return n_workers_ + 1; }

    /// See the executor concept.
    void run(std::size_t count, std::size_t grain, void (*body)(void*, std::size_t, std::size_t), void* context) {
        const std::size_t present = concurrency() - (absent_ == 0 ? 0 : still_absent());
        // A few pieces a thread: enough to even out, long enough to stream.
        const std::size_t wanted = (std::min)((count + grain - 1) / grain, present * pieces_a_thread);
        if (wanted <= 1 || present == 1) {
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
        const attendance::nanoseconds begin = now();
        attendance::nanoseconds mine = 0;
        while (run_one(s, nullptr)) ++mine;
        for (std::uint32_t spins = 0; s.done.load(std::memory_order_acquire) != pieces; pause()) {
            if (++spins == spins_before_sleep)
                return sleep_until_done(static_cast<std::uint32_t>(generation), (now() - begin) / std::max<attendance::nanoseconds>(mine, 1));
        }
    }

private:
    PHI4FLASH_OWN_DATA static constexpr std::size_t max_threads = 1024;
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

    /// What the pool knows of a worker.
    struct alignas(64) place {
        std::atomic<std::uint32_t> job{0};  ///< generation of the job of which it runs a piece; 0: none
        std::atomic<bool> absent{false};    ///< takes no pieces
        bool awaited = false;               ///< the caller's, as what follows
        attendance record;
    };

    thread_pool() = default;

    /// False where there is no memory or no thread for it.
    bool start_worker() {
#if defined(__cpp_exceptions)
        try {
            workers_[n_workers_] = std::thread(&work, shared_.get(), &places_[n_workers_]);
        } catch (const std::system_error&) {
            return false;
        } catch (const std::bad_alloc&) {
            return false;
        }
#else
        workers_[n_workers_] = std::thread(&work, shared_.get(), &places_[n_workers_]);
#endif
        return true;
    }

    static attendance::nanoseconds now() {
        return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }

    /// Waits for the rest of a job, and notes who kept everybody waiting: longer than twice the time of a piece, which a slower
    /// processor may take.
    void sleep_until_done(std::uint32_t generation, attendance::nanoseconds piece_time) {
        shared& s = *shared_;
        for (std::size_t i = 0; i < n_workers_; ++i) places_[i].awaited = places_[i].job.load(std::memory_order_relaxed) == generation;
        const attendance::nanoseconds begin = now();
        for (std::uint32_t done = s.done.load(std::memory_order_acquire); done != s.pieces; done = s.done.load(std::memory_order_acquire))
            s.done.wait(done, std::memory_order_acquire);
        const attendance::nanoseconds end = now();
        const attendance::nanoseconds lost = end - begin - 2 * piece_time;
        for (std::size_t i = 0; i < n_workers_ && lost > 0; ++i) {
            place& p = places_[i];
            if (!p.awaited || p.absent.load(std::memory_order_relaxed) || !p.record.waited(end, lost)) continue;
            p.absent.store(true, std::memory_order_relaxed);
            ++absent_;
        }
    }

    static void call_back(place& p) {
        p.absent.store(false, std::memory_order_release);
        p.absent.notify_one();
    }

    /// Workers that are absent, after those have come back whose time it is.
    std::size_t still_absent() {
        const attendance::nanoseconds time = now();
        for (std::size_t i = 0; i < n_workers_; ++i) {
            place& p = places_[i];
            if (!p.absent.load(std::memory_order_relaxed) || !p.record.is_back(time)) continue;
            call_back(p);
            --absent_;
        }
        return absent_;
    }

    static void pause() {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb");
#endif
    }

    /// Claims and runs one piece. The claim is a compare-exchange of the whole word, generation included, so a worker that comes late
    /// can never take a piece of a job whose description it has not seen.
    static bool run_one(shared& s, place* worker) {
        std::uint64_t ticket = s.tickets.load(std::memory_order_acquire);
        do {
            if ((ticket & 0xffffffffu) == 0) return false;
        } while (!s.tickets.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire));
        if (worker != nullptr) worker->job.store(static_cast<std::uint32_t>(ticket >> 32), std::memory_order_relaxed);
        const std::size_t index = s.pieces - static_cast<std::size_t>(ticket & 0xffffffffu);
        const std::size_t begin = index * s.piece;
        const std::uint32_t pieces = s.pieces;
        s.body(s.context, begin, (std::min)(begin + s.piece, s.count));
        if (worker != nullptr) worker->job.store(0, std::memory_order_relaxed);
        if (s.done.fetch_add(1, std::memory_order_acq_rel) + 1 == pieces) s.done.notify_one();
        return true;
    }

    static void work(shared* s, place* self) {
        std::uint32_t seen = s->epoch.load(std::memory_order_acquire);
        while (!s->stopping.load(std::memory_order_relaxed)) {
            self->absent.wait(true, std::memory_order_acquire);
            while (!self->absent.load(std::memory_order_relaxed) && run_one(*s, self)) {
            }
            std::uint32_t spins = 0;
            while (s->epoch.load(std::memory_order_acquire) == seen && ++spins < spins_before_sleep) pause();
            if (spins >= spins_before_sleep) s->epoch.wait(seen, std::memory_order_acquire);
            seen = s->epoch.load(std::memory_order_acquire);
        }
    }

    std::unique_ptr<shared> shared_;
    std::unique_ptr<place[]> places_;
    std::unique_ptr<std::thread[]> workers_;
    std::size_t n_workers_ = 0;
    std::size_t absent_ = 0;  ///< workers that are
};

PHI4FLASH_END
#endif  // PHI4FLASH_THREADS
