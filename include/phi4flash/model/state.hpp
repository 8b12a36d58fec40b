#pragma once
/// What one conversation remembers (session) and what one thread of control computes with (workspace). Both have a size
/// that is known before memory is taken.
#include <phi4flash/kernels/dispatch.hpp>
#include <phi4flash/model/model.hpp>

#include <algorithm>
#include <cstring>

PHI4FLASH_BEGIN

namespace detail {
[[nodiscard]] inline error used_by_its_own_callback(const char* what) {
    return error::format(errc::in_use,
                         "the %s is in use: a callback or executor of a call that has not returned wants it too; give it a %s of its own", what, what);
}
[[nodiscard]] inline error left_in_the_middle(std::size_t position) {
    return error::format(errc::interrupted,
                         "the session was left in the middle of the tokens after %zu, by an exception of its executor or observer: reset() it, or "
                         "copy a whole one into it",
                         position);
}
}  // namespace detail

/// The state of one text: Mamba states, the windows' K/V, and the full layer's K/V for up to `context` tokens. Kv is the
/// element type of K/V: bf16, float (twice the memory), or kv_int8 (half of it, see core/kv_format.hpp). Movable; used by one thread at
/// a time.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class session {
    static_assert(kv_element<Kv>, "phi4flash: K/V are kept in bf16, float or kv_int8");

public:
    /// Bytes for a context of so many tokens.
    [[nodiscard]] static std::size_t bytes(const model<Shape>& m, std::size_t context) {
        session s;
        arena counting;
        s.lay_out(counting, m, context);
        return counting.bytes();
    }

    /// Takes its own memory. Errors: invalid_argument, out_of_memory.
    static result<session> create(const model<Shape>& m, std::size_t context) {
        if (const status ok = check_context(context); !ok) return ok.error();
        auto block = memory_block::allocate(bytes(m, context), "session");
        if (!block) return block.error();
        session s;
        s.own_ = std::move(*block);
        s.attach(s.own_.bytes(), m, context);
        return s;
    }

    /// In the caller's memory: `bytes(m, context)` bytes, aligned to block_alignment, alive as long as the session.
    /// Errors: invalid_argument.
    static result<session> create_in(std::span<std::byte> memory, const model<Shape>& m, std::size_t context) {
        if (const status ok = check_context(context); !ok) return ok.error();
        const std::size_t want = bytes(m, context);
        if (memory.size() < want || reinterpret_cast<std::uintptr_t>(memory.data()) % block_alignment != 0)
            return error::format(errc::invalid_argument, "session memory: want %zu bytes aligned to %zu, have %zu", want, block_alignment,
                                 memory.size());
        session s;
        s.attach(memory.first(want), m, context);
        return s;
    }

    /// Forgets everything: the next token is the first of a new text. Also makes an interrupted session whole. A call that is under way
    /// (whose callback this is) ends with in_use.
    void reset() {
        // K/V need no clearing: nothing is read that was not written before.
        std::ranges::fill(memory_.subspan(recurrent_begin_, recurrent_end_ - recurrent_begin_), std::byte{0});
        position_ = 0;
        whole_ = !busy_;
        disturbed_ = busy_;
    }

    /// Becomes a copy of `other`, a session of the same model: what it has read need not be read again, for another question about
    /// the same text. Contexts may differ. Copies what was written and nothing else. Errors: invalid_argument (another shape);
    /// context_full (too little room here); in_use (from a callback of a call that uses this one); interrupted (the other one is): nothing
    /// has changed then.
    status copy_from(const session& other) {
        if (busy_) return detail::used_by_its_own_callback("session");
        if (!other.whole_) return detail::left_in_the_middle(other.position_);
        const std::size_t states = recurrent_end_ - recurrent_begin_;
        const bool alike = heads_ == other.heads_ && windows_.size() == other.windows_.size() && mambas_.size() == other.mambas_.size() &&
                           states == other.recurrent_end_ - other.recurrent_begin_ &&
                           (windows_.empty() || windows_[0].block.rows == other.windows_[0].block.rows);
        if (!alike) return error::format(errc::invalid_argument, "session: want one of the same model to copy");
        if (other.position_ > context_)
            return error::format(errc::context_full, "session: want room for %zu tokens to copy, have %zu", other.position_, context_);
        std::memcpy(memory_.data() + recurrent_begin_, other.memory_.data() + other.recurrent_begin_, states);
        for (std::size_t i = 0; i < windows_.size(); ++i) {
            const std::size_t rows = (std::min)(other.position_, windows_[i].block.rows);
            copy_slots(heads_, other.windows_[i].block, 0, windows_[i].block, 0, rows);
        }
        copy_slots(heads_, other.full_, 0, full_, 0, other.position_);
        position_ = other.position_;
        whole_ = true;
        return {};
    }

    /// Tokens read so far.
    [[nodiscard]] std::size_t position() const { return position_; }
    /// Tokens it has room for.
    [[nodiscard]] std::size_t context() const { return context_; }
    /// False after a call that an exception of the host's executor or observer has ended: part of the state has read more tokens than
    /// position() says. Every call then returns `interrupted`, until reset() or copy_from().
    [[nodiscard]] bool whole() const { return whole_; }

    // For forward.hpp.
    [[nodiscard]] std::span<const mamba::state> mambas() const { return mambas_; }
    [[nodiscard]] std::span<const kv_ring<Kv>> windows() const { return windows_; }
    [[nodiscard]] const kv_block<Kv>& full() const { return full_; }
    /// Around what changes the state, so that whatever leaves it in the middle leaves a mark.
    void begin_pass() { whole_ = false; }
    void end_pass(std::size_t tokens) {
        position_ += tokens;
        whole_ = !disturbed_;
    }
    [[nodiscard]] bool disturbed() const { return disturbed_; }
    [[nodiscard]] bool busy() const { return busy_; }
    void set_busy(bool busy) {
        busy_ = busy;
        disturbed_ = false;
    }

