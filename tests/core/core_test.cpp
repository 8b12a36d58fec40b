// Results, errors, memory and executors.
#include <phi4flash/core/executor.hpp>
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/memory.hpp>
#include <phi4flash/core/result.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <type_traits>
#include <vector>

using phi4flash::arena;
using phi4flash::errc;
using phi4flash::error;
using phi4flash::executor_ref;
using phi4flash::memory_block;
using phi4flash::name_of;
using phi4flash::result;
using phi4flash::status;

TEST_CASE("an error is a code and a sentence") {
    const error e = error::format(errc::wrong_shape, "tensor \"%s\": want %d, have %d", "a.weight", 3, 4);
    CHECK(e.code() == errc::wrong_shape);
    CHECK(std::string(e.message()) == "tensor \"a.weight\": want 3, have 4");
    const error outer = e.in("model.safetensors");
    CHECK(outer.code() == errc::wrong_shape);
    CHECK(std::string(outer.message()) == "model.safetensors: tensor \"a.weight\": want 3, have 4");
    CHECK(std::string(error().message()).empty());
    static_assert(std::is_trivially_copyable_v<error>);
}

TEST_CASE("every code has a name of its own") {
    std::set<std::string> names;
    std::size_t codes = 0;
    for (std::uint16_t i = 1; std::string(name_of(static_cast<errc>(i))) != "unknown"; ++i, ++codes) names.insert(name_of(static_cast<errc>(i)));
    CHECK(codes == static_cast<std::size_t>(errc::bad_chat_message));
    CHECK(names.size() == codes);
    CHECK(names.count("out_of_memory") == 1);
    CHECK(std::string(name_of(errc{})) == "unknown");
}

TEST_CASE("a sentence that is too long is cut, not overrun") {
    const std::string long_text(1000, 'x');
    const error e = error::format(errc::json_syntax, "%s", long_text.c_str());
    CHECK(std::string(e.message()) == std::string(383, 'x'));
    CHECK(std::string(e.in("file").message()) == "file: " + std::string(377, 'x'));
    CHECK(std::string(e.in(long_text).message()) == std::string(383, 'x'));
    for (const std::string& character : {std::string("\xc3\xa9"), std::string("\xe2\x82\xac"), std::string("\xf0\x9f\x98\x80")}) {
        for (std::size_t shift = 0; shift < 4; ++shift) {  // between two characters
            std::string text(shift, 'x');
            while (text.size() < 400) text += character;
            const std::size_t whole = shift + (383 - shift) / character.size() * character.size();
            CHECK(std::string(error::format(errc::json_syntax, "%s", text.c_str()).message()) == text.substr(0, whole));
        }
    }
    const char place[] = {'a', 'b', 'c'};  // not terminated
    CHECK(std::string(error::format(errc::json_syntax, "no").in({place, 3}).message()) == "abc: no");
}

TEST_CASE("a result holds a value or an error") {
    result<int> good = 7;
    REQUIRE(good);
    CHECK(good.has_value());
    CHECK(*good == 7);
    *good = 8;
    CHECK(*std::as_const(good) == 8);
    const result<int> bad = error::format(errc::cancelled, "stopped");
    REQUIRE(!bad);
    CHECK(bad.error().code() == errc::cancelled);

    result<std::unique_ptr<int>> owned = std::make_unique<int>(5);
    CHECK(*owned->get() == 5);
    const std::unique_ptr<int> moved = *std::move(owned);
    CHECK(*moved == 5);
    result<std::string> text = std::string("abc");
    CHECK(text->size() == 3);

    status ok;
    CHECK(ok);
    const status failed = error::format(errc::file_empty, "empty");
    CHECK(!failed);
    CHECK(std::string(failed.error().message()) == "empty");
    ok = failed;
    CHECK(!ok.has_value());
}

