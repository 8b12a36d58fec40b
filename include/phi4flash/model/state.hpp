#pragma once
/// What one conversation remembers (session) and what one thread of control computes with (workspace). Both have a size
/// that is known before memory is taken.
#include <phi4flash/kernels/dispatch.hpp>
#include <phi4flash/model/model.hpp>

#include <algorithm>
#include <utility>

PHI4FLASH_BEGIN

namespace detail {
[[nodiscard]] inline error in_use_error(const char* what) {
    return error::format(errc::in_use,
                         "the %s is in use: a pass that has not ended, or a call whose callback this is, has it; give this one a %s of its own", what,
                         what);
}

[[nodiscard]] inline error unfinished_error() {
    return error::format(errc::in_use,
                         "the session is being restored, or was moved while it was: it holds a part of what it shall; reset it, or restore it again");
}

[[nodiscard]] inline error moved_from_error(const char* what = "session") {
    return error::format(errc::invalid_argument, "the %s has no memory: it was moved to another place", what);
}
}  // namespace detail

/// How much a session holds. @since 0.2
struct session_options {
    std::size_t context = 0;  ///< tokens that it has room for
    /// Tokens that can be taken back from where it has read to; each costs the Mamba states and a row of every window again.
    std::size_t undo = 0;
    /// Of memory that it takes itself: states, windows, and the full layer's K/V behind the first `small_page_tokens`. Those grow page by page, so
    /// that a short text in a large context takes what it needs and no more.
    page_size pages = page_size::huge;
    static constexpr std::size_t small_page_tokens = 4096;
};

namespace detail {

/// How a session's memory is laid out: run without memory to count, and again to carve.
template <class Kv>
struct session_places {
    std::span<float> states;  ///< [undo + 2] times all Mamba states: those after n tokens at (first_slot + n) mod (undo + 2)
    std::span<kv_ring<Kv>> windows;
    kv_block<Kv> full;
    std::size_t state_floats = 0;  ///< all Mamba states, once
    std::size_t fixed_bytes = 0;   ///< of everything that each token touches

    session_places() = default;
    template <sambay_shape Shape>
    constexpr session_places(arena& memory, const extents<Shape>& e, const session_options& options) {
        const layer_plan plan(e.n_layers());
        const head_layout heads = head_layout_of(e);
        state_floats = mamba_states(plan.n_mamba(), e.d_inner(), e.d_state(), e.d_conv()).floats();
        const std::uint64_t all = std::uint64_t{state_floats} * (options.undo + 2);
        auto* const state_place = memory.take<float>(all);
        auto* const window_place = memory.take<kv_ring<Kv>>(plan.n_window());
        for (std::size_t i = 0; i < plan.n_window(); ++i) {
            const kv_ring<Kv> one{kv_block<Kv>(memory, heads, e.window() + options.undo), e.window()};
            if (window_place != nullptr) std::construct_at(window_place + i, one);
        }
        fixed_bytes = memory.bytes();
        full = kv_block<Kv>(memory, heads, options.context);
        if (state_place != nullptr) states = {state_place, static_cast<std::size_t>(all)};
        if (window_place != nullptr) windows = {window_place, plan.n_window()};
    }
};

}  // namespace detail

/// The state of one text: Mamba states, the windows' K/V, and the full layer's K/V for up to `context` tokens. Kv is the
/// element type of K/V: bf16, float (twice the memory), or kv_int8 (half of it, see core/kv_format.hpp). Used by one thread at a
/// time.
///
/// What a pass changes, it changes at the end (pass::commit). Until then it writes only where nothing reads: keys of the full layer behind
/// position(), and the states that would follow in a place that holds none.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class session {
    static_assert(kv_element<Kv>, "phi4flash: K/V are kept in bf16, float or kv_int8");

