#pragma once
/// The states of a session at one place of its text, saved without the K/V that grow with it. A session that has those, because it has read on from
/// there, or was restored from a snapshot of later, goes back to that place by them: 24 MiB at the released shape, however long the text is.
/// @since 0.2
///
///     header  192 bytes: as a snapshot's (snapshot.hpp) with another magic, and XXH64 of the K/V that belong to it
///     states and windows, trailer: as a snapshot's
#include <phi4flash/model/snapshot.hpp>

PHI4FLASH_BEGIN

namespace detail {

[[nodiscard]] inline snapshot_header states_header(snapshot_header h = {}) {
    std::memcpy(h.magic, states_magic, sizeof h.magic);
    return h;
}

/// XXH64 of the full layer's K/V of a session's first tokens.
template <sambay_shape Shape, class Kv>
[[nodiscard]] std::uint64_t checksum_of_keys(const session<Shape, Kv>& s, std::size_t tokens) {
    xxh64 sum;
    each_full_piece(s, 0, tokens, [&](const std::byte* memory, std::size_t bytes) {
        sum.update({memory, bytes});
        return true;
    });
    return sum.value();
}

/// The states after the first `position` tokens of the session, wherever they are: see write_pieces.
template <sambay_shape Shape, class Kv, class Each, class Sink>
[[nodiscard]] status write_states(const session<Shape, Kv>& s, weights_fingerprint weights, std::size_t position, Each&& each, Sink&& sink) {
    const session_extent of{position, position, s.shape().window};
    snapshot_header header = states_header(header_of(s, weights, of));
    header.keys = checksum_of_keys(s, position);
    return write_pieces(header, state_bytes<Kv>(s.shape(), of), each, sink);
}

}  // namespace detail

/// What saved states are of, from their first 192 bytes. Errors: those of inspect_snapshot.
[[nodiscard]] inline result<snapshot_info> inspect_states(std::span<const std::byte> bytes) {
    return detail::read_header(bytes, detail::states_header());
}

/// Bytes of the saved states of such a session after so many tokens.
template <sambay_shape Shape, class Kv>
[[nodiscard]] std::size_t saved_states_bytes(const session<Shape, Kv>& s, std::size_t position) {
    if (s.moved_from()) return 0;
    return sizeof(detail::snapshot_header) + static_cast<std::size_t>(detail::state_bytes<Kv>(s.shape(), {position, position, s.shape().window})) +
           detail::snapshot_trailer;
}

/// Writes the states of a session as it is now, piece by piece; nothing is allocated. `weights` and `sink`: see save_snapshot. Errors: the sink's
/// own, or cancelled where it returned false. (States that a prefix_cache keeps: prefix_cache::save_states.)
template <sambay_shape Shape, class Kv, snapshot_sink Sink>
[[nodiscard]] status save_states(const session<Shape, Kv>& s, weights_fingerprint weights, Sink&& sink) {
    if (const status ok = detail::check_source(s); !ok) return ok;
    const detail::session_extent of{s.position(), s.position(), s.shape().window};
    return detail::write_states(s, weights, s.position(), [&](auto&& put) { return detail::each_state_piece(s, of, put); }, sink);
}

/// The session goes back to where the states were saved: a place that it has read up to or beyond, to the same bits. It cannot be taken back further
/// then. What it has read behind that place is gone, unless it is restored from a snapshot. Checks all of the bytes, and that the session's own K/V
/// are those that belong to them, before it changes anything.
/// Errors: those of restore_snapshot from memory; invalid_argument (the session has not read so far, or another text, or the same to other bits).
template <sambay_shape Shape, class Kv>
[[nodiscard]] status restore_states(session<Shape, Kv>& s, weights_fingerprint weights, std::span<const std::byte> bytes) {
    if (const status ok = detail::check_target(s); !ok) return ok;
    const auto info = inspect_states(bytes);
    if (!info) return info.error();
    const detail::session_extent of{info->position, info->oldest_position, s.shape().window};
    if (info->oldest_position != info->position) return error::format(errc::bad_value, "the saved states are of more than one place");
    if (const status ok = detail::check_belongs(s, weights, *info, detail::state_bytes<Kv>(s.shape(), of)); !ok) return ok;
    if (const status ok = detail::check_length(*info, bytes.size()); !ok) return ok;
    std::span<const std::byte> payload = bytes.subspan(sizeof(detail::snapshot_header));
    if (const status ok = detail::check_payload(payload); !ok) return ok;
    if (info->position > s.position())
        return error::format(errc::invalid_argument, "saved states after %zu tokens: want a session that has read them, have one that has read %zu",
                             info->position, s.position());
    detail::snapshot_header header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.keys != detail::checksum_of_keys(s, info->position))
        return error::format(errc::invalid_argument, "saved states after %zu tokens: the session has read others, or the same to other bits",
                             info->position);
    detail::each_state_piece(s, of, [&](std::byte* memory, std::size_t count) {
        std::memcpy(memory, payload.data(), count);
        payload = payload.subspan(count);
        return true;
    });
    s.resume(info->position, info->position);
    return {};
}

PHI4FLASH_END
