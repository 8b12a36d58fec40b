#pragma once
/// The walk through the model, as a value: tokens of one or many sessions, read a piece at a time.
///
///     layer                     mixer                who owns which state
///     0, 2 .. half - 2          Mamba                session: convolution and SSM state, for the last undo + 1 tokens
///     1, 3 .. half - 1          window attention     session: K/V of the last window + undo tokens
///     half                      Mamba, and memory    session: as the others; hands its scan output to the gated memory units
///     half + 1                  full attention       session: K/V of every token, the only ones that grow
///     half + 2, half + 4 ..     gated memory unit    none: the memory of the same token
///     half + 3, half + 5 ..     cross attention      none: the full layer's K/V
///
/// Each layer: x += mixer(norm(x));  x += mlp(norm(x)).   No layer after the full attention layer owns state, so layers 0 to half run for
/// every token, the full layer stores keys and values, and everything after it runs for the tokens whose logits are wanted. Nothing is
/// approximated, and reading a prompt is linear in its length.   Source: arXiv:2507.06607 section 2 (YOCO: arXiv:2405.05254).
///
/// What a pass finds out stays in the workspace (K/V of windows, several states) or behind the session's position (K/V of the full layer, one
/// state) until it is committed: what is not committed has not happened.
/// @since 0.2
#include <phi4flash/model/state.hpp>

#include <utility>

PHI4FLASH_BEGIN

/// Tokens that a session reads in a pass.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
struct reading {
    session<Shape, Kv>* past = nullptr;
    std::span<const std::int32_t> tokens;
    std::size_t wanted = 1;  ///< after how many of the last tokens logits are wanted: 0 for a part of a prompt, 1 for the next token
    std::size_t choices = 1; ///< how many of the last tokens the commit may end with: 1 for all or nothing, tokens.size() to check drafts
};

