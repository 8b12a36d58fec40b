#pragma once
/// How a call that takes seconds tells its caller how far it is, and learns that it shall stop.
/// @since 0.2
#include <phi4flash/config/abi.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

PHI4FLASH_BEGIN

/// A non-owning reference to something callable as `tell(done, total)`, std::uint64_t both, that returns nothing, or false to stop; two
/// pointers, passed by value. It is called on the thread that made the call. Default: nobody is told.
class progress_ref {
public:
    progress_ref() = default;

    template <class Tell>
        requires(!std::same_as<std::remove_cvref_t<Tell>, progress_ref> && std::invocable<Tell&, std::uint64_t, std::uint64_t>)
    progress_ref(Tell&& tell)  // NOLINT(google-explicit-constructor,bugprone-forwarding-reference-overload)
        : self_(const_cast<void*>(static_cast<const void*>(&tell))), call_([](void* self, std::uint64_t done, std::uint64_t total) {
              auto& callee = *static_cast<std::remove_reference_t<Tell>*>(self);
              if constexpr (std::is_void_v<decltype(callee(done, total))>) {
                  callee(done, total);
                  return true;
              } else {
                  return static_cast<bool>(callee(done, total));
              }
          }) {}

    /// False: stop.
    [[nodiscard]] bool operator()(std::uint64_t done, std::uint64_t total) const { return call_ == nullptr || call_(self_, done, total); }

private:
    void* self_ = nullptr;
    bool (*call_)(void*, std::uint64_t, std::uint64_t) = nullptr;
};

PHI4FLASH_END
