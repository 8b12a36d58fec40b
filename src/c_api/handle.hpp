#pragma once
/// What every handle is: memory of the host's allocator, a count of those who need it, a word that tells its kind, and a flag that a call sets
/// while it uses it, so that two threads which meet get an error and not each other's state.
#include "structs.hpp"

#include <atomic>
#include <new>
#include <utility>

PHI4FLASH_BEGIN
namespace c_api {

/// The host's memory, or the C++ heap's.
class host_memory {
public:
    host_memory() = default;
    explicit host_memory(const phi4flash_allocator& from) : host_(from) {}

    [[nodiscard]] bool is_heap() const { return host_.allocate == nullptr; }
    /// For the library's blocks.
    [[nodiscard]] block_source source() const { return {host_.user, host_.allocate, host_.release}; }
    [[nodiscard]] result<memory_block> take_block(std::size_t bytes, const char* purpose) const {
        return memory_block::allocate((std::max)(bytes, std::size_t{1}), purpose, page_size::normal, 0, source());
    }

    /// nullptr where there is none, or where it is not aligned.
    [[nodiscard]] void* take(std::size_t bytes, std::size_t alignment) const {
        if (is_heap()) return ::operator new(bytes, std::align_val_t{alignment}, std::nothrow);
        void* const place = host_.allocate(host_.user, bytes, alignment);
        if (place == nullptr || reinterpret_cast<std::uintptr_t>(place) % alignment == 0) return place;
        give_back(place, bytes, alignment);
        return nullptr;
    }

    void give_back(void* place, std::size_t bytes, std::size_t alignment) const noexcept {
        if (place == nullptr) return;
        if (is_heap()) return ::operator delete(place, std::align_val_t{alignment});
        host_.release(host_.user, place, bytes, alignment);
    }

private:
    phi4flash_allocator host_{};
};

/// The allocator that a caller names, or `otherwise`.
[[nodiscard]] inline outcome read_allocator(const phi4flash_allocator* from, const host_memory& otherwise, host_memory& to) {
    to = otherwise;
    if (from == nullptr) return {};
    phi4flash_allocator a;
    if (outcome ok = read_struct(from, a, "allocator"); !ok) return ok;
    if (outcome ok = check_reserved(a.reserved, "allocator.reserved"); !ok) return ok;
    if (a.allocate == nullptr) return missing("allocator.allocate");
    if (a.release == nullptr) return missing("allocator.release");
    to = host_memory(a);
    return {};
}

enum class handle_kind : std::uint32_t {
    destroyed = 0,
    model = 0x7034666d,
    tokenizer = 0x70346674,
    session = 0x70346673,
    workspace = 0x70346677,
    generation = 0x70346667,
    scheduler = 0x70346671,
    prefix_cache = 0x70346663,
};

[[nodiscard]] constexpr const char* name_of(handle_kind kind) {
    switch (kind) {
        case handle_kind::model: return "model";
        case handle_kind::tokenizer: return "tokenizer";
        case handle_kind::session: return "session";
        case handle_kind::workspace: return "workspace";
        case handle_kind::generation: return "generation";
        case handle_kind::scheduler: return "scheduler";
        case handle_kind::prefix_cache: return "prefix cache";
        case handle_kind::destroyed: break;
    }
    return "";
}

/// The head of a handle; T is the handle itself.
template <class T, handle_kind Kind>
class handle {
public:
    handle(const handle&) = delete;
    handle& operator=(const handle&) = delete;

    static constexpr handle_kind kind = Kind;
    [[nodiscard]] bool is_of_its_kind() const { return kind_.load(std::memory_order_relaxed) == Kind; }
    [[nodiscard]] const host_memory& memory() const { return memory_; }

    void add_user() const { users_.fetch_add(1, std::memory_order_relaxed); }
    void drop_user() const noexcept {
        if (users_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
        const host_memory memory = memory_;
        T* const self = const_cast<T*>(static_cast<const T*>(this));
        kind_.store(handle_kind::destroyed, std::memory_order_relaxed);
        self->~T();
        memory.give_back(self, sizeof(T), alignof(T));
    }

    [[nodiscard]] bool lock() const { return !locked_.exchange(true, std::memory_order_acquire); }
    void unlock() const { locked_.store(false, std::memory_order_release); }

protected:
    explicit handle(const host_memory& memory) : memory_(memory) {}
    ~handle() = default;

private:
    mutable std::atomic<handle_kind> kind_{Kind};  // the first word of every handle
    mutable std::atomic<std::uint32_t> users_{1};
    mutable std::atomic<bool> locked_{false};
    host_memory memory_;
};

/// A user of a handle.
template <class T>
class ref {
public:
    ref() = default;
    ref(std::nullptr_t) {}  // NOLINT(google-explicit-constructor)
    /// Another user.
    explicit ref(T* of) : of_(of) {
        if (of_ != nullptr) of_->add_user();
    }
    /// The user that it was made with.
    static ref adopt(T* of) {
        ref r;
        r.of_ = of;
        return r;
    }
    ref(const ref& other) : ref(other.of_) {}
    ref(ref&& other) noexcept : of_(std::exchange(other.of_, nullptr)) {}
    ref& operator=(ref other) noexcept {
        std::swap(of_, other.of_);
        return *this;
    }
    ~ref() {
        if (of_ != nullptr) of_->drop_user();
    }