namespace {
/// Knows how many of its kind there are.
struct counted {
    static inline int there = 0;
    int value;
    explicit counted(int v) : value(v) { ++there; }
    counted(const counted& other) : value(other.value) { ++there; }
    counted(counted&& other) noexcept : value(std::exchange(other.value, -1)) { ++there; }
    counted& operator=(const counted&) = default;
    counted& operator=(counted&&) = default;
    ~counted() { --there; }
    counted* operator&() = delete;  // as smart pointers of some hosts have one that is not what it seems
};
#if defined(__cpp_exceptions)
struct throws_when_moved {
    bool armed = false;
    throws_when_moved() = default;
    throws_when_moved(const throws_when_moved&) = default;
    throws_when_moved(throws_when_moved&& other) noexcept(false) : armed(other.armed) {
        if (armed) throw 1;
    }
};
#endif
}  // namespace

TEST_CASE("a result is copied, moved and replaced as what it holds") {
    {
        const error why = error::format(errc::cancelled, "stopped");
        result<counted> a = counted(1);
        result<counted> b = why;
        CHECK(counted::there == 1);
        const result<counted> copy = a;
        const result<counted> copied_error = b;
        CHECK(copy->value == 1);
        CHECK(a->value == 1);
        CHECK(copied_error.error().code() == errc::cancelled);
        CHECK(counted::there == 2);

        b = a;  // an error becomes a value
        CHECK(b->value == 1);
        b = result<counted>(counted(2));  // a value another one
        CHECK(b->value == 2);
        CHECK(counted::there == 3);
        b = copied_error;  // a value an error
        CHECK(!b);
        CHECK(std::string(b.error().message()) == "stopped");
        b = result<counted>(error::format(errc::file_empty, "empty"));  // an error another one
        CHECK(b.error().code() == errc::file_empty);
        CHECK(counted::there == 2);

        auto& same = a;
        a = same;
        CHECK(a->value == 1);
        a = std::move(same);
        CHECK(a->value == 1);
        const result<counted> moved = std::move(a);
        CHECK(moved->value == 1);
        CHECK(a->value == -1);  // still a value, moved from
        CHECK(counted::there == 3);
    }
    CHECK(counted::there == 0);

    static_assert(std::is_copy_constructible_v<result<int>> && std::is_copy_assignable_v<result<int>>);
    static_assert(!std::is_copy_constructible_v<result<std::unique_ptr<int>>> && !std::is_copy_assignable_v<result<std::unique_ptr<int>>>);
    static_assert(std::is_nothrow_move_constructible_v<result<std::unique_ptr<int>>>);
#if defined(__cpp_exceptions)
    static_assert(!std::is_nothrow_move_constructible_v<result<throws_when_moved>>);
    result<throws_when_moved> kept = throws_when_moved();
    result<throws_when_moved> other = throws_when_moved();
    other->armed = true;
    CHECK_THROWS(kept = std::move(other));
    CHECK(!kept);  // what was there is gone, and nothing is destroyed twice
#endif
}

namespace {
struct places {
    float* floats;
    char* chars;
    double* doubles;
};
places carve(arena& a) { return {a.take<float>(3), a.take<char>(65), a.take<double>(0)}; }
}  // namespace

TEST_CASE("an arena counts first and carves the same places later") {
    arena counting;
    const places none = carve(counting);
    CHECK(none.floats == nullptr);
    CHECK(counting.bytes() == 64 + 128);

    auto block = memory_block::allocate(counting.bytes(), "test");
    REQUIRE(block);
    REQUIRE(block->bytes().size() == counting.bytes());
    CHECK(reinterpret_cast<std::uintptr_t>(block->bytes().data()) % phi4flash::block_alignment == 0);
    arena carving(block->bytes().data());
    const places here = carve(carving);
    CHECK(carving.bytes() == counting.bytes());
    CHECK(reinterpret_cast<std::byte*>(here.floats) == block->bytes().data());
    CHECK(reinterpret_cast<std::byte*>(here.chars) == block->bytes().data() + 64);
    std::fill_n(here.floats, 3, 1.0f);
    std::fill_n(here.chars, 65, 'x');
}