/// One pass. Begin it, advance it until it is done, read logits, commit. Dropped at any time, it leaves every session as it was, bit for
/// bit. Sessions and workspace are in use until it ends; `tokens` of a reading are looked at by `begin` only. Allocates nothing. For one
/// thread of control.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class pass {
public:
    using reading_type = reading<Shape, Kv>;

    pass() = default;
    pass(pass&& other) noexcept { *this = std::move(other); }
    pass& operator=(pass&& other) noexcept {
        end();
        model_ = other.model_, work_ = std::exchange(other.work_, nullptr);
        logits_ = other.logits_, x_ = other.x_, memory_ = other.memory_;
        n_texts_ = other.n_texts_, layer_ = other.layer_, slice_ = other.slice_;
        piece_ = std::exchange(other.piece_, piece::done);
        return *this;
    }
    ~pass() { end(); }

    /// What is wrong with one reading, whatever the workspace. Errors: see `begin`.
    [[nodiscard]] static status refusal(const model<Shape>& m, const reading_type& r) {
        if (const status ok = refusal_elsewhere(m, r); !ok) return ok;
        return r.past->room_for(r.tokens.size());
    }

    /// The same of a session that will stand elsewhere by then: all but whether it has room for the tokens.
    [[nodiscard]] static status refusal_elsewhere(const model<Shape>& m, const reading_type& r) {
        if (m.moved_from()) return detail::moved_from_error("model");
        if (r.past == nullptr) return error::format(errc::invalid_argument, "a reading without a session");
        if (r.past->busy()) return detail::in_use_error("session");
        if (r.past->moved_from()) return detail::moved_from_error();
        if (r.past->unfinished()) return detail::unfinished_error();
        if (!r.past->fits(m)) return error::format(errc::invalid_argument, "the session is of a model of another shape");
        const std::size_t n = r.tokens.size();
        if (n == 0) return error::format(errc::invalid_argument, "no tokens: want at least one");
        if (r.wanted > n || r.choices == 0 || r.choices > n)
            return error::format(errc::invalid_argument,
                                 "a reading of %zu tokens: want logits after at most so many and 1 to so many choices, have %zu and %zu", n, r.wanted,
                                 r.choices);
        for (const std::int32_t token : r.tokens) {
            if (token < 0 || static_cast<std::size_t>(token) >= m.shape().vocab())
                return error::format(errc::unknown_token, "token %d: want 0 to %zu", static_cast<int>(token), m.shape().vocab() - 1);
        }
        return {};
    }

    /// What `begin` would refuse, asked without beginning. Errors: see there.
    [[nodiscard]] static status refusal(const model<Shape>& m, const workspace<Shape, Kv>& w, std::span<const reading_type> readings,
                                      rows_view<float> logits) {
        if (const status ok = refusal_elsewhere(m, w, readings, logits); !ok) return ok;
        for (const reading_type& r : readings)
            if (const status ok = r.past->room_for(r.tokens.size()); !ok) return ok;
        return {};
    }
    /// The same of sessions that will stand elsewhere by then: all but whether they have room for the tokens.
    [[nodiscard]] static status refusal_elsewhere(const model<Shape>& m, const workspace<Shape, Kv>& w, std::span<const reading_type> readings,
                                                  rows_view<float> logits) {
        if (w.busy()) return detail::in_use_error("workspace");
        if (!w.fits(m)) return error::format(errc::invalid_argument, "the workspace is of a model of another shape");
        if (readings.empty()) return error::format(errc::invalid_argument, "no readings: want at least one");
        std::size_t rows = 0;
        std::size_t wanted = 0;
        std::size_t states = 0;
        for (std::size_t i = 0; i < readings.size(); ++i) {
            if (const status ok = refusal_elsewhere(m, readings[i]); !ok) return ok;
            for (std::size_t j = 0; j < i; ++j)
                if (readings[j].past == readings[i].past)
                    return error::format(errc::invalid_argument, "readings %zu and %zu are of one session: want each once in a pass", j, i);
            rows += readings[i].tokens.size();
            wanted += readings[i].wanted;
            states += rows_of_states(readings[i]);
        }
        const auto too_many = [](const char* what, std::size_t want, std::size_t have) {
            return error::format(errc::invalid_argument, "a pass over %zu %s: the workspace has room for %zu (workspace_options)", want, what, have);
        };
        if (rows > w.chunk()) return too_many("tokens", rows, w.chunk());
        if (states > w.states.count && readings.size() == 1 && readings[0].choices == 1)
            return room_for_states(w, *readings[0].past, readings[0].tokens);
        if (states > w.states.count) return too_many("states", states, w.states.count);
        if (wanted > logits.count || (wanted != 0 && logits.stride < m.shape().vocab()))
            return error::format(errc::invalid_argument, "a pass over %zu rows of logits of %zu: there is room for %zu of %zu", wanted,
                                 m.shape().vocab(), logits.count, logits.stride);
        return {};
    }

    /// Whether a prompt can be read in chunks into a session that can take tokens back. Errors: invalid_argument.
    [[nodiscard]] static status room_for_states(const workspace<Shape, Kv>& w, session<Shape, Kv>& past, std::span<const std::int32_t> prompt) {
        const std::size_t want = rows_of_states({&past, prompt.first((std::min)(prompt.size(), w.chunk())), 0});
        if (want <= w.states.count) return {};
        return error::format(errc::invalid_argument,
                             "a prompt of %zu tokens into a session with an undo of %zu: want a workspace of %zu states, have %zu "
                             "(workspace_options)", prompt.size(), past.undo(), 1 + past.undo(), w.states.count);
    }
    /// Rows of states that a reading takes in the workspace: none where one alone is kept, which is written where the session has room for it.
    [[nodiscard]] static std::size_t rows_of_states(const reading_type& r) { return kept_of(r) == 1 ? 0 : kept_of(r); }

    /// Checks everything, and changes no session. What was under way in this pass is dropped, also where the new one is refused. Logits go
    /// to `logits`, [at least all that are wanted, vocab], by default to the workspace's own.
    /// Errors: invalid_argument (no readings, no tokens, a session twice, more rows than the workspace has of tokens, logits or states, more
    /// wanted than read, another model's session or workspace); in_use; context_full; unknown_token.
    [[nodiscard]] status begin(const model<Shape>& m, workspace<Shape, Kv>& w, std::span<const reading_type> readings,
                               rows_view<float> logits = {}) {
        end();
        if (const status ok = refusal(m, w, readings, logits.data == nullptr ? w.logits : logits); !ok) return ok;
        model_ = &m;
        work_ = &w;
        logits_ = logits.data == nullptr ? w.logits : logits;
        place(readings);
        layer_ = slice_ = 0;
        piece_ = piece::mixer;
        return {};
    }

    /// Computes a piece: a layer's mixer, half of its MLP, or a slice of the output matrix. False when there is nothing left to do. What the
    /// executor throws passes through; the pass is then over, as it is where the model or a session of it was moved meanwhile.
    bool advance() {
        if (piece_ == piece::done) return false;
        if (any_replaced() || model_->moved_from()) piece_ = piece::broken;
        switch (std::exchange(piece_, piece::broken)) {
            case piece::mixer: piece_ = mix(); break;
            case piece::mlp_in:
                norm_and_widen();
                piece_ = piece::mlp_out;
                break;
            case piece::mlp_out: piece_ = narrow(); break;
            case piece::head: piece_ = begin_logits(); break;
            case piece::logits: piece_ = slice_of_logits(); break;
            case piece::done:
            case piece::broken: return false;  // left in the middle by an exception
        }
        return piece_ != piece::done;
    }

    /// Pieces until `stop()` is true, which is asked between them, or nothing is left to do. Returns whether there is.
    template <class Stop>
    bool advance_until(Stop&& stop) {
        while (advance())
            if (stop()) return true;
        return false;
    }

    /// Whether it has begun and not ended: session and workspace are in use.
    [[nodiscard]] bool begun() const { return work_ != nullptr; }
    [[nodiscard]] bool done() const { return piece_ == piece::done && work_ != nullptr; }

    /// After the pass is done: the logits of reading i, [wanted, vocab].
    [[nodiscard]] rows_view<const float> logits(std::size_t i) const {
        const auto& t = work_->texts[i];
        return logits_.rows(t.wanted_row, t.wanted);
    }

    /// not_finite where those logits are infinite or NaN: a damaged weight otherwise becomes text like any other.
    [[nodiscard]] status check_logits(std::size_t i) const {
        const auto& t = work_->texts[i];
        if (t.finite == t.wanted) return {};
        return error::format(errc::not_finite,
                             "the logits after %zu tokens are not finite: weights are damaged ('phi4flash info --check' names the "
                             "tensor), or their products leave the range of f32",
                             t.first + t.count - t.wanted + t.finite + 1);
    }

    /// Session i has read the first n of its tokens: any of the last `choices`, counted from 1. Once for each reading. Copies the windows' K/V
    /// and, where there was more than one to choose from or to go back to, the Mamba states (at the released shape 3.5 MB, and as much for each
    /// token that can be taken back), on the calling thread.
    /// Errors: invalid_argument (not done, committed already, or another n); in_use (the session was reset or moved meanwhile): nothing has changed
    /// then.
    [[nodiscard]] status commit(std::size_t i, std::size_t n) {
        if (!done() || i >= n_texts_)
            return error::format(errc::invalid_argument, "commit: want one of %zu readings of a pass that is done", n_texts_);
        text& t = work_->texts[i];
        if (t.choices == 0) return error::format(errc::invalid_argument, "commit: reading %zu is committed already", i);
        const std::size_t least = t.count - t.choices + 1;
        if (n < least || n > t.count)
            return error::format(errc::invalid_argument, "commit: want %zu to %zu tokens of the reading, have %zu", least, t.count, n);
        session<Shape, Kv>& s = *t.past;
        if (s.replaced())
            return error::format(errc::in_use, "commit: the session was moved while the pass was reading into it: do that before, or after");
        if (s.disturbed())
            return error::format(errc::in_use, "commit: the session was reset while the pass was reading into it: do that before, or after");
        if (t.kept > 1) {  // else it is in place
            const std::size_t kept = (std::min)(n, s.undo() + 1);
            const float* from = t.after + (n - kept - (t.count - t.kept)) * work_->states.stride;
            for (std::size_t slot = 1; slot <= kept; ++slot, from += work_->states.stride)
                std::memcpy(s.states_after(t.first + slot).data(), from, work_->mambas.floats() * sizeof(float));
        }
        const head_layout heads = head_layout_of(model_->shape());
        for (std::size_t w = 0; w < s.windows().size(); ++w) s.windows()[w].commit(heads, work_->staging[w], t.row, t.first, n);
        s.advance(n);
        t.choices = 0;
        return {};
    }

    /// Ends the pass; what is not committed is dropped. So does the destructor.
    void end() {
        if (work_ == nullptr) return;
        for (std::size_t i = 0; i < n_texts_; ++i) work_->texts[i].past->set_busy(false);
        work_->set_busy(false);
        work_ = nullptr;
        piece_ = piece::done;
    }

    // For evaluation: what has been computed so far.
    /// Layers that are done.
    [[nodiscard]] std::size_t layers_done() const { return layer_; }
    /// The residual stream: of all tokens, and after the full attention layer of those whose logits are wanted.
    [[nodiscard]] rows_view<const float> residual() const { return x_; }

