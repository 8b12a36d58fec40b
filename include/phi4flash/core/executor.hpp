#pragma once
/// How the library asks its host for parallelism. It never starts a thread by itself: a caller passes an executor, the
/// optional `thread_pool` or one of its own.
#include <phi4flash/config/abi.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>

PHI4FLASH_BEGIN

/// Something that can run `body(begin, end)` over [0, count), cut into ranges of at least `grain` wherever it likes, in any
/// order and on any thread, and returns when all ranges are done. Results never depend on the cut: every kernel computes
/// each output in an order of its own. `concurrency()` is how many ranges may be in flight at once.
template <class E>
concept executor = requires(E& e, std::size_t n, void (*body)(void*, std::size_t, std::size_t), void* context) {
    { e.concurrency() } -> std::convertible_to<std::size_t>;
    e.run(n, n, body, context);
};

/// Runs everything on the calling thread.
struct inline_executor {
    [[nodiscard]] std::size_t concurrency() const { return 1; }
    void run(std::size_t count, std::size_t, void (*body)(void*, std::size_t, std::size_t), void* context) const {
        if (count != 0) body(context, 0, count);
    }
};

/// A non-owning reference to any executor; two pointers and a number, passed by value. Default: the calling thread.
class executor_ref {
public:
    executor_ref() = default;

    template <executor E>
        requires(!std::same_as<std::remove_cv_t<E>, executor_ref>)
    executor_ref(E& e)  // NOLINT(google-explicit-constructor)
        : self_(&e), concurrency_(e.concurrency()), run_([](void* self, std::size_t count, std::size_t grain, body_fn body, void* context) {
              static_cast<E*>(self)->run(count, grain, body, context);
          }) {}

    [[nodiscard]] std::size_t concurrency() const { return concurrency_; }

    /// Calls `body(begin, end)` until [0, count) is covered. `body` must be callable from several threads at once.
    template <class Body>
    void parallel_for(std::size_t count, std::size_t grain, Body&& body) const {
        if (count == 0) return;
        if (run_ == nullptr || count <= grain) {
            body(std::size_t{0}, count);
            return;
        }
        using body_type = std::remove_reference_t<Body>;
        run_(
            self_, count, grain == 0 ? 1 : grain,
            [](void* context, std::size_t begin, std::size_t end) { (*static_cast<body_type*>(context))(begin, end); },
            const_cast<void*>(static_cast<const void*>(&body)));
    }

private:
    using body_fn = void (*)(void*, std::size_t, std::size_t);
    void* self_ = nullptr;
    std::size_t concurrency_ = 1;
    void (*run_)(void*, std::size_t, std::size_t, body_fn, void*) = nullptr;
};

PHI4FLASH_END
