#pragma once
/// A session as bytes: saved to memory or piece by piece, and restored, so that going on gives the bits of never having stopped.
///
///     header  192 bytes: magic, version, K/V type, bytes in all, fingerprint of the weights, position, tokens that can be taken back, shape,
///             XXH64 of the header
///     states  f32: for each position from the oldest on, for each Mamba layer, the convolution's last inputs and the SSM state
///     K/V     of each window, then of the full layer, in the order of positions: keys, values and, of 8 bits, their scales, head by head
///     trailer 8 bytes: XXH64 of states and K/V
///
/// All of it little-endian. The same session has the same bytes on every target, back end and number of threads, wherever its rings stand.
/// @since 0.2
#include <phi4flash/core/checksum.hpp>
#include <phi4flash/model/fingerprint.hpp>
#include <phi4flash/model/session_pieces.hpp>

#include <concepts>
#include <type_traits>

PHI4FLASH_BEGIN

static_assert(std::endian::native == std::endian::little, "phi4flash: snapshots are little-endian and copied as they are");

inline constexpr std::uint32_t snapshot_version = 1;  ///< that is written; docs/stability.md says which are read
/// A sink is never given more at once, nor a source asked for more.
inline constexpr std::size_t snapshot_piece = std::size_t{1} << 20;

/// What a snapshot says of itself.
struct snapshot_info {
    std::uint32_t version = snapshot_version;
    kv_format kv = kv_format::bf16;
    sambay_shape shape;
    weights_fingerprint weights;
    std::size_t position = 0;         ///< tokens that were read
    std::size_t oldest_position = 0;  ///< how far a restored session can rewind, where it has room for that
    std::size_t bytes = 0;            ///< of the whole snapshot
};