TEST_CASE("an arena counts no further than there are addresses") {
    arena full;
    (void)full.take<double>(SIZE_MAX / sizeof(double) + std::uint64_t{1});
    CHECK(full.bytes() == SIZE_MAX);
    (void)full.take<char>(0);
    (void)full.take<char>(1);
    CHECK(full.bytes() == SIZE_MAX);
    CHECK_FALSE(memory_block::allocate(full.bytes(), "test"));

    arena most;
    (void)most.take<char>(SIZE_MAX - 127);
    CHECK(most.bytes() == SIZE_MAX - 127);
    (void)most.take<char>(64);
    CHECK(most.bytes() == SIZE_MAX - 63);
    (void)most.take<char>(1);
    CHECK(most.bytes() == SIZE_MAX);

    arena wide;
    (void)wide.take<char>(UINT64_MAX);
    CHECK(wide.bytes() == SIZE_MAX);
}

// Without this the address sanitizer ends the program where operator new would return null.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

// What no system has: a quarter of 64 bits. Of 32 bits a quarter may well be free.
constexpr std::size_t too_much = sizeof(std::size_t) > 4 ? SIZE_MAX / 4 : SIZE_MAX / 2;

TEST_CASE("memory that is not there is an error that says how much and for what") {
    const auto block = memory_block::allocate(too_much, "weights");
    REQUIRE(!block);
    CHECK(block.error().code() == errc::out_of_memory);
    CHECK(std::string(block.error().message()).find("for the weights") != std::string::npos);

    auto empty = memory_block::allocate(0, "nothing");
    REQUIRE(empty);
    CHECK(empty->bytes().empty());
    CHECK(memory_block().bytes().empty());
    memory_block moved = *std::move(empty);
    CHECK(moved.bytes().empty());
    CHECK(phi4flash::round_up(0, 64) == 0);
    CHECK(phi4flash::round_up(1, 64) == 64);
    CHECK(phi4flash::round_up(64, 64) == 64);
}

TEST_CASE("a block in huge pages is a block like any other") {
    using phi4flash::huge_page_bytes;
    using phi4flash::page_size;
    for (const std::size_t size : {std::size_t{0}, std::size_t{100}, huge_page_bytes, 5 * huge_page_bytes / 2}) {
        CAPTURE(size);
        auto block = memory_block::allocate(size, "test", page_size::huge);
        REQUIRE(block);
        CHECK(block->bytes().size() == phi4flash::round_up(size, 64));
        if (size >= huge_page_bytes) CHECK(reinterpret_cast<std::uintptr_t>(block->bytes().data()) % huge_page_bytes == 0);
        std::fill(block->bytes().begin(), block->bytes().end(), std::byte{7});
        CHECK(block->huge_bytes() <= block->bytes().size());
        if (size > 2 * huge_page_bytes) MESSAGE(block->huge_bytes() << " of " << size << " bytes are in huge pages");
        const memory_block moved = *std::move(block);
        CHECK(std::count(moved.bytes().begin(), moved.bytes().end(), std::byte{7}) == static_cast<std::ptrdiff_t>(moved.bytes().size()));
    }
    // Of a part alone.
    const auto part = memory_block::allocate(6 * huge_page_bytes, "test", page_size::huge, huge_page_bytes + 1);
    REQUIRE(part);
    std::fill(part->bytes().begin(), part->bytes().end(), std::byte{7});
    CHECK(reinterpret_cast<std::uintptr_t>(part->bytes().data()) % huge_page_bytes == 0);
    const bool always = part->huge_bytes() == part->bytes().size();  // the system gives them unasked
    if (!always) CHECK(part->huge_bytes() <= 2 * huge_page_bytes);
    for (const std::size_t size : std::initializer_list<std::size_t>{SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2, too_much}) {
        for (const page_size pages : {page_size::normal, page_size::huge}) {
            const auto none = memory_block::allocate(size, "weights", pages);
            REQUIRE(!none);
            CHECK(none.error().code() == errc::out_of_memory);
        }
    }
    CHECK(memory_block().huge_bytes() == 0);
}

namespace {
/// Ranges of one grain, last first, as an executor may.
struct backwards {
    std::size_t calls = 0;
    [[nodiscard]] std::size_t concurrency() const { return 3; }
    void run(std::size_t count, std::size_t grain, void (*body)(void*, std::size_t, std::size_t), void* context) {
        const std::size_t ranges = (count + grain - 1) / grain;
        for (std::size_t i = ranges; i-- > 0; ++calls) body(context, i * grain, std::min(count, (i + 1) * grain));
    }
};
static_assert(phi4flash::executor<backwards>);
static_assert(phi4flash::executor<phi4flash::inline_executor>);
}  // namespace

