#pragma once
/// Drafts: guesses at the next tokens of a text, which are read in the same pass as its last token and kept as far as they are what is
/// chosen. Who makes them is the host's choice: generate/ngram_drafter.hpp makes them from the text so far, generate/draft_policy.hpp says how
/// many are worth reading.
/// @since 0.2
#include <phi4flash/config/abi.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

PHI4FLASH_BEGIN

/// Drafts that are read at once, at most.
PHI4FLASH_OWN_DATA inline constexpr std::size_t max_drafts = 31;

/// A guess at a token.
struct draft {
    static constexpr float unknown = -1.0f;
    std::int32_t token = -1;
    float chance = unknown;  ///< that it is chosen, where all drafts before it are; 0 to 1, or unknown: then how drafts fared says it
};

/// Something that guesses how a text goes on. `read(tokens)` tells it how the text went on; `propose(out)` writes at most out.size() guesses at
/// what comes next, ids alone or with their chances, and returns how many. Ids that are none of the model's end the draft. Both should take
/// microseconds, and must not use session or workspace. Called by the thread that drives the text.
template <class D>
concept drafter = requires(D& d, std::span<const std::int32_t> tokens) { d.read(tokens); } &&
                  (requires(D& d, std::span<draft> out) {
                      { d.propose(out) } -> std::convertible_to<std::size_t>;
                  } || requires(D& d, std::span<std::int32_t> out) {
                      { d.propose(out) } -> std::convertible_to<std::size_t>;
                  });

/// A non-owning reference to any drafter, passed by value. Default: one that proposes nothing.
class drafter_ref {
public:
    drafter_ref() = default;

    template <drafter D>
        requires(!std::same_as<std::remove_cv_t<D>, drafter_ref>)
    drafter_ref(D& d)  // NOLINT(google-explicit-constructor)
        : self_(&d), read_([](void* self, std::span<const std::int32_t> tokens) { static_cast<D*>(self)->read(tokens); }),
          propose_([](void* self, std::span<draft> out) { return propose_to(*static_cast<D*>(self), out); }) {}

    explicit operator bool() const { return self_ != nullptr; }

    void read(std::span<const std::int32_t> tokens) const {
        if (read_ != nullptr) read_(self_, tokens);
    }
    /// Never more than out.size() or max_drafts.
    [[nodiscard]] std::size_t propose(std::span<draft> out) const {
        out = out.first((std::min)(out.size(), max_drafts));
        return propose_ == nullptr || out.empty() ? 0 : (std::min)(propose_(self_, out), out.size());
    }

private:
    template <class D>
    static std::size_t propose_to(D& d, std::span<draft> out) {
        if constexpr (requires { d.propose(out); }) {
            return d.propose(out);
        } else {
            std::int32_t ids[max_drafts];
            const std::size_t n = (std::min)(static_cast<std::size_t>(d.propose(std::span<std::int32_t>(ids, out.size()))), out.size());
            for (std::size_t i = 0; i < n; ++i) out[i] = {ids[i], draft::unknown};
            return n;
        }
    }

    void* self_ = nullptr;
    void (*read_)(void*, std::span<const std::int32_t>) = nullptr;
    std::size_t (*propose_)(void*, std::span<draft>) = nullptr;
};

PHI4FLASH_END