namespace detail {

struct snapshot_header {
    char magic[8] = {'p', '4', 's', 'e', 's', 's', 'n', '\n'};
    std::uint32_t version = snapshot_version;
    std::uint32_t kv = 0;
    std::uint64_t bytes = 0;
    std::uint64_t weights = 0;
    std::uint64_t position = 0;
    std::uint64_t undo = 0;
    std::uint64_t shape[extent_count] = {};
    std::uint64_t keys = 0;  ///< XXH64 of K/V that are not in it: see saved_states.hpp
    std::uint64_t unused[5] = {};
    std::uint64_t checksum = 0;
};
static_assert(sizeof(snapshot_header) == 192 && std::is_trivially_copyable_v<snapshot_header>);
inline constexpr std::size_t snapshot_trailer = sizeof(std::uint64_t);

[[nodiscard]] inline std::uint64_t checksum_of(const snapshot_header& h) {
    xxh64 sum;
    sum.update(std::as_bytes(std::span(&h, 1)).first(offsetof(snapshot_header, checksum)));
    return sum.value();
}

[[nodiscard]] inline error snapshot_cut_off(std::size_t want, std::size_t have) {
    return error::format(errc::file_incomplete, "the saved session is cut off: want %zu bytes, have %zu", want, have);
}
[[nodiscard]] inline error snapshot_altered() {
    return error::format(errc::wrong_checksum, "the saved session was altered since it was written: its checksum does not fit");
}

/// How saved states begin: model/saved_states.hpp.
inline constexpr char states_magic[8] = {'p', '4', 's', 't', 'a', 't', 'e', '\n'};

/// For bytes that do not begin as `like` does.
[[nodiscard]] PHI4FLASH_BODY error no_snapshot(std::span<const std::byte> bytes, const snapshot_header& like);

/// The header's own truth. Errors: see inspect_snapshot.
[[nodiscard]] PHI4FLASH_BODY result<snapshot_info> read_header(std::span<const std::byte> bytes, const snapshot_header& like = {});

/// A host's callback may answer with a status or a bool.
template <class Answer>
[[nodiscard]] status status_of(Answer&& answer, errc code, const char* what, std::size_t at) {
    if constexpr (std::same_as<std::remove_cvref_t<Answer>, status>) {
        return answer;
    } else {
        return answer ? status() : status(error::format(code, "%s after %zu bytes of the saved session", what, at));
    }
}

[[nodiscard]] constexpr const char* name_of_kv(kv_format kv) {
    constexpr const char* names[] = {"f32", "bf16", "8 bits"};
    return names[static_cast<std::size_t>(kv)];
}

template <class Kv>
[[nodiscard]] constexpr std::uint64_t payload_bytes(const sambay_shape& s, const session_extent& of) {
    return state_bytes<Kv>(s, of) + std::uint64_t{of.position} * kv_bytes<Kv>(head_layout_of(extents<any_sambay>::of(s)));
}

/// In the order of the file.
template <sambay_shape Shape, class Kv, class Visit, class Skip = never_skips>
bool each_payload_piece(const session<Shape, Kv>& s, const session_extent& of, Visit&& visit, Skip&& skip = {}) {
    return each_state_piece(s, of, visit, skip) && each_full_piece(s, 0, of.position, visit);
}

/// Cut into pieces that are not too large for a host's sink or source. `visit(piece)` returns false to stop.
template <class Byte, class Visit>
bool in_pieces(std::span<Byte> memory, Visit&& visit) {
    for (; !memory.empty(); memory = memory.subspan((std::min)(snapshot_piece, memory.size())))
        if (!visit(memory.first((std::min)(snapshot_piece, memory.size())))) return false;
    return true;
}

/// Whether this session can be saved. Errors: invalid_argument (it was moved from), in_use (it is being restored).
template <sambay_shape Shape, class Kv>
[[nodiscard]] status check_source(const session<Shape, Kv>& s) {
    if (s.moved_from()) return moved_from_error();
    if (s.unfinished()) return unfinished_error();
    return {};
}

/// Whether something can be restored into this session. Errors: in_use, invalid_argument (it was moved from).
template <sambay_shape Shape, class Kv>
[[nodiscard]] status check_target(const session<Shape, Kv>& s) {
    if (s.busy()) return in_use_error("session");
    if (s.moved_from()) return moved_from_error();
    return {};
}

/// Whether this session can become that one, of which so many bytes are saved. Errors: see restore_snapshot.
template <sambay_shape Shape, class Kv>
[[nodiscard]] status check_belongs(const session<Shape, Kv>& s, weights_fingerprint weights, const snapshot_info& info, std::uint64_t payload) {
    for (std::size_t i = 0; i < extent_count; ++i) {
        const auto [name, want] = extent_at(s.shape(), i);
        if (const std::size_t have = extent_at(info.shape, i).value; have != want)
            return error::format(errc::wrong_shape, "the saved session is of a model of another shape: %s: want %zu, have %zu", name, want, have);
    }
    if (info.kv != kv_format_of<Kv>)
        return error::format(errc::wrong_dtype, "the saved session's K/V are of %s: want %s", name_of_kv(info.kv), name_of_kv(kv_format_of<Kv>));
    if (info.weights != weights)
        return error::format(errc::wrong_weights, "the saved session belongs to other weights of this shape: want %016llx, have %016llx",
                             static_cast<unsigned long long>(weights.value), static_cast<unsigned long long>(info.weights.value));
    if (const std::uint64_t want = sizeof(snapshot_header) + payload + snapshot_trailer; info.bytes != want)
        return error::format(errc::bad_value, "the saved session says that it has %zu bytes: want %llu for %zu tokens", info.bytes,
                             static_cast<unsigned long long>(want), info.position);
    if (info.position > s.context())
        return error::format(errc::context_full, "the saved session has read %zu tokens: want room for them, have a context of %zu", info.position,
                             s.context());
    return {};
}

template <sambay_shape Shape, class Kv>
[[nodiscard]] status check_belongs(const session<Shape, Kv>& s, weights_fingerprint weights, const snapshot_info& info) {
    return check_belongs(s, weights, info, payload_bytes<Kv>(s.shape(), session_extent{info.position, info.oldest_position, s.shape().window}));
}

/// What a header says of a session, but for its length and its checksum.
template <sambay_shape Shape, class Kv>
[[nodiscard]] snapshot_header header_of(const session<Shape, Kv>& s, weights_fingerprint weights, const session_extent& of) {
    snapshot_header header;
    header.kv = static_cast<std::uint32_t>(kv_format_of<Kv>);
    header.weights = weights.value;
    header.position = of.position;
    header.undo = of.position - of.oldest;
    for (std::size_t i = 0; i < extent_count; ++i) header.shape[i] = extent_at(s.shape(), i).value;
    return header;
}

/// Header, pieces, trailer. `each(put)` calls `put(memory, bytes)` for all pieces, until that returns false. Errors: see save_snapshot.
template <class Each, class Sink>
[[nodiscard]] status write_pieces(snapshot_header header, std::uint64_t payload, Each&& each, Sink&& sink) {
    header.bytes = sizeof header + payload + snapshot_trailer;
    header.checksum = checksum_of(header);
    status outcome;
    std::size_t written = 0;
    const auto put = [&](std::span<const std::byte> piece) {
        outcome = status_of(sink(piece), errc::cancelled, "the sink took no more", written);
        written += piece.size();
        return outcome.has_value();
    };
    xxh64 sum;
    if (!put(std::as_bytes(std::span(&header, 1)))) return outcome;
    const bool all = each([&](const std::byte* memory, std::size_t bytes) {
        return in_pieces(std::span(memory, bytes), [&](std::span<const std::byte> piece) {
            sum.update(piece);
            return put(piece);
        });
    });
    if (!all) return outcome;
    const std::uint64_t trailer = sum.value();
    (void)put(std::as_bytes(std::span(&trailer, 1)));
    return outcome;
}

template <sambay_shape Shape, class Kv>
void resume_at(session<Shape, Kv>& s, const snapshot_info& info) {
    s.resume(info.position, (std::max)(info.oldest_position, info.position - (std::min)(info.position, s.undo())));
}

[[nodiscard]] inline status check_length(const snapshot_info& info, std::size_t have) {
    if (have < info.bytes) return snapshot_cut_off(info.bytes, have);
    if (have == info.bytes) return {};
    return error::format(errc::trailing_bytes, "the saved session has %zu bytes, and others behind them: want %zu in all, have %zu", info.bytes,
                         info.bytes, have);
}

/// Everything behind the header, the trailer included. Errors: wrong_checksum.
[[nodiscard]] PHI4FLASH_BODY status check_payload(std::span<const std::byte> payload);

/// A session that is being filled: nobody else uses it meanwhile, and unless all was well it has read nothing, also where a host's source
/// throws. If the source moves it, what went along stays unfinished, and is refused until it is reset or restored.
template <sambay_shape Shape, class Kv>
class filling {
public:
    explicit filling(session<Shape, Kv>& s) : s_(s) {
        s_.set_busy(true);
        s_.set_unfinished();
    }
    ~filling() {
        s_.set_busy(false);
        if (s_.unfinished()) s_.reset();  // else it is whole, or another took its place
    }
    filling(const filling&) = delete;
    filling& operator=(const filling&) = delete;
    void keep(const snapshot_info& info) { resume_at(s_, info); }

private:
    session<Shape, Kv>& s_;
};

/// States and K/V of a session that has read nothing, checked while they come: `get(std::span<std::byte>)` fills the span or returns false.
/// Where the checksum does not fit, or `get` fails, the session has still read nothing. Errors: wrong_checksum, in_use.
template <sambay_shape Shape, class Kv, class Get>
[[nodiscard]] status fill(session<Shape, Kv>& s, const snapshot_info& info, Get&& get) {
    filling<Shape, Kv> into(s);
    xxh64 sum;
    const auto take = [&](std::byte* memory, std::size_t count) {
        return in_pieces(std::span(memory, count), [&](std::span<std::byte> piece) {
            if (!get(piece) || s.replaced() || s.disturbed()) return false;
            sum.update(piece);
            return true;
        });
    };
    const auto skip = [&](std::size_t count) {  // what this session has no room for
        std::byte unused[4096];
        for (std::size_t n = 0; count != 0; count -= n)
            if (n = (std::min)(sizeof unused, count); !take(unused, n)) return false;
        return true;
    };
    std::uint64_t trailer = 0;
    const session_extent of{info.position, info.oldest_position, s.shape().window};
    const bool all = each_payload_piece(s, of, take, skip) && get(std::as_writable_bytes(std::span(&trailer, 1)));
    if (s.disturbed() || s.replaced())
        return error::format(errc::in_use, "the session was reset or moved by the source that fills it: do that before, or after");
    if (!all || sum.value() != trailer) return snapshot_altered();
    into.keep(info);
    return {};
}

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY error no_snapshot(std::span<const std::byte> bytes, const snapshot_header& like) {
    const auto begins = [](std::span<const std::byte> b, const char* magic) { return std::memcmp(b.data(), magic, sizeof like.magic) == 0; };
    const bool wants_states = std::memcmp(like.magic, states_magic, sizeof like.magic) == 0;
    if (wants_states && begins(bytes, snapshot_header().magic))
        return error::format(errc::bad_magic, "this is a whole saved session: restore_snapshot takes it, restore_states wants states alone");
    if (!wants_states && begins(bytes, states_magic))
        return error::format(errc::bad_magic, "these are the saved states of a session alone: restore_states takes them, restore_snapshot wants a "
                                              "whole session");
    return error::format(errc::bad_magic, "this is no saved session: it does not begin like one");
}

PHI4FLASH_BODY result<snapshot_info> read_header(std::span<const std::byte> bytes, const snapshot_header& like) {
    snapshot_header h;
    const bool known = bytes.size() >= sizeof h.magic && std::memcmp(bytes.data(), like.magic, sizeof h.magic) == 0;
    if (!known && bytes.size() >= sizeof h.magic) return no_snapshot(bytes, like);
    if (bytes.size() < sizeof h) return snapshot_cut_off(sizeof h, bytes.size());
    std::memcpy(&h, bytes.data(), sizeof h);
    if (h.version > snapshot_version)
        return error::format(errc::unsupported_version, "the saved session is of version %u: want at most %u, a newer phi4flash wrote it",
                             static_cast<unsigned>(h.version), static_cast<unsigned>(snapshot_version));
    if (h.checksum != checksum_of(h)) return snapshot_altered();
    const bool good = h.version == snapshot_version && h.kv < kv_format_count && h.position <= max_extent && h.undo <= h.position &&
                      h.bytes <= static_cast<std::uint64_t>(PTRDIFF_MAX);
    if (!good) return error::format(errc::bad_value, "the saved session's header holds numbers that cannot be");
    snapshot_info info;
    info.version = h.version;
    info.kv = static_cast<kv_format>(h.kv);
    const auto extent = [&h](std::size_t i) { return static_cast<std::size_t>(h.shape[i]); };
    info.shape = {extent(0), extent(1), extent(2), extent(3), extent(4), extent(5), extent(6), extent(7), extent(8), extent(9), extent(10)};
    info.weights.value = h.weights;
    info.position = static_cast<std::size_t>(h.position);
    info.oldest_position = static_cast<std::size_t>(h.position - h.undo);
    info.bytes = static_cast<std::size_t>(h.bytes);
    return info;
}

PHI4FLASH_BODY status check_payload(std::span<const std::byte> payload) {
    const std::size_t n = payload.size() - snapshot_trailer;
    xxh64 sum;
    sum.update(payload.first(n));
    std::uint64_t trailer;
    std::memcpy(&trailer, payload.data() + n, sizeof trailer);
    return sum.value() == trailer ? status() : status(snapshot_altered());
}
#endif

}  // namespace detail