public:
    /// What is wrong with these options, before anything is counted or taken. Errors: invalid_argument.
    [[nodiscard]] static status refusal(const session_options& o) {
        if constexpr (constexpr kv_format format = kv_format_of<Kv>; !is_compiled(format))
            return error::format(errc::invalid_argument, "K/V in %s: this program was compiled without them (PHI4FLASH_HAS_KV_%s=0)", name_of(format),
                                 name_of(format));
        if (o.context == 0 || o.context > max_extent)
            return error::format(errc::invalid_argument, "context: want 1 to %zu tokens, have %zu", max_extent, o.context);
        if (o.undo > o.context)
            return error::format(errc::invalid_argument, "undo: want at most the context of %zu tokens, have %zu", o.context, o.undo);
        return {};
    }

    /// Bytes that such a session takes; SIZE_MAX where it is more than that.
    [[nodiscard]] static constexpr std::size_t bytes(const extents<Shape>& e, const session_options& options) {
        arena counting;
        (void)detail::session_places<Kv>(counting, e, options);
        return counting.bytes();
    }
    [[nodiscard]] static std::size_t bytes(const model<Shape>& m, const session_options& options) { return bytes(m.shape(), options); }
    [[nodiscard]] static std::size_t bytes(const model<Shape>& m, std::size_t context) { return bytes(m, session_options{.context = context}); }

    /// Takes its own memory. Errors: invalid_argument, out_of_memory.
    static result<session> create(const model<Shape>& m, const session_options& options) {
        if (const status ok = refusal(options); !ok) return ok.error();
        arena counting;
        const detail::session_places<Kv> places(counting, m.shape(), options);
        auto block = memory_block::allocate(counting.bytes(), "session", options.pages, places.fixed_bytes);
        if (!block) return block.error();
        session s;
        s.own_ = std::move(*block);
        s.attach(s.own_.bytes(), m, options);
        if (options.pages == page_size::huge && options.context > session_options::small_page_tokens)
            s.full().each_tail(s.heads(), session_options::small_page_tokens,
                               [](std::span<std::byte> tail) { (void)ask_for_huge_pages_inside(tail); });
        return s;
    }
    static result<session> create(const model<Shape>& m, std::size_t context) { return create(m, session_options{.context = context}); }

    /// In the caller's memory: `bytes(m, options)` bytes, aligned to block_alignment, alive as long as the session.
    /// Errors: invalid_argument.
    static result<session> create_in(std::span<std::byte> memory, const model<Shape>& m, const session_options& options) {
        if (const status ok = refusal(options); !ok) return ok.error();
        const std::size_t want = bytes(m, options);
        if (const status ok = detail::check_memory(memory, want, "session"); !ok) return ok.error();
        session s;
        s.attach(memory.first(want), m, options);
        return s;
    }
    static result<session> create_in(std::span<std::byte> memory, const model<Shape>& m, std::size_t context) {
        return create_in(memory, m, session_options{.context = context});
    }

    /// Without room for any token.
    session() = default;
    session(session&& other) noexcept { *this = std::move(other); }
    /// What was moved from has no room for any token, and fits no model. A pass that reads into either of the two computes no further, and what it
    /// has found out is dropped: a text that was under way here goes on if the new session stands where the old one did, else it ends (in_use).
    session& operator=(session&& other) noexcept {
        if (this == &other) return *this;
        own_ = std::move(other.own_);
        at_ = std::move(other.at_);
        heads_ = other.heads_;
        shape_ = std::exchange(other.shape_, {});
        first_slot_ = other.first_slot_;
        position_ = std::exchange(other.position_, 0);
        oldest_ = std::exchange(other.oldest_, 0);
        context_ = std::exchange(other.context_, 0);
        undo_ = other.undo_;
        unfinished_ = std::exchange(other.unfinished_, false);
        replaced_ = busy_;
        other.replaced_ = other.busy_;
        return *this;
    }

    /// Forgets everything: the next token is the first of a new text. A pass, or a call whose callback this is, then cannot be committed
    /// (in_use).
    void reset() {
        // K/V need no clearing: nothing is read that was not written before.
        first_slot_ = slot_of(position_);  // never the one that a pass writes
        position_ = 0;
        std::fill_n(states_after(0).data(), states_after(0).size(), 0.0f);
        oldest_ = 0;
        unfinished_ = unfinished_ && busy_;  // who restores it has a piece of its memory yet
        disturbed_ = busy_;
    }

    /// Takes tokens back: the next token is the one at `position`, and everything is, bit for bit, as it was there. Further back than
    /// oldest_position() only a copy, or reading again, leads. Errors: invalid_argument (ahead of position(), or further back); in_use.
    /// Nothing has changed then. @since 0.2
    [[nodiscard]] status rewind(std::size_t position) {
        if (busy_) return detail::in_use_error("session");
        if (position < oldest_ || position > position_)
            return error::format(errc::invalid_argument,
                                 "rewind: want token %zu to %zu, have %zu; session_options::undo is how many can be taken back", oldest_, position_,
                                 position);
        position_ = position;
        return {};
    }

    /// Becomes a copy of `other`, a session of the same model: what it has read need not be read again, for another question about
    /// the same text. Contexts and what can be undone may differ. Copies what was written and nothing else. Errors: invalid_argument (another
    /// shape); context_full (too little room here); in_use (a pass reads into this one, the other one is being restored): nothing has
    /// changed then.
    status copy_from(const session& other) {
        if (busy_) return detail::in_use_error("session");
        if (other.unfinished_) return detail::unfinished_error();
        if (!alike(other)) return error::format(errc::invalid_argument, "session: want one of the same model to copy");
        if (other.position_ > context_)
            return error::format(errc::context_full, "session: want room for %zu tokens to copy, have %zu", other.position_, context_);
        unfinished_ = false;
        position_ = other.position_;
        oldest_ = (std::max)(other.oldest_, position_ - (std::min)(position_, undo_));
        for (std::size_t at = oldest_; at <= position_; ++at) {
            const auto from = other.states_after(at);
            std::copy_n(from.data(), from.size(), states_after(at).data());
        }
        for (std::size_t i = 0; i < at_.windows.size(); ++i) at_.windows[i].copy_from(heads_, other.at_.windows[i], position_);
        copy_slots(heads_, other.at_.full, 0, at_.full, 0, position_);
        return {};
    }

    /// Tokens read so far.
    [[nodiscard]] std::size_t position() const { return position_; }
    /// How far `rewind` can go. @since 0.2
    [[nodiscard]] std::size_t oldest_position() const { return oldest_; }
    /// Tokens it has room for.
    [[nodiscard]] std::size_t context() const { return context_; }
    /// It has no memory, and all but asking it is refused: it was moved from, or made by the default constructor. @since 0.2
    [[nodiscard]] bool moved_from() const { return context_ == 0; }
    /// Tokens that can be taken back from where it has read to. @since 0.2
    [[nodiscard]] std::size_t undo() const { return undo_; }

    // For pass.hpp and snapshot.hpp.
    /// All Mamba states after the first `position` tokens, from oldest_position() to position(). The place behind the last of them is free:
    /// nothing reads it before `advance`.
    [[nodiscard]] std::span<float> states_after(std::size_t position) const {
        return at_.states.subspan(slot_of(position) * at_.state_floats, at_.state_floats);
    }
    [[nodiscard]] std::span<const kv_ring<Kv>> windows() const { return at_.windows; }
    [[nodiscard]] const kv_block<Kv>& full() const { return at_.full; }
    [[nodiscard]] const head_layout& heads() const { return heads_; }
    [[nodiscard]] const sambay_shape& shape() const { return shape_; }
    [[nodiscard]] bool fits(const model<Shape>& m) const { return shape_ == m.shape().shape(); }
    /// Errors: context_full.
    [[nodiscard]] status room_for(std::size_t tokens) const { return room_for(tokens, position_); }
    /// The same where it stands at `position`.
    [[nodiscard]] status room_for(std::size_t tokens, std::size_t position) const {
        if (tokens <= context_ - position) return {};
        return error::format(errc::context_full, "the session has room for %zu tokens and has read %zu: %zu more do not fit", context_, position,
                             tokens);
    }
    /// `tokens` more have been read. The states after the last of them, up to undo() + 1, are in the places behind position(), one after the
    /// other, as if no more had been read than these.
    void advance(std::size_t tokens) {
        const std::size_t places = undo_ + 2;
        const std::size_t skipped = tokens - (std::min)(tokens, undo_ + 1);
        first_slot_ = (first_slot_ + places - skipped % places) % places;
        position_ += tokens;
        oldest_ = (std::max)(oldest_, position_ - (std::min)(position_, undo_));
    }
    /// Everything that belongs to these positions is in place.
    void resume(std::size_t position, std::size_t oldest) {
        position_ = position;
        oldest_ = oldest;
        unfinished_ = false;
    }
    /// It has read nothing, and yet its memory is not that of a session that has: something is being restored into it.
    [[nodiscard]] bool unfinished() const { return unfinished_; }
    void set_unfinished() { unfinished_ = true; }
    [[nodiscard]] bool disturbed() const { return disturbed_; }
    /// Its memory is not what it was when the pass began: it was moved from, or to.
    [[nodiscard]] bool replaced() const { return replaced_; }
    [[nodiscard]] bool busy() const { return busy_; }
    void set_busy(bool busy) {
        busy_ = busy;
        disturbed_ = replaced_ = false;
    }