TEST_CASE("a block of the host's memory goes back where it came from") {
    struct host {
        alignas(64) std::byte memory[512];
        std::size_t at = 0;
        std::size_t taken = 0;
        std::size_t given_back = 0;
        bool full = false;
    } h;
    phi4flash::block_source source;
    source.self = &h;
    source.take = [](void* self, std::size_t bytes, std::size_t alignment) -> void* {
        host& of = *static_cast<host*>(self);
        CHECK(alignment == phi4flash::block_alignment);
        if (of.full) return nullptr;
        of.taken += bytes;
        return of.memory + of.at;
    };
    source.give_back = [](void* self, void* memory, std::size_t bytes, std::size_t alignment) {
        host& of = *static_cast<host*>(self);
        CHECK(memory == of.memory + of.at);
        CHECK(alignment == phi4flash::block_alignment);
        of.given_back += bytes;
    };
    {
        auto block = memory_block::allocate(100, "test", phi4flash::page_size::huge, SIZE_MAX, source);
        REQUIRE(block);
        CHECK(block->bytes().data() == h.memory);
        CHECK(block->bytes().size() == 128);
        const memory_block moved = *std::move(block);
        CHECK(h.taken == 128);
        CHECK(h.given_back == 0);
    }
    CHECK(h.given_back == 128);
    // Memory that is not aligned goes back at once.
    h.at = 8;
    CHECK_FALSE(memory_block::allocate(100, "test", phi4flash::page_size::normal, SIZE_MAX, source));
    CHECK(h.given_back == 256);
    h.full = true;
    const auto none = memory_block::allocate(100, "test", phi4flash::page_size::normal, SIZE_MAX, source);
    REQUIRE_FALSE(none);
    CHECK(none.error().code() == phi4flash::errc::out_of_memory);
    CHECK(h.given_back == 256);
}

TEST_CASE("an executor covers every index once") {
    phi4flash::inline_executor on_this_thread;
    backwards other;
    const executor_ref refs[] = {executor_ref(), executor_ref(on_this_thread), executor_ref(other)};
    CHECK(refs[0].concurrency() == 1);
    CHECK(refs[2].concurrency() == 3);
    for (const executor_ref& e : refs) {
        for (const std::size_t count : {0u, 1u, 2u, 10u, 17u}) {
            for (const std::size_t grain : {0u, 1u, 4u, 100u}) {
                std::vector<int> seen(count, 0);
                e.parallel_for(count, grain, [&](std::size_t begin, std::size_t end) {
                    CHECK(begin < end);
                    for (std::size_t i = begin; i < end; ++i) ++seen[i];
                });
                CHECK(std::count(seen.begin(), seen.end(), 1) == static_cast<std::ptrdiff_t>(count));
            }
        }
    }
    // What is not worth cutting stays on this thread; the rest does go to the executor. A const body works too.
    other.calls = 0;
    std::size_t ranges = 0;
    const auto body = [&ranges](std::size_t, std::size_t) { ++ranges; };
    executor_ref(other).parallel_for(4, 4, body);
    CHECK(ranges == 1);
    CHECK(other.calls == 0);
    executor_ref(other).parallel_for(9, 4, body);
    CHECK(ranges == 4);
    CHECK(other.calls == 3);
}

TEST_CASE("a matrix view knows its rows") {
    const std::uint16_t data[6] = {0, 1, 2, 3, 4, 5};
    const phi4flash::matrix_view m{reinterpret_cast<const std::byte*>(data), 2, 3, phi4flash::dtype::bf16};
    CHECK(m.row(1) - m.data == 6);
    CHECK(m.bytes() == 12);
    CHECK(m.row(1) == reinterpret_cast<const std::byte*>(data + 3));
    phi4flash::tensor_view t;
    t.bytes = 12;
    t.type = phi4flash::dtype::f16;
    t.extent[0] = 2;
    t.extent[1] = 3;
    t.rank = 2;
    CHECK(t.count() == 6);
    CHECK(t.shape().size() == 2);
    CHECK(t.shape()[1] == 3);
}