/// Takes a piece of a snapshot: `sink(std::span<const std::byte>)` returns false, or an error, to stop.
template <class Sink>
concept snapshot_sink = std::invocable<Sink&, std::span<const std::byte>>;
/// Gives the next piece of a snapshot: `source(std::span<std::byte>)` fills all of the span; false, or an error, where it cannot.
template <class Source>
concept snapshot_source = std::invocable<Source&, std::span<std::byte>>;

/// Keep as many states as the session has.
inline constexpr std::size_t all_undo = static_cast<std::size_t>(-1);

/// Bytes of a snapshot of this session as it is now, with at most `undo` tokens to take back after it is restored: each costs the Mamba
/// states again, which are 3.5 MB at the released shape. The rest is 20 MiB of windows there, and 5 KiB a token.
template <sambay_shape Shape, class Kv>
[[nodiscard]] std::size_t snapshot_bytes(const session<Shape, Kv>& s, std::size_t undo = all_undo) {
    if (s.moved_from()) return 0;
    return sizeof(detail::snapshot_header) + static_cast<std::size_t>(detail::payload_bytes<Kv>(s.shape(), detail::extent_of(s, undo))) +
           detail::snapshot_trailer;
}

/// The same of a full session, before there is one: SIZE_MAX where there can be none. `shape` breaks no rule (is_complete), and undo is at most
/// the context.
template <class Kv = bf16>
[[nodiscard]] constexpr std::size_t longest_snapshot_bytes(const sambay_shape& shape, const session_options& options) {
    // A session has all that and one state more, so what follows is less.
    if (session<any_sambay, Kv>::bytes(extents<any_sambay>::of(shape), options) == SIZE_MAX) return SIZE_MAX;
    const detail::session_extent of{options.context, options.context - options.undo, shape.window};
    return sizeof(detail::snapshot_header) + static_cast<std::size_t>(detail::payload_bytes<Kv>(shape, of)) + detail::snapshot_trailer;
}

