/// A saved session that was altered: it is refused and the session is as before, bit for bit, or it is taken and the session can go on.
///
/// The input says what a session has read, which session is to become it, and how its bytes are altered; checksums are mended where it says so,
/// as a file's author would do it.
#include "fuzz.hpp"
#include "tiny.hpp"

#include <phi4flash/model/forward.hpp>
#include <phi4flash/model/snapshot.hpp>

#include <vector>

namespace snapshot_entry {

using namespace phi4flash;
using bytes = std::vector<std::byte>;

struct fixture {
    sambay_shape shape{.d_model = 16, .n_layers = 8, .d_ff = 8, .n_heads = 4, .n_kv_heads = 2, .vocab = 16, .window = 3, .d_inner = 8, .d_state = 2,
                       .d_conv = 3, .dt_rank = 2};
    std::string file = fuzz::tiny_model(shape, dtype::f32, 1);
    packed_model source = *packed_model::from_memory(std::as_bytes(std::span(file)));
    model<> m = *model<>::bind(source);
    weights_fingerprint weights = fingerprint_of(source, m);
};
const fixture& all() {
    static const fixture f;
    return f;
}

/// Checksums that fit what the bytes are now.
void mend(bytes& b) {
    detail::snapshot_header h;
    if (b.size() < sizeof h) return;
    std::memcpy(&h, b.data(), sizeof h);
    h.checksum = detail::checksum_of(h);
    std::memcpy(b.data(), &h, sizeof h);
    if (b.size() < sizeof h + detail::snapshot_trailer) return;
    xxh64 sum;
    sum.update(std::span(b).subspan(sizeof h, b.size() - sizeof h - detail::snapshot_trailer));
    const std::uint64_t trailer = sum.value();
    std::memcpy(b.data() + b.size() - sizeof trailer, &trailer, sizeof trailer);
}

template <class Kv>
bytes save(const session<any_sambay, Kv>& s) {
    bytes out(snapshot_bytes(s));
    PHI4FLASH_FUZZ_CHECK(save_snapshot(s, all().weights, out));
    return out;
}

template <class Kv>
session<any_sambay, Kv> make_session(fuzz::input& in, workspace<any_sambay, Kv>& w) {
    const std::size_t context = 1 + in.below(12);
    auto s = session<any_sambay, Kv>::create(all().m, {.context = context, .undo = in.below(4) % (context + 1), .pages = page_size::normal});
    PHI4FLASH_FUZZ_CHECK(s);
    for (std::size_t n = in.below(context + 1); n > 0; --n) PHI4FLASH_FUZZ_CHECK(step(all().m, *s, w, static_cast<std::int32_t>(n)));
    return *std::move(s);
}

template <class Kv>
void run(fuzz::input& in, std::uint8_t flags) {
    auto w = *workspace<any_sambay, Kv>::create(all().m, {.chunk = 4, .pages = page_size::normal, .states = 4});
    bytes altered = save(make_session(in, w));
    auto s = make_session(in, w);
    if ((flags & 4) != 0) {
        const auto raw = in.rest();
        altered.assign(raw.begin(), raw.end());
    } else {
        for (std::size_t edits = in.below(16); edits > 0 && !altered.empty(); --edits) {
            const std::size_t at = in.below(65536) % altered.size();
            const std::uint8_t how = in.byte();
            if (how < 200) altered[at] = static_cast<std::byte>(in.byte());
            else if (how < 220) altered.resize(at);
            else if (how < 240) altered.insert(altered.end(), at % 300, static_cast<std::byte>(in.byte()));
            else altered.erase(altered.begin() + static_cast<std::ptrdiff_t>(at));
        }
    }
    if ((flags & 8) != 0) mend(altered);

    if (const auto info = inspect_snapshot(altered); !info) fuzz::check_refusal(info.error());
    const bytes before = save(s);
    const std::size_t position = s.position();
    status ok;
    if ((flags & 16) != 0) {
        std::span<const std::byte> rest = altered;
        ok = restore_snapshot(s, all().weights, [&](std::span<std::byte> piece) {
            if (piece.size() > rest.size()) return false;
            std::ranges::copy(rest.first(piece.size()), piece.begin());
            rest = rest.subspan(piece.size());
            return true;
        });
    } else {
        ok = restore_snapshot(s, all().weights, altered);
    }
    PHI4FLASH_FUZZ_CHECK(!s.busy());
    if (!ok) {
        fuzz::check_refusal(ok.error());
        PHI4FLASH_FUZZ_CHECK(s.position() == position && save(s) == before);
    }
    PHI4FLASH_FUZZ_CHECK(s.oldest_position() <= s.position() && s.position() <= s.context());
    if (s.oldest_position() < s.position()) PHI4FLASH_FUZZ_CHECK(s.rewind(s.oldest_position()));
    if (s.position() == s.context()) return;
    if (const auto logits = step(all().m, s, w, 1); !logits) PHI4FLASH_FUZZ_CHECK(logits.error().code() == errc::not_finite);
}

}  // namespace snapshot_entry

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace snapshot_entry;
    (void)all();
    const fuzz::memory_limit limit(size, std::size_t{1} << 18, 16);
    fuzz::input in(data, size);
    const std::uint8_t flags = in.byte();
    switch (flags & 3) {
        case 0: run<bf16>(in, flags); break;
        case 1: run<float>(in, flags); break;
        default: run<kv_int8>(in, flags); break;
    }
    return 0;
}
