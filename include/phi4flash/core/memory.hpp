#pragma once
/// Memory whose size is known before it is taken: a layout is written once as a function over an `arena`, run first to
/// count and then to carve the caller's block.
#include <phi4flash/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

PHI4FLASH_BEGIN

/// Alignment of every block that the library carves: a cache line, and the widest vector.
inline constexpr std::size_t block_alignment = 64;

[[nodiscard]] constexpr std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Hands out aligned pieces of a block. Without a block it only counts. All pieces are multiples of `block_alignment`.
class arena {
public:
    arena() = default;
    explicit arena(std::byte* base) : base_(base) {}

    /// Room for `count` objects of T, or an empty place while counting. Contents are untouched.
    template <class T>
    [[nodiscard]] T* take(std::size_t count) {
        T* place = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
        used_ += round_up(count * sizeof(T), block_alignment);
        return place;
    }

    [[nodiscard]] std::size_t bytes() const { return used_; }

private:
    std::byte* base_ = nullptr;
    std::size_t used_ = 0;
};

/// An aligned block of bytes, owned. Allocation failure is a value.
class memory_block {
public:
    memory_block() = default;

    /// Contents are indeterminate, so that pages which nobody writes cost nothing. Errors: out_of_memory, naming `purpose` and the bytes.
    static result<memory_block> allocate(std::size_t bytes, const char* purpose) {
        memory_block block;
        block.size_ = round_up(bytes, block_alignment);
        block.data_.reset(static_cast<std::byte*>(::operator new(block.size_, std::align_val_t{block_alignment}, std::nothrow)));
        if (!block.data_) return error::format(errc::out_of_memory, "cannot take %zu bytes for the %s", block.size_, purpose);
        return block;
    }

    [[nodiscard]] std::span<std::byte> bytes() const { return {data_.get(), size_}; }

private:
    struct deleter {
        void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{block_alignment}); }
    };
    std::unique_ptr<std::byte, deleter> data_;
    std::size_t size_ = 0;
};

PHI4FLASH_END