/// Writes a snapshot piece by piece, straight from the session's memory: nothing is allocated. `weights` is fingerprint_of what the session's
/// model was bound to. The session may be in use by a pass, which has then not happened; the sink must not change it. Errors: the sink's
/// own, or cancelled where it returned false; invalid_argument for a session that was moved from; in_use for one that is being restored.
template <sambay_shape Shape, class Kv, snapshot_sink Sink>
[[nodiscard]] status save_snapshot(const session<Shape, Kv>& s, weights_fingerprint weights, Sink&& sink, std::size_t undo = all_undo) {
    if (const status ok = detail::check_source(s); !ok) return ok;
    const detail::session_extent of = detail::extent_of(s, undo);
    return detail::write_pieces(detail::header_of(s, weights, of), detail::payload_bytes<Kv>(s.shape(), of),
                                [&](auto&& put) { return detail::each_payload_piece(s, of, put); }, sink);
}

/// The same into memory: the first snapshot_bytes of it. Errors: invalid_argument (too few bytes), and nothing is written.
template <sambay_shape Shape, class Kv>
[[nodiscard]] status save_snapshot(const session<Shape, Kv>& s, weights_fingerprint weights, std::span<std::byte> out, std::size_t undo = all_undo) {
    if (const status ok = detail::check_source(s); !ok) return ok;
    const std::size_t want = snapshot_bytes(s, undo);
    if (out.size() < want) return error::format(errc::invalid_argument, "memory for a snapshot: want %zu bytes, have %zu", want, out.size());
    const auto append = [&](std::span<const std::byte> piece) {
        std::memcpy(out.data(), piece.data(), piece.size());
        out = out.subspan(piece.size());
        return true;
    };
    return save_snapshot(s, weights, append, undo);
}