private:
    [[nodiscard]] std::size_t slot_of(std::size_t position) const { return (first_slot_ + position) % (undo_ + 2); }

    [[nodiscard]] bool alike(const session& other) const { return shape_ == other.shape_; }

    void attach(std::span<std::byte> memory, const model<Shape>& m, const session_options& options) {
        context_ = options.context;
        undo_ = options.undo;
        shape_ = m.shape().shape();
        heads_ = head_layout_of(m.shape());
        arena carving(memory.data());
        at_ = detail::session_places<Kv>(carving, m.shape(), options);
        reset();
    }

    memory_block own_;
    detail::moving_places<detail::session_places<Kv>> at_;
    head_layout heads_;
    sambay_shape shape_;
    std::size_t first_slot_ = 0;
    std::size_t position_ = 0;
    std::size_t oldest_ = 0;
    std::size_t context_ = 0;
    std::size_t undo_ = 0;
    bool busy_ = false;       // a pass or a call uses it, in this place
    bool disturbed_ = false;  // and it was reset meanwhile
    bool replaced_ = false;
    bool unfinished_ = false;
};

/// A session in a pass: which rows it has, and where its kept states are. @since 0.2
template <sambay_shape Shape, class Kv>
struct text_in_pass {
    session<Shape, Kv>* past = nullptr;
    std::size_t first = 0;       ///< position of its first token
    std::size_t row = 0;         ///< of its first token
    std::size_t count = 0;       ///< tokens
    std::size_t choices = 0;     ///< how many of the last tokens the commit may end with; 0 when it is committed
    std::size_t wanted_row = 0;  ///< of the first token after which logits are wanted, among all such
    std::size_t wanted = 0;      ///< how many these are, the last ones
    float* before = nullptr;     ///< the session's states
    float* after = nullptr;      ///< those after the first token that is kept: of the session too where that is one, else in the workspace
    std::size_t kept = 0;        ///< how many these are, the last ones
    std::size_t finite = 0;      ///< rows of logits that are numbers, before the first that is not
};

