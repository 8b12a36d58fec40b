#pragma once
/// Memory whose size is known before it is taken: a layout is written once as a function over an `arena`, run first to
/// count and then to carve the caller's block.
#include <phi4flash/core/huge_pages.hpp>
#include <phi4flash/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <utility>

PHI4FLASH_BEGIN

/// Alignment of every block that the library carves: a cache line, and the widest vector.
inline constexpr std::size_t block_alignment = 64;

/// The least multiple that is not less than n. n + multiple must not overflow.
[[nodiscard]] constexpr std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Hands out aligned pieces of a block. Without a block it only counts, at compile time too. All pieces are multiples of `block_alignment`.
/// Where they are more than there are addresses, of which 32 bits have few, it counts SIZE_MAX bytes, which memory_block::allocate refuses; so
/// who multiplies to get a `count` does it in 64 bits.
class arena {
public:
    arena() = default;
    constexpr explicit arena(std::byte* base) : base_(base) {}

    /// Room for `count` objects of T, or an empty place while counting. Contents are untouched.
    template <class T>
    [[nodiscard]] constexpr T* take(std::uint64_t count) {
        T* place = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
        const std::size_t left = (SIZE_MAX - used_) / block_alignment * block_alignment;
        used_ = count > left / sizeof(T) ? SIZE_MAX : used_ + round_up(static_cast<std::size_t>(count) * sizeof(T), block_alignment);
        return place;
    }

    [[nodiscard]] constexpr std::size_t bytes() const { return used_; }

private:
    std::byte* base_ = nullptr;
    std::size_t used_ = 0;
};

/// Memory of the host's. `take` returns `bytes` bytes that begin at a multiple of `alignment`, or nullptr; `give_back` gets the same numbers, and
/// does not throw. What `self` points to must outlive every block. Default: the C++ heap. @since 0.2
struct block_source {
    void* self = nullptr;
    void* (*take)(void* self, std::size_t bytes, std::size_t alignment) = nullptr;
    void (*give_back)(void* self, void* memory, std::size_t bytes, std::size_t alignment) = nullptr;
};

namespace detail {
struct aligned_delete {
    std::size_t alignment = block_alignment;
    std::size_t bytes = 0;
    block_source from{};
    void operator()(std::byte* p) const {
        if (from.take == nullptr) return ::operator delete(p, std::align_val_t{alignment});
        from.give_back(from.self, p, bytes, alignment);
    }
};

/// Whether a host's memory is enough of it, and aligned. Errors: invalid_argument.
[[nodiscard]] inline status check_memory(std::span<const std::byte> memory, std::size_t want, const char* purpose) {
    if (memory.size() < want) return error::format(errc::invalid_argument, "%s memory: want %zu bytes, have %zu", purpose, want, memory.size());
    const auto beyond = static_cast<std::size_t>(reinterpret_cast<std::uintptr_t>(memory.data()) % block_alignment);
    if (beyond == 0) return {};
    return error::format(errc::invalid_argument, "%s memory: want it to begin at a multiple of %zu, have %zu beyond one", purpose, block_alignment,
                         beyond);
}
}  // namespace detail

/// An aligned block of bytes, owned. Allocation failure is a value.
class memory_block {
public:
    memory_block() = default;

    /// Contents are indeterminate, so that pages which nobody writes cost nothing. Huge pages are a wish (core/huge_pages.hpp) for the first
    /// `huge` bytes, and round what is taken up to a multiple of theirs; a host's memory is what it is. Errors: out_of_memory, naming `purpose` and
    /// the bytes; also where a host's memory is not aligned.
    static result<memory_block> allocate(std::size_t bytes, const char* purpose, page_size pages = page_size::normal, std::size_t huge = SIZE_MAX,
                                         const block_source& from = {}) {
        memory_block block;
        const bool heap = from.take == nullptr;
        const std::size_t alignment = heap && pages == page_size::huge && bytes >= huge_page_bytes ? huge_page_bytes : block_alignment;
        if (bytes <= static_cast<std::size_t>(PTRDIFF_MAX) - alignment) {
            block.size_ = round_up(bytes, block_alignment);
            const std::size_t taken = round_up(bytes, alignment);
            void* const place = heap ? ::operator new(taken, std::align_val_t{alignment}, std::nothrow) : from.take(from.self, taken, alignment);
            block.data_ = {static_cast<std::byte*>(place), detail::aligned_delete{alignment, taken, from}};
            if (reinterpret_cast<std::uintptr_t>(place) % alignment != 0)
                return error::format(errc::out_of_memory, "%zu bytes for the %s: want memory of the host's that is aligned to %zu", bytes, purpose,
                                     alignment);
            if (block.data_ && alignment == huge_page_bytes)
                ask_for_huge_pages({block.data_.get(), huge < taken ? round_up(huge, huge_page_bytes) : taken});
        }
        if (!block.data_) return error::format(errc::out_of_memory, "cannot take %zu bytes for the %s", bytes, purpose);
        return block;
    }

    /// None of a block that was moved from.
    [[nodiscard]] std::span<std::byte> bytes() const { return {data_.get(), data_ ? size_ : 0}; }
    /// How much of it lies in huge pages by now; see bytes_in_huge_pages.
    [[nodiscard]] std::size_t huge_bytes() const { return bytes().empty() ? 0 : bytes_in_huge_pages(bytes()); }

private:
    std::unique_ptr<std::byte, detail::aligned_delete> data_;
    std::size_t size_ = 0;
};

namespace detail {
/// Where things lie in a block that is owned beside it. Moving takes the places along: what was moved from has none, and could
/// otherwise write where another's things lie.
template <class Places>
struct moving_places : Places {
    moving_places() = default;
    moving_places(const Places& places) : Places(places) {}
    moving_places(moving_places&& other) noexcept : Places(std::exchange(static_cast<Places&>(other), Places())) {}
    moving_places& operator=(moving_places&& other) noexcept {
        static_cast<Places&>(*this) = std::exchange(static_cast<Places&>(other), Places());
        return *this;
    }
    moving_places& operator=(const Places& places) {
        static_cast<Places&>(*this) = places;
        return *this;
    }
};
}  // namespace detail

PHI4FLASH_END