/// What a snapshot is of, from its first 192 bytes. Errors: bad_magic (no snapshot), file_incomplete, unsupported_version (a newer one),
/// wrong_checksum (altered), bad_value.
[[nodiscard]] inline result<snapshot_info> inspect_snapshot(std::span<const std::byte> bytes) { return detail::read_header(bytes); }

/// The session becomes the one that was saved, which may be of another context and undo: it goes on, and can be taken back as far as both
/// allow. Checks all of the bytes before it changes anything; where it fails, the session is as before, bit for bit.
/// Errors: those of inspect_snapshot; trailing_bytes; wrong_shape, wrong_dtype (another K/V type), wrong_weights, context_full; in_use;
/// invalid_argument for a session that was moved from.
template <sambay_shape Shape, class Kv>
[[nodiscard]] status restore_snapshot(session<Shape, Kv>& s, weights_fingerprint weights, std::span<const std::byte> bytes) {
    if (const status ok = detail::check_target(s); !ok) return ok;
    const auto info = detail::read_header(bytes);
    if (!info) return info.error();
    if (const status ok = detail::check_belongs(s, weights, *info); !ok) return ok;
    if (const status ok = detail::check_length(*info, bytes.size()); !ok) return ok;
    std::span<const std::byte> payload = bytes.subspan(sizeof(detail::snapshot_header));
    if (s.position() == 0)  // nothing to lose: once over the bytes is enough
        return detail::fill(s, *info, [&](std::span<std::byte> piece) {
            std::memcpy(piece.data(), payload.data(), piece.size());
            payload = payload.subspan(piece.size());
            return true;
        });
    if (const status ok = detail::check_payload(payload); !ok) return ok;

    const detail::session_extent of{info->position, info->oldest_position, s.shape().window};
    const auto skip = [&](std::size_t count) {
        payload = payload.subspan(count);
        return true;
    };
    detail::each_payload_piece(s, of, [&](std::byte* memory, std::size_t count) {
        std::memcpy(memory, payload.data(), count);
        return skip(count);
    }, skip);
    detail::resume_at(s, *info);
    return {};
}