    [[nodiscard]] T* get() const { return of_; }
    [[nodiscard]] T& operator*() const { return *there(); }
    [[nodiscard]] T* operator->() const { return there(); }
    explicit operator bool() const { return of_ != nullptr; }
    [[nodiscard]] T* release() { return std::exchange(of_, nullptr); }

private:
    [[nodiscard]] T* there() const {
#if defined(__GNUC__) || defined(__clang__)
        if (of_ == nullptr) __builtin_unreachable();  // or GCC warns of what is done with nothing
#endif
        return of_;
    }

    T* of_ = nullptr;
};

/// A new handle in the host's memory, made of it and `arguments`.
template <class T, class... Arguments>
[[nodiscard]] result<ref<T>> make_handle(const host_memory& memory, Arguments&&... arguments) {
    struct place {
        const host_memory& from;
        void* memory;
        ~place() { from.give_back(memory, sizeof(T), alignof(T)); }
    } p{memory, memory.take(sizeof(T), alignof(T))};
    if (p.memory == nullptr) return error::format(errc::out_of_memory, "cannot take %zu bytes for a handle", sizeof(T));
    T* const made = new (p.memory) T(memory, std::forward<Arguments>(arguments)...);
    p.memory = nullptr;
    return ref<T>::adopt(made);
}

/// The handle behind a pointer of the caller's, alive for this call.
template <class T, class Opaque>
[[nodiscard]] outcome find_handle(Opaque* given, ref<T>& to, const char* name) {
    if (given == nullptr) return missing(name);
    auto* const h = const_cast<T*>(reinterpret_cast<const T*>(given));
    if (reinterpret_cast<std::uintptr_t>(given) % alignof(T) != 0 || !h->is_of_its_kind())
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: this is no handle of a %s, or one that was destroyed", name, name_of(T::kind));
    to = ref<T>(h);
    return {};
}

/// A handle that this call alone uses. Unlocked before the user is dropped, who may be the last one.
template <class T>
class held {
public:
    held() = default;
    held(const held&) = delete;
    held& operator=(const held&) = delete;
    held(held&& other) noexcept : of_(std::move(other.of_)) {}
    held& operator=(held&& other) noexcept {
        std::swap(of_, other.of_);
        return *this;
    }
    ~held() {
        if (of_) of_->unlock();
    }
    [[nodiscard]] outcome take(ref<T> of, const char* name) {
        if (!of) return missing(name);
        if (!of->lock()) return in_use_elsewhere(name);
        of_ = std::move(of);
        return {};
    }
    template <class Opaque>
    [[nodiscard]] outcome take(Opaque* given, const char* name) {
        ref<T> found;
        if (outcome ok = find_handle(given, found, name); !ok) return ok;
        return take(std::move(found), name);
    }
    [[nodiscard]] T* operator->() const { return of_.get(); }
    [[nodiscard]] T& operator*() const { return *of_; }
    [[nodiscard]] T* get() const { return of_.get(); }
    [[nodiscard]] const ref<T>& user() const { return of_; }

private:
    ref<T> of_;
};

/// Where a handle is to be put that a call makes: NULL until it is.
template <class Opaque>
[[nodiscard]] outcome check_out_handle(Opaque** out) {
    if (out == nullptr) return missing("out");
    *out = nullptr;
    return {};
}

template <class Opaque, class T>
void give_handle(Opaque** out, ref<T> made) {
    *out = reinterpret_cast<Opaque*>(made.release());
}

/// The caller's user of a handle ends.
template <class T, class Opaque>
void destroy_handle(Opaque* given) noexcept {
    auto* const h = reinterpret_cast<T*>(given);
    if (h != nullptr && reinterpret_cast<std::uintptr_t>(given) % alignof(T) == 0 && h->is_of_its_kind()) h->drop_user();
}

}  // namespace c_api
PHI4FLASH_END