/// How a workspace computes.
struct workspace_options {
    std::size_t chunk = 256;               ///< prompt tokens read at once; memory grows with it, results change by rounding at most
    const kernel_table* kernels = nullptr; ///< null: best_kernels(), which may ask Linux for AMX; see kernel_choice
    executor_ref threads{};                ///< default: the calling thread alone
    activation_type activations = activation_type::int8;  ///< what packed weights are multiplied with
    page_size pages = page_size::huge;     ///< of memory that it takes itself: the tokens of a chunk lie far apart
    std::size_t states = 1;                ///< Mamba states of all layers that a pass can keep until its end: see `reading`; one alone needs none
    std::size_t logits = 1;                ///< rows of logits that a pass can compute: see `reading`
};

namespace detail {

/// How a workspace's memory is laid out: run without memory to count, and again to carve.
template <sambay_shape Shape, class Kv>
struct workspace_places {
    rows_view<float> residual;  ///< [chunk, d_model]
    rows_view<float> normed;    ///< [chunk, d_model]
    mlp::workspace mlp_scratch;
    mamba::workspace mamba_scratch;
    gated_memory::workspace memory_scratch;
    attention_workspace attention_scratch;
    rows_view<float> logits;               ///< [workspace_options::logits, vocab]
    std::span<kv_block<Kv>> staging;       ///< keys and values of a chunk, one for each window
    rows_view<float> states;               ///< [workspace_options::states, all Mamba states]
    mamba_states mambas;                   ///< how they lie in such a row
    std::span<text_in_pass<Shape, Kv>> texts;  ///< [chunk]
    std::byte* arranged = nullptr;  ///< see compute

    constexpr void lay_out(arena& memory, const extents<Shape>& e, const workspace_options& options) {
        const layer_plan plan(e.n_layers());
        const head_layout heads = head_layout_of(e);
        const std::size_t chunk = options.chunk;
        const std::size_t widest = (std::max)({e.d_model(), e.d_ff(), e.d_inner(), e.dt_rank()});
        arranged = memory.take<std::byte>(std::uint64_t{chunk} * arranged_bytes(widest));
        residual = take_rows(memory, chunk, e.d_model());
        normed = take_rows(memory, chunk, e.d_model());
        mlp_scratch = mlp::workspace(memory, chunk, e.d_ff());
        mamba_scratch = mamba::workspace(memory, chunk, e.d_inner(), e.d_state(), e.dt_rank());
        memory_scratch = gated_memory::workspace(memory, chunk, e.d_inner());
        attention_scratch = attention_workspace(memory, heads, chunk);
        logits = take_rows(memory, options.logits, e.vocab());
        auto* const windows = memory.take<kv_block<Kv>>(plan.n_window());
        for (std::size_t i = 0; i < plan.n_window(); ++i) {
            const kv_block<Kv> one(memory, heads, chunk);
            if (windows != nullptr) std::construct_at(windows + i, one);
        }
        mambas = mamba_states(plan.n_mamba(), e.d_inner(), e.d_state(), e.d_conv());
        states = take_rows(memory, options.states == 1 ? 0 : options.states, mambas.floats());
        states.count = options.states;  // one alone is never written here: see pass.hpp
        auto* const places = memory.take<text_in_pass<Shape, Kv>>(chunk);
        for (std::size_t i = 0; places != nullptr && i < chunk; ++i) std::construct_at(places + i);
        if (windows != nullptr) staging = {windows, plan.n_window()};
        if (places != nullptr) texts = {places, chunk};
    }
};

}  // namespace detail