/// The same piece by piece, straight into the session's memory. Whether all was right is known at the end only, so the session must have read
/// nothing: where it fails, it still has. (A session that has read something is restored from memory, or replaced by a new one that was
/// restored.) The source must neither reset nor move the session (in_use), and what it moves into this one's place frees the memory that it is
/// asked to fill. Errors: as above; the source's own, or file_incomplete where it returned false; invalid_argument (the session has read something).
template <sambay_shape Shape, class Kv, snapshot_source Source>
[[nodiscard]] status restore_snapshot(session<Shape, Kv>& s, weights_fingerprint weights, Source&& source) {
    const auto refusal = [&s]() -> status {
        if (const status ok = detail::check_target(s); !ok || s.position() == 0) return ok;
        return error::format(
            errc::invalid_argument,
            "restoring piece by piece: want a session that has read nothing, have one that has read %zu tokens: reset it, or take a new one",
            s.position());
    };
    if (const status ok = refusal(); !ok) return ok;
    status outcome;
    std::size_t taken = 0;
    const auto get = [&](std::span<std::byte> piece) {
        outcome = detail::status_of(source(piece), errc::file_incomplete, "the source ended", taken);
        taken += piece.size();
        return outcome.has_value();
    };
    std::byte start[sizeof(detail::snapshot_header)];
    if (!get(start)) return outcome;
    const auto info = detail::read_header(start);
    if (!info) return info.error();
    if (const status ok = refusal(); !ok) return ok;  // the source may have moved it
    if (const status ok = detail::check_belongs(s, weights, *info); !ok) return ok;

    const status filled = detail::fill(s, *info, get);
    return outcome ? filled : outcome;
}

PHI4FLASH_END