private:
    using text = text_in_pass<Shape, Kv>;
    enum class piece : std::uint8_t { mixer, mlp_in, mlp_out, head, logits, done, broken };
    static constexpr std::size_t logit_slices = 8;

    // What the layers ask of each text, made when they ask.
    template <class Make>
    struct texts_of {
        std::size_t count;
        Make make;
        [[nodiscard]] std::size_t size() const { return count; }
        [[nodiscard]] auto operator[](std::size_t i) const { return make(i); }
    };
    template <class Make>
    [[nodiscard]] texts_of<Make> each_text(Make make) const {
        return {n_texts_, make};
    }

    [[nodiscard]] bool any_replaced() const {
        for (std::size_t i = 0; i < n_texts_; ++i)
            if (work_->texts[i].past->replaced()) return true;
        return false;
    }

    /// States that a reading keeps: those the commit may choose from, and those that can be gone back to from there.
    [[nodiscard]] static std::size_t kept_of(const reading_type& r) {
        return (std::min)(r.tokens.size(), r.choices + r.past->undo());
    }

    /// Gives every text its rows, and every row its token's embedding.
    void place(std::span<const reading_type> readings) {
        const sambay_weights& weights = model_->weights();
        const auto widen = work_->with.kernels->linear[static_cast<std::size_t>(weights.embedding.type)].widen;
        std::size_t row = 0;
        std::size_t wanted = 0;
        std::size_t state = 0;
        n_texts_ = readings.size();
        for (std::size_t i = 0; i < n_texts_; ++i) {
            const reading_type& r = readings[i];
            const std::size_t first = r.past->position();
            const std::size_t rows = rows_of_states(r);
            float* const after = rows == 0 ? r.past->states_after(first + 1).data() : work_->states[state];
            work_->texts[i] = {r.past, first, row, r.tokens.size(), r.choices, wanted, r.wanted,
                               r.past->states_after(first).data(), after, kept_of(r), r.wanted};
            r.past->set_busy(true);
            for (const std::int32_t token : r.tokens)
                widen(weights.embedding.data, static_cast<std::size_t>(token), model_->shape().d_model(), work_->residual[row++]);
            wanted += r.wanted;
            state += rows;
        }
        work_->set_busy(true);
        x_ = work_->residual.first(row);
    }

    // ---- the pieces --------------------------------------------------------------------------------------------------------

    piece mix() {
        workspace<Shape, Kv>& w = *work_;
        const compute& with = w.with;
        const sambay_weights& weights = model_->weights();
        const layer_place at = model_->plan().at(layer_);
        rows_view<float> h = w.normed.first(x_.count);
        weights.layers[layer_].input_norm(with, x_, h);
        // After the full attention layer, rows are those whose logits are wanted.
        const auto full_keys = each_text([&](std::size_t i) {
            const text& t = w.texts[i];
            return attention_text<kv_block<Kv>>{&t.past->full(), t.first + t.count - t.wanted, t.wanted_row, t.wanted};
        });
        switch (at.kind) {
            case mixer_kind::mamba:
            case mixer_kind::memory_mamba:
                memory_ = weights.mambas[at.slot](with, w.mamba_scratch, each_text([&](std::size_t i) {
                    const text& t = w.texts[i];
                    return mamba::text{w.mambas.at(t.before, at.slot), w.mambas.at(t.after, at.slot), w.states.stride, t.kept, t.row, t.count};
                }), h, h);
                break;
            case mixer_kind::window_attention:
                weights.windows[at.slot].template window<Kv>(with, w.attention_scratch, w.staging[at.slot], each_text([&](std::size_t i) {
                    const text& t = w.texts[i];
                    return attention_text<kv_ring<Kv>>{&t.past->windows()[at.slot], t.first, t.row, t.count};
                }), h, h);
                break;
            case mixer_kind::full_attention:
                weights.full.store_keys(with, w.attention_scratch, each_text([&](std::size_t i) {
                    const text& t = w.texts[i];
                    return attention_text<kv_block<Kv>>{&t.past->full(), t.first, t.row, t.count};
                }), h);
                x_ = gather(x_, model_->shape().d_model());
                h = gather(h, model_->shape().d_model());
                memory_ = gather(w.mamba_scratch.u.first(memory_.count), model_->shape().d_inner());
                if (x_.count == 0) return piece::done;
                weights.full.template over<Kv>(with, w.attention_scratch, full_keys, h, h);
                break;
            case mixer_kind::gated_memory: weights.gated_memories[at.slot](with, w.memory_scratch, h, memory_, h); break;
            case mixer_kind::cross_attention: weights.crosses[at.slot].template over<Kv>(with, w.attention_scratch, full_keys, h, h); break;
        }
        add_rows(with, h, x_, model_->shape().d_model());
        return piece::mlp_in;
    }

    void norm_and_widen() {
        const layer_frame& frame = model_->weights().layers[layer_];
        const rows_view<float> h = work_->normed.first(x_.count);
        frame.post_norm(work_->with, x_, h);
        frame.mlp.widen(work_->with, work_->mlp_scratch, h);
    }

    piece narrow() {
        const rows_view<float> h = work_->normed.first(x_.count);
        model_->weights().layers[layer_].mlp.narrow(work_->with, work_->mlp_scratch, h);
        add_rows(work_->with, h, x_, model_->shape().d_model());
        return ++layer_ < model_->plan().n_layers() ? piece::mixer : piece::head;
    }

    /// Not only logits are looked at for what is no number: 8-bit activations are finite whatever they were made of.
    piece begin_logits() {
        note_damage(x_, model_->shape().d_model());
        model_->weights().final_norm(work_->with, x_, work_->normed.first(x_.count));
        return piece::logits;
    }

    /// logits[t] = final_norm(x[t]) . embedding^T, some rows of the embedding at a time.
    piece slice_of_logits() {
        const matrix_view& embedding = model_->weights().embedding;
        const std::size_t vocab = embedding.rows;
        const std::size_t step = round_up((vocab + logit_slices - 1) / logit_slices, 64);
        const std::size_t first = slice_ * step;
        const std::size_t count = (std::min)(step, vocab - first);
        const rows_view<float> out = logits_.first(x_.count);
        linear{embedding}.outputs(first, count)(work_->with, work_->normed.first(x_.count), out.column(first));
        note_damage(out.column(first), count);
        ++slice_;
        return first + count < vocab ? piece::logits : piece::done;
    }

    void note_damage(rows_view<const float> rows, std::size_t width) {
        for (std::size_t i = 0; i < n_texts_; ++i) {
            text& t = work_->texts[i];
            for (std::size_t row = 0; row < t.finite; ++row)
                if (first_not_finite(std::span<const float>(rows[t.wanted_row + row], width)) < width) t.finite = row;
        }
    }

    /// The rows whose logits are wanted, moved to the front: never further back than they lie.
    [[nodiscard]] rows_view<float> gather(rows_view<float> rows, std::size_t width) const {
        std::size_t to = 0;
        for (std::size_t i = 0; i < n_texts_; ++i) {
            const text& t = work_->texts[i];
            for (std::size_t from = t.row + t.count - t.wanted; from < t.row + t.count; ++from, ++to)
                if (from != to) std::memmove(rows[to], rows[from], width * sizeof(float));
        }
        return rows.first(to);
    }

    const model<Shape>* model_ = nullptr;
    workspace<Shape, Kv>* work_ = nullptr;
    rows_view<float> logits_;
    rows_view<float> x_;
    rows_view<const float> memory_;
    std::size_t n_texts_ = 0;
    std::size_t layer_ = 0;
    std::size_t slice_ = 0;
    piece piece_ = piece::done;
};

PHI4FLASH_END
