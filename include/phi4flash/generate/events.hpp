#pragma once
/// What happens while a text is generated, and how it ended.
#include <phi4flash/core/error.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

PHI4FLASH_BEGIN

/// Why a text ended.
enum class stop_reason : std::uint8_t {
    stop_token,    ///< the model chose one of the stop ids
    stop_string,   ///< the text contained one of the stop strings
    max_tokens,    ///< as many tokens as were asked for
    context_full,  ///< the session has no room for another token
    cancelled,     ///< the host cancelled it
    sink,          ///< the sink returned false
    failed,        ///< by an error: of a scheduler's request the event has it; elsewhere it is the result of the call
};

/// Its name here: "stop_token" and so on.
[[nodiscard]] constexpr const char* name_of(stop_reason reason) {
    constexpr const char* names[] = {"stop_token", "stop_string", "max_tokens", "context_full", "cancelled", "sink", "failed"};
    return names[static_cast<std::size_t>(reason)];
}

/// What happened to a text. @since 0.2
enum class event_kind : std::uint8_t {
    none,    ///< nothing yet
    prompt,  ///< a part of the prompt has been read
    token,   ///< a token has been chosen
    end,     ///< the text has ended
};

/// What has happened. A token may bring no text (an incomplete character, the start of a stop string) or the text of several; the end may
/// bring the text that was held back until then.
struct generation_event {
    std::int32_t token = -1;        ///< of a token; else -1
    std::string_view text{};        ///< of a token or the end, whole UTF-8; valid until the next event
    event_kind kind = event_kind::token;
    stop_reason reason{};           ///< of the end
    std::size_t read = 0;           ///< of the prompt: tokens that have been read
    std::size_t total = 0;          ///< of the prompt: tokens that it has
    const error* failure = nullptr; ///< of the end, where it failed; valid as long as the text
};

/// A non-owning reference to anything that takes events and returns whether it wants more, passed by value. Default: none. @since 0.2
class event_sink {
public:
    event_sink() = default;

    template <class Sink>
        requires(!std::same_as<std::remove_cv_t<Sink>, event_sink> && std::is_invocable_r_v<bool, Sink&, const generation_event&>)
    event_sink(Sink& sink)  // NOLINT(google-explicit-constructor)
        : self_(const_cast<void*>(static_cast<const void*>(&sink))),
          tell_([](void* self, const generation_event& event) -> bool { return (*static_cast<Sink*>(self))(event); }) {}

    explicit operator bool() const { return tell_ != nullptr; }
    bool operator()(const generation_event& event) const { return tell_(self_, event); }

private:
    void* self_ = nullptr;
    bool (*tell_)(void*, const generation_event&) = nullptr;
};

/// How a text ended, or how it stands.
struct generation_summary {
    stop_reason reason = stop_reason::max_tokens;
    std::size_t prompt_tokens = 0;  ///< that were read
    std::size_t new_tokens = 0;     ///< that were chosen, a stop token not counted
    std::size_t drafted = 0;        ///< drafts that were read
    std::size_t accepted = 0;       ///< of them that were what was chosen
    std::int32_t unread = -1;       ///< the last chosen token: the session has not read it. A next prompt should begin with it.
};

PHI4FLASH_END
