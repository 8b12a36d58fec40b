#pragma once
/// Looks at every weight of a model once, for numbers that are infinite or NaN. Nothing else reads all weights before they are needed.
/// @since 0.2
#include <phi4flash/core/finite.hpp>
#include <phi4flash/io/file/printable.hpp>

PHI4FLASH_BEGIN

/// `tell(done, total)` gets bytes after each tensor. Takes as long as reading the weights. Errors: not_finite, naming the first
/// tensor in the order of the list and the element (of packed tensors, the 32 columns of a row whose scale it is).
template <class Tell>
[[nodiscard]] status check_weights(std::span<const tensor_view> tensors, executor_ref threads, Tell&& tell) {
    const std::uint64_t total = bytes_of_tensors(tensors);
    std::uint64_t done = 0;
    for (const tensor_view& t : tensors) {
        if (const auto damaged = find_not_finite(t, threads)) return not_finite_error(printable(t.name).c_str(), t.shape(), *damaged);
        tell(done += t.bytes, total);
    }
    return {};
}
[[nodiscard]] PHI4FLASH_BODY status check_weights(std::span<const tensor_view> tensors, executor_ref threads = {});

#if PHI4FLASH_BODIES
PHI4FLASH_BODY status check_weights(std::span<const tensor_view> tensors, executor_ref threads) {
    return check_weights(tensors, threads, [](std::uint64_t, std::uint64_t) {});
}
#endif

PHI4FLASH_END