private:
    static status check_context(std::size_t context) {
        if (context == 0 || context > max_extent) return error::format(errc::invalid_argument, "context: want 1 to %zu tokens, have %zu", max_extent, context);
        return {};
    }

    void attach(std::span<std::byte> memory, const model<Shape>& m, std::size_t context) {
        memory_ = memory;
        context_ = context;
        arena carving(memory.data());
        lay_out(carving, m, context);
        reset();
    }

    void lay_out(arena& memory, const model<Shape>& m, std::size_t context) {
        const extents<Shape>& e = m.shape();
        const layer_plan plan = m.plan();
        const head_layout heads = heads_ = head_layout_of(e);
        auto* const mambas = memory.take<mamba::state>(plan.n_mamba());
        auto* const windows = memory.take<kv_ring<Kv>>(plan.n_window());
        recurrent_begin_ = memory.bytes();
        for (std::size_t i = 0; i < plan.n_mamba(); ++i) {
            const mamba::state one(memory, e.d_inner(), e.d_state(), e.d_conv());
            if (mambas != nullptr) std::construct_at(mambas + i, one);
        }
        recurrent_end_ = memory.bytes();
        for (std::size_t i = 0; i < plan.n_window(); ++i) {
            const kv_ring<Kv> one{kv_block<Kv>(memory, heads, e.window())};
            if (windows != nullptr) std::construct_at(windows + i, one);
        }
        full_ = kv_block<Kv>(memory, heads, context);
        if (mambas != nullptr) mambas_ = {mambas, plan.n_mamba()};
        if (windows != nullptr) windows_ = {windows, plan.n_window()};
    }

    memory_block own_;
    std::span<std::byte> memory_;
    std::span<mamba::state> mambas_;
    std::span<kv_ring<Kv>> windows_;
    kv_block<Kv> full_;
    head_layout heads_;
    std::size_t recurrent_begin_ = 0;  // the Mamba states
    std::size_t recurrent_end_ = 0;
    std::size_t position_ = 0;
    std::size_t context_ = 0;
    bool whole_ = true;
    bool busy_ = false;       // a call uses it
    bool disturbed_ = false;  // and was reset by a callback of that call
};

