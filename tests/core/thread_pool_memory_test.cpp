/// A pool that cannot be had is an error value: no memory at any place, and a system that refuses threads.
#include <phi4flash/core/thread_pool.hpp>

#if PHI4FLASH_THREADS
#include <doctest/doctest.h>

#include <string>

namespace p4 = phi4flash;

TEST_CASE("thread_pool: a pool that was moved away is the calling thread alone") {
    auto pool = p4::thread_pool::create(3);
    REQUIRE(pool);
    const p4::thread_pool moved(std::move(*pool));
    CHECK(moved.concurrency() == 3);
    CHECK(pool->concurrency() == 1);
    std::size_t covered = 0;
    pool->run(
        10, 1, [](void* n, std::size_t begin, std::size_t end) { *static_cast<std::size_t*>(n) += end - begin; }, &covered);
    CHECK(covered == 10);
}

#if defined(__cpp_exceptions)
#include <support/failing_memory.hpp>

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

TEST_CASE("thread_pool: no memory is an error value, wherever it ends") {
    const long failures = failing_memory::run_out_everywhere([] {
        const auto pool = p4::thread_pool::create(4);
        failing_memory::left = -1;
        if (!pool) CHECK(pool.error().code() == p4::errc::out_of_memory);
        return !pool;
    });
    CHECK(failures >= 3);
}

// A sanitizer's shadow does not fit into the limit.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("thread_pool: a thread that the system refuses is an error value") {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const rlimit little{std::size_t{64} << 20, std::size_t{64} << 20};  // of address space: stacks of 8 MiB end soon
        setrlimit(RLIMIT_AS, &little);
        try {
            const auto pool = p4::thread_pool::create(200);
            _exit(pool ? 1 : pool.error().code() == p4::errc::out_of_memory ? 0 : 2);
        } catch (...) {
            _exit(3);
        }
    }
    int how = 0;
    REQUIRE(waitpid(child, &how, 0) == child);
    CHECK(WIFEXITED(how));
    CHECK(WEXITSTATUS(how) == 0);
}
#endif
#endif
#endif
