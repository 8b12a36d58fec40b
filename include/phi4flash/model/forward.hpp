#pragma once
/// The forward pass in one call: `step` for one token, `prefill` for a prompt, `logits_all` for evaluation. All three are a few lines over
/// model/pass.hpp, which has the walk itself and what can be done between its pieces.
#include <phi4flash/model/pass.hpp>

PHI4FLASH_BEGIN

/// Asked between chunks of a prompt; returns false to stop. `read` of `total` tokens are done.
struct always_continue {
    bool operator()(std::size_t /*read*/, std::size_t /*total*/) const { return true; }
};

namespace detail {

/// Marks a session and a workspace as used while a host's callback runs.
template <sambay_shape Shape, class Kv>
class use_of {
public:
    use_of(session<Shape, Kv>& past, workspace<Shape, Kv>& w) : past_(past), w_(w) {
        past_.set_busy(true);
        w_.set_busy(true);
    }
    ~use_of() {
        past_.set_busy(false);
        w_.set_busy(false);
    }
    use_of(const use_of&) = delete;
    use_of& operator=(const use_of&) = delete;

    /// Whether the session is still where the call left it.
    [[nodiscard]] status refusal() const {
        if (!past_.disturbed() && !past_.replaced()) return {};
        return error::format(errc::in_use, "the session was reset or moved by a callback of the call that uses it: do that after the call");
    }

private:
    session<Shape, Kv>& past_;
    workspace<Shape, Kv>& w_;
};

/// All tokens of a call have room in a session that stands at `position`, and nothing else is refused: before the first chunk is read.
template <sambay_shape Shape, class Kv>
[[nodiscard]] status check_call(const model<Shape>& m, session<Shape, Kv>& past, std::size_t position, workspace<Shape, Kv>& w,
                                std::span<const std::int32_t> tokens, rows_view<float> logits) {
    if (const status ok = past.room_for(tokens.size(), position); !ok) return ok;
    for (std::size_t begin = 0; begin < tokens.size() || begin == 0; begin += w.chunk()) {
        const reading<Shape, Kv> r{&past, tokens.subspan(begin, (std::min)(w.chunk(), tokens.size() - begin))};
        if (const status ok = pass<Shape, Kv>::refusal_elsewhere(m, w, {&r, 1}, logits); !ok) return ok;
    }
    return {};
}

/// Reads a chunk to its end. `observe(layer, rows)` sees the residual stream after each layer.
template <sambay_shape Shape, class Kv, class Observe>
[[nodiscard]] status read_chunk(const model<Shape>& m, workspace<Shape, Kv>& w, const reading<Shape, Kv>& r, rows_view<float> logits,
                                Observe&& observe) {
    pass<Shape, Kv> p;
    if (const status ok = p.begin(m, w, {&r, 1}, logits); !ok) return ok;
    for (std::size_t seen = 0; p.advance();)
        if (p.layers_done() != seen) observe(seen++, p.residual());
    if (const status ok = p.check_logits(0); !ok) return ok;
    return p.commit(0, r.tokens.size());
}

struct observe_nothing {
    void operator()(std::size_t, rows_view<const float>) const {}
};

}  // namespace detail

/// Reads one token and returns the logits of the next [vocab], finite numbers; they stay valid until the workspace is used again.
/// Errors: those of pass::begin; not_finite (damaged weights). The session is then as before, as it is where the executor throws.
template <sambay_shape Shape, class Kv>
result<std::span<const float>> step(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::int32_t token) {
    const reading<Shape, Kv> r{&past, {&token, 1}};
    if (const status ok = detail::read_chunk(m, w, r, w.logits, detail::observe_nothing{}); !ok) return ok.error();
    return std::span<const float>(w.logits.data, m.shape().vocab());
}

/// Reads a prompt in chunks of the workspace's size and returns the logits after its last token [vocab]. Equal, but for rounding,
/// to calling `step` for each token, at any chunk size.
/// Errors: those of pass::begin: the session is then as before; cancelled (`go_on` returned false), not_finite: the session has read the
/// chunks before, as its position() says, as it has where `go_on` or the executor throws.
/// `go_on` may read the session and copy it into another one; it must not use the workspace, nor change the session.
template <sambay_shape Shape, class Kv, class Continue = always_continue>
result<std::span<const float>> prefill(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w,
                                       std::span<const std::int32_t> tokens, Continue&& go_on = {}) {
    if (const status ok = detail::check_call(m, past, past.position(), w, tokens, w.logits); !ok) return ok.error();
    for (std::size_t begin = 0; begin < tokens.size();) {
        const std::size_t count = (std::min)(w.chunk(), tokens.size() - begin);
        const bool last = begin + count == tokens.size();
        const reading<Shape, Kv> r{&past, tokens.subspan(begin, count), last ? std::size_t{1} : std::size_t{0}};
        if (const status ok = detail::read_chunk(m, w, r, w.logits, detail::observe_nothing{}); !ok) return ok.error();
        begin += count;
        const detail::use_of in_use(past, w);  // by go_on
        const bool more = go_on(begin, tokens.size());
        if (const status ok = in_use.refusal(); !ok) return ok.error();
        if (!more && !last)
            return error::format(errc::cancelled, "stopped by the caller after %zu of %zu prompt tokens", begin, tokens.size());
    }
    return std::span<const float>(w.logits.data, m.shape().vocab());
}

/// Reads tokens and computes the logits after every one of them, for evaluation: all layers run for all tokens.
/// Shape: out [tokens.size(), vocab]. `observe(first_token, layer, rows)` may look at the residual stream after each layer; it must use neither
/// session nor workspace.   Errors: as `prefill`, and invalid_argument where `out` has too few rows.
template <sambay_shape Shape, class Kv, class Observe>
status logits_all(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::span<const std::int32_t> tokens,
                  rows_view<float> out, Observe&& observe) {
    if (const status ok = detail::check_call(m, past, past.position(), w, tokens, out); !ok) return ok;
    if (out.count < tokens.size())
        return error::format(errc::invalid_argument, "room for logits: want %zu rows, have %zu", tokens.size(), out.count);
    for (std::size_t begin = 0; begin < tokens.size();) {
        const std::size_t count = (std::min)(w.chunk(), tokens.size() - begin);
        const reading<Shape, Kv> r{&past, tokens.subspan(begin, count), count};
        const auto seen = [&](std::size_t layer, rows_view<const float> rows) { observe(begin, layer, rows); };
        if (const status ok = detail::read_chunk(m, w, r, out.rows(begin, count), seen); !ok) return ok;
        begin += count;
    }
    return {};
}

template <sambay_shape Shape, class Kv>
status logits_all(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::span<const std::int32_t> tokens,
                  rows_view<float> out) {
    return logits_all(m, past, w, tokens, out, [](std::size_t, std::size_t, rows_view<const float>) {});
}

PHI4FLASH_END