/// How a workspace computes.
struct workspace_options {
    std::size_t chunk = 256;               ///< prompt tokens read at once; memory grows with it, results change by rounding at most
    const kernel_table* kernels = nullptr; ///< null: best_kernels(), which may ask Linux for AMX; see kernel_choice
    executor_ref threads{};                ///< default: the calling thread alone
    activation_type activations = activation_type::int8;  ///< what packed weights are multiplied with
    page_size pages = page_size::huge;     ///< of memory that it takes itself: the tokens of a chunk lie far apart
};

/// Activations of up to `chunk` tokens, and the logits of one. Shared by sessions, used by one thread of control at a time.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class workspace {
public:
    [[nodiscard]] static std::size_t bytes(const model<Shape>& m, std::size_t chunk) {
        workspace w;
        arena counting;
        w.lay_out(counting, m, chunk);
        return counting.bytes();
    }

    /// Takes its own memory. Errors: invalid_argument, out_of_memory.
    static result<workspace> create(const model<Shape>& m, const workspace_options& options = {}) {
        if (const status ok = check_chunk(options.chunk); !ok) return ok.error();
        auto block = memory_block::allocate(bytes(m, options.chunk), "workspace", options.pages);
        if (!block) return block.error();
        workspace w;
        w.own_ = std::move(*block);
        w.attach(w.own_.bytes(), m, options);
        return w;
    }

    /// In the caller's memory: `bytes(m, options.chunk)` bytes, aligned to block_alignment. Errors: invalid_argument.
    static result<workspace> create_in(std::span<std::byte> memory, const model<Shape>& m, const workspace_options& options = {}) {
        if (const status ok = check_chunk(options.chunk); !ok) return ok.error();
        const std::size_t want = bytes(m, options.chunk);
        if (memory.size() < want || reinterpret_cast<std::uintptr_t>(memory.data()) % block_alignment != 0)
            return error::format(errc::invalid_argument, "workspace memory: want %zu bytes aligned to %zu, have %zu", want, block_alignment,
                                 memory.size());
        workspace w;
        w.attach(memory.first(want), m, options);
        return w;
    }

    [[nodiscard]] std::size_t chunk() const { return chunk_; }
    [[nodiscard]] const kernel_table& kernels() const { return *with.kernels; }

    // For forward.hpp.
    [[nodiscard]] bool busy() const { return busy_; }
    void set_busy(bool busy) { busy_ = busy; }
    compute with;
    rows_view<float> residual;  ///< [chunk, d_model]
    rows_view<float> normed;    ///< [chunk, d_model]
    mlp::workspace mlp_scratch;
    mamba::workspace mamba_scratch;
    gated_memory::workspace memory_scratch;
    attention_workspace<Kv> attention_scratch;
    rows_view<float> logits;    ///< [1, vocab]

private:
    static status check_chunk(std::size_t chunk) {
        if (chunk == 0 || chunk > 65536) return error::format(errc::invalid_argument, "chunk: want 1 to 65536 tokens, have %zu", chunk);
        return {};
    }

    void attach(std::span<std::byte> memory, const model<Shape>& m, const workspace_options& options) {
        arena carving(memory.data());
        lay_out(carving, m, options.chunk);
        with.kernels = options.kernels == nullptr ? &best_kernels() : options.kernels;
        with.threads = options.threads;
        with.activations = options.activations;
        chunk_ = options.chunk;
    }

    void lay_out(arena& memory, const model<Shape>& m, std::size_t chunk) {
        const extents<Shape>& e = m.shape();
        const std::size_t widest = (std::max)({e.d_model(), e.d_ff(), e.d_inner(), e.dt_rank()});
        with.arranged = memory.take<std::byte>(chunk * arranged_bytes(widest));
        residual = take_rows(memory, chunk, e.d_model());
        normed = take_rows(memory, chunk, e.d_model());
        mlp_scratch = mlp::workspace(memory, chunk, e.d_ff());
        mamba_scratch = mamba::workspace(memory, chunk, e.d_inner(), e.d_state(), e.dt_rank());
        memory_scratch = gated_memory::workspace(memory, chunk, e.d_inner());
        attention_scratch = attention_workspace<Kv>(memory, head_layout_of(e), chunk);
        logits = take_rows(memory, 1, e.vocab());
    }

    memory_block own_;
    std::size_t chunk_ = 0;
    bool busy_ = false;  // a call uses it
};

PHI4FLASH_END
