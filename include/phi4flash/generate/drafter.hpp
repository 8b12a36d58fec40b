#pragma once
/// Drafts: guesses at the next tokens of a text, which are read in the same pass as its last token and kept as far as they are what is
/// chosen. Who makes them is the host's choice.
#include <phi4flash/config/abi.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

PHI4FLASH_BEGIN

/// Something that guesses how a text goes on. `read(tokens)` tells it how the text went on; `propose(out)` writes at most out.size() ids that
/// may come next and returns how many. Ids that are none of the model's end the draft. Called by the thread that drives the text.
template <class D>
concept drafter = requires(D& d, std::span<const std::int32_t> tokens, std::span<std::int32_t> out) {
    d.read(tokens);
    { d.propose(out) } -> std::convertible_to<std::size_t>;
};

/// A non-owning reference to any drafter, passed by value. Default: one that proposes nothing.
class drafter_ref {
public:
    drafter_ref() = default;

    template <drafter D>
        requires(!std::same_as<std::remove_cv_t<D>, drafter_ref>)
    drafter_ref(D& d)  // NOLINT(google-explicit-constructor)
        : self_(&d), read_([](void* self, std::span<const std::int32_t> tokens) { static_cast<D*>(self)->read(tokens); }),
          propose_([](void* self, std::span<std::int32_t> out) -> std::size_t { return static_cast<D*>(self)->propose(out); }) {}

    explicit operator bool() const { return self_ != nullptr; }
    void read(std::span<const std::int32_t> tokens) const {
        if (read_ != nullptr) read_(self_, tokens);
    }
    [[nodiscard]] std::size_t propose(std::span<std::int32_t> out) const { return propose_ == nullptr ? 0 : propose_(self_, out); }

private:
    void* self_ = nullptr;
    void (*read_)(void*, std::span<const std::int32_t>) = nullptr;
    std::size_t (*propose_)(void*, std::span<std::int32_t>) = nullptr;
};

PHI4FLASH_END