/// Activations of up to `chunk` tokens, and what a pass keeps until its end. Shared by sessions, used by one thread of control at a time.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class workspace : public detail::moving_places<detail::workspace_places<Shape, Kv>> {
public:
    /// What is wrong with these options, before anything is counted or taken. Errors: invalid_argument.
    [[nodiscard]] static status refusal(const workspace_options& o) {
        if (o.chunk == 0 || o.chunk > 65536) return error::format(errc::invalid_argument, "chunk: want 1 to 65536 tokens, have %zu", o.chunk);
        if (o.states == 0 || o.states > o.chunk)
            return error::format(errc::invalid_argument, "states: want 1 to %zu, the chunk, have %zu", o.chunk, o.states);
        if (o.logits == 0 || o.logits > o.chunk)
            return error::format(errc::invalid_argument, "logits: want 1 to %zu rows, the chunk, have %zu", o.chunk, o.logits);
        return {};
    }

    /// Bytes that such a workspace takes; SIZE_MAX where it is more than that.
    [[nodiscard]] static constexpr std::size_t bytes(const extents<Shape>& e, const workspace_options& options) {
        detail::workspace_places<Shape, Kv> places;
        arena counting;
        places.lay_out(counting, e, options);
        return counting.bytes();
    }
    [[nodiscard]] static std::size_t bytes(const model<Shape>& m, const workspace_options& options) { return bytes(m.shape(), options); }
    [[nodiscard]] static std::size_t bytes(const model<Shape>& m, std::size_t chunk) { return bytes(m, workspace_options{.chunk = chunk}); }

    /// Takes its own memory. Errors: invalid_argument, out_of_memory.
    static result<workspace> create(const model<Shape>& m, const workspace_options& options = {}) {
        if (const status ok = refusal(options); !ok) return ok.error();
        auto block = memory_block::allocate(bytes(m, options), "workspace", options.pages);
        if (!block) return block.error();
        workspace w;
        w.own_ = std::move(*block);
        w.attach(w.own_.bytes(), m, options);
        return w;
    }

    /// In the caller's memory: `bytes(m, options)` bytes, aligned to block_alignment. Errors: invalid_argument.
    static result<workspace> create_in(std::span<std::byte> memory, const model<Shape>& m, const workspace_options& options = {}) {
        if (const status ok = refusal(options); !ok) return ok.error();
        const std::size_t want = bytes(m, options);
        if (const status ok = detail::check_memory(memory, want, "workspace"); !ok) return ok.error();
        workspace w;
        w.attach(memory.first(want), m, options);
        return w;
    }

    /// Without room for any token.
    workspace() = default;
    workspace(workspace&& other) noexcept { *this = std::move(other); }
    /// What was moved from has no room for any token, and fits no model. Not while a pass computes with either.
    workspace& operator=(workspace&& other) noexcept {
        if (this == &other) return *this;
        detail::moving_places<detail::workspace_places<Shape, Kv>>::operator=(std::move(other));
        with = other.with;
        other.with.arranged = nullptr;
        own_ = std::move(other.own_);
        shape_ = std::exchange(other.shape_, {});
        chunk_ = std::exchange(other.chunk_, 0);
        busy_ = other.busy_;
        return *this;
    }

    [[nodiscard]] std::size_t chunk() const { return chunk_; }
    [[nodiscard]] const kernel_table& kernels() const { return *with.kernels; }

    // For pass.hpp.
    [[nodiscard]] bool fits(const model<Shape>& m) const { return shape_ == m.shape().shape(); }
    [[nodiscard]] bool busy() const { return busy_; }
    void set_busy(bool busy) { busy_ = busy; }
    compute with;

private:
    void attach(std::span<std::byte> memory, const model<Shape>& m, const workspace_options& options) {
        shape_ = m.shape().shape();
        arena carving(memory.data());
        this->lay_out(carving, m.shape(), options);
        with.arranged = this->arranged;
        with.kernels = options.kernels == nullptr ? &best_kernels() : options.kernels;
        with.threads = options.threads;
        with.activations = options.activations;
        chunk_ = options.chunk;
    }

    memory_block own_;
    sambay_shape shape_;
    std::size_t chunk_ = 0;
    bool busy_ = false;  // a pass or a call uses it
};

PHI4FLASH_END
