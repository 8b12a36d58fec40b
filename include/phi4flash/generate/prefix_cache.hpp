#pragma once
/// What has been read before need not be read again: states of sessions after texts that were read, within a budget of bytes.
///
/// A hybrid model cannot cut a text short as one with attention alone can: its Mamba states are those after the last token. So each entry
/// is a text with the states and windows after it, and a prompt goes on from the deepest entry that begins it, token for token. What grows
/// with a text, the full layer's K/V, lies in pages of 64 tokens, and entries that begin alike share them: at the released shape an entry
/// takes 24 MiB for itself, and 5 KiB for each token that no other one holds.
///
/// Others: SGLang's mamba_radix_cache.py (a tree of pages with states at some nodes), llama.cpp's server (a copy a prompt, and checkpoints that
/// its files do not hold: issues 25913, 28194, 26676).
/// @since 0.2
#include <phi4flash/model/forward.hpp>
#include <phi4flash/model/saved_states.hpp>

PHI4FLASH_BEGIN

namespace detail {
/// What a prefix_cache holds, and where it lies in its memory.
struct prefix_cache_places {
    static constexpr std::uint32_t none = 0xffffffffu;

    /// Memory for K/V of some tokens of a text, or for a part of its states.
    struct page {
        std::uint32_t before = none;  ///< the page of the tokens before; of states and of free pages the next one
        std::uint32_t users = 0;      ///< entries that end here, and pages that go on from here
        std::uint32_t first = 0;      ///< position of its first token
        std::uint32_t count = 0;      ///< tokens
    };
    struct entry {
        std::size_t position = 0;     ///< tokens
        std::uint64_t used = 0;       ///< when, by clock_
        std::uint32_t last = none;    ///< page of its last tokens
        std::uint32_t states = none;  ///< first page of its states
    };

    sambay_shape shape_;
    std::size_t budget_ = 0;
    std::span<page> pages_;
    entry* entries_ = nullptr;        // [pages]
    std::int32_t* tokens_ = nullptr;  // [pages, page_tokens]
    std::byte* memory_ = nullptr;     // [pages, sizes::page]
    std::size_t n_entries_ = 0;
    std::size_t n_free_ = 0;
    std::uint32_t free_ = none;
    std::uint64_t clock_ = 0;
};
}  // namespace detail

/// States after texts. Takes its budget once, and nothing later. For sessions of one model, which may differ in context and undo; for one
/// thread at a time. Restoring gives the bits that were kept: pages are shared only where they are the same bits, too. What was moved from holds
/// nothing and is refused (invalid_argument).
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class prefix_cache : detail::moving_places<detail::prefix_cache_places> {
public:
    using session_type = session<Shape, Kv>;
    static constexpr std::size_t page_tokens = 64;

    /// A budget that holds `texts` entries of `tokens` tokens each that have nothing in common. SIZE_MAX where it is more than that.
    [[nodiscard]] static std::size_t bytes_for(const model<Shape>& m, std::size_t texts, std::size_t tokens) {
        return bytes_for(m.shape().shape(), texts, tokens);
    }
    /// The same before there is a model.
    [[nodiscard]] static constexpr std::size_t bytes_for(const sambay_shape& shape, std::size_t texts, std::size_t tokens) {
        const sizes of(shape);
        const std::uint64_t each = std::uint64_t{of.state_pages(tokens)} + pages_of(tokens);
        return each != 0 && texts > UINT64_MAX / each ? SIZE_MAX : of.bytes(texts * each);
    }

    /// Takes `budget` bytes, of which pages that are never used cost nothing. Errors: invalid_argument (too few bytes for one text as long as a
    /// window); out_of_memory.
    static result<prefix_cache> create(const model<Shape>& m, std::size_t budget) {
        if (const status ok = refusal(m, budget); !ok) return ok.error();
        auto block = memory_block::allocate(budget, "prefix cache");
        if (!block) return block.error();
        prefix_cache c(m);
        c.own_ = std::move(*block);
        c.attach(c.own_.bytes().first(budget));
        return c;
    }

    /// In the caller's memory, aligned to block_alignment and alive as long as the cache. Errors: invalid_argument.
    static result<prefix_cache> create_in(std::span<std::byte> memory, const model<Shape>& m) {
        if (const status ok = refusal(m, memory.size()); !ok) return ok.error();
        if (reinterpret_cast<std::uintptr_t>(memory.data()) % block_alignment != 0)
            return error::format(errc::invalid_argument, "memory of a prefix cache: want it aligned to %zu bytes", block_alignment);
        prefix_cache c(m);
        c.attach(memory);
        return c;
    }

    /// Keeps what the session holds; `tokens` are all that it has read. Entries that were not used for longest make room. An entry of the same
    /// tokens stays as it is and counts as used. At the released shape some 10 ms, and 1 ms for 500 tokens. Errors: invalid_argument (other
    /// tokens than the session has read, another shape, no room even for this one alone): nothing has changed then.
    status keep(const session_type& s, std::span<const std::int32_t> tokens) {
        if (const status ok = check_session(s); !ok) return ok;
        if (tokens.empty() || tokens.size() != s.position())
            return error::format(errc::invalid_argument, "prefix cache: want the %zu tokens that the session has read, have %zu", s.position(),
                                 tokens.size());
        if (entry* const known = deepest(tokens, tokens.size()); known != nullptr && known->position == tokens.size()) {
            known->used = ++clock_;
            return {};
        }
        const shared_pages shared = pages_in_common(s, tokens);
        const std::size_t states = of_.state_pages(tokens.size());
        const std::size_t needed = states + pages_of(tokens.size()) - shared.count;
        if (needed > pages_.size() - shared.count)
            return error::format(errc::invalid_argument, "prefix cache: a text of %zu tokens wants %zu bytes, the budget is %zu", tokens.size(),
                                 of_.bytes(states + pages_of(tokens.size())), budget_);
        if (shared.last != none) ++pages_[shared.last].users;
        const auto older = [](const entry& a, const entry& b) { return a.used < b.used; };
        while (n_free_ < needed) drop(*std::min_element(entries_, entries_ + n_entries_, older));

        entry e;
        e.position = tokens.size();
        e.used = ++clock_;
        e.last = shared.last;
        for (std::size_t at = shared.count * page_tokens; at < tokens.size(); at += page_tokens) e.last = add_page(s, tokens, at, e.last);
        e.states = add_states(s, states);
        std::construct_at(&entries_[n_entries_++], e);
        return {};
    }

    /// How many of these tokens the deepest entry that begins them holds: all of them at most, or `most` (a session's context);
    /// 0 where there is none.
    [[nodiscard]] std::size_t find(std::span<const std::int32_t> tokens, std::size_t most = SIZE_MAX) const {
        const entry* const found = deepest(tokens, most);
        return found == nullptr ? 0 : found->position;
    }

    /// The session becomes the deepest entry that begins these tokens and that it has room for; without any it has read nothing. Returns
    /// how many of the tokens it has read then: the rest is left to read. (For the logits after a prompt leave its last token out.) It cannot be
    /// taken back further. Errors: in_use, invalid_argument (another shape): the session is as before.
    result<std::size_t> restore(session_type& s, std::span<const std::int32_t> tokens) {
        if (s.busy()) return detail::in_use_error("session");
        if (const status ok = check_session(s); !ok) return ok.error();
        entry* const found = deepest(tokens, s.context());
        if (found == nullptr) {
            s.reset();
            return std::size_t{0};
        }
        found->used = ++clock_;
        for (std::uint32_t p = found->last; p != none; p = pages_[p].before) {
            const std::byte* from = memory_of(p);
            detail::each_full_piece(s, pages_[p].first, pages_[p].first + pages_[p].count, [&](std::byte* to, std::size_t bytes) {
                std::memcpy(to, from, bytes);
                from += bytes;
                return true;
            });
        }
        state_stream from(*this, found->states);
        detail::each_state_piece(s, extent(found->position), [&](std::byte* to, std::size_t bytes) {
            from.move(bytes, [&](std::byte* piece, std::size_t n) {
                std::memcpy(to, piece, n);
                to += n;
            });
            return true;
        });
        s.resume(found->position, found->position);
        return found->position;
    }

    /// Bytes of what save_states would write; 0 where no entry holds these tokens, with the very K/V of the session, which has read them.
    [[nodiscard]] std::size_t saved_states_bytes(const session_type& s, std::span<const std::int32_t> tokens) const {
        return entry_before(s, tokens) == nullptr ? 0 : phi4flash::saved_states_bytes(s, tokens.size());
    }

    /// Saves the states of the entry that holds these tokens, with which `s` begins, so that after a restart the session goes back there as well
    /// (saved_states.hpp): piece by piece, nothing is allocated. `weights` and `sink`: see save_snapshot. Errors: the sink's own, or cancelled where
    /// it returned false; invalid_argument (saved_states_bytes is 0).
    template <snapshot_sink Sink>
    [[nodiscard]] status save_states(const session_type& s, std::span<const std::int32_t> tokens, weights_fingerprint weights, Sink&& sink) const {
        const entry* const e = entry_before(s, tokens);
        if (e == nullptr)
            return error::format(errc::invalid_argument, "prefix cache: no entry holds these %zu tokens as the session has read them", tokens.size());
        const auto each = [&](auto&& put) {
            state_stream from(*this, e->states);
            bool more = true;
            from.move(static_cast<std::size_t>(detail::state_bytes<Kv>(shape_, extent(e->position))),
                      [&](const std::byte* piece, std::size_t n) { more = more && put(piece, n); });
            return more;
        };
        return detail::write_states(s, weights, e->position, each, sink);
    }

    /// Forgets everything.
    void clear() {
        while (n_entries_ != 0) drop(entries_[n_entries_ - 1]);
    }

    [[nodiscard]] std::size_t size() const { return n_entries_; }                        ///< entries
    [[nodiscard]] std::size_t budget() const { return budget_; }                         ///< bytes
    [[nodiscard]] std::size_t bytes_used() const { return of_.bytes(pages_.size() - n_free_); }  ///< of them

private:
    struct shared_pages {
        std::uint32_t last = none;
        std::size_t count = 0;
    };
    /// How much memory what takes, before there is any.
    struct sizes {
        std::size_t page = 0;     ///< bytes of a page's memory
        std::size_t states = 0;   ///< bytes of the Mamba states
        std::size_t row = 0;      ///< bytes of a token in all windows
        std::size_t window = 0;
        sizes() = default;
        constexpr explicit sizes(const sambay_shape& s) : window(s.window) {
            const std::size_t kv = detail::kv_bytes<Kv>(head_layout_of(extents<any_sambay>::of(s)));
            page = round_up(page_tokens * kv, block_alignment);
            states = detail::states_of(s).numbers() * sizeof(float);
            row = layer_plan(s.n_layers).n_window() * kv;
        }
        [[nodiscard]] constexpr std::size_t state_pages(std::size_t tokens) const {
            return static_cast<std::size_t>((states + std::uint64_t{(std::min)(tokens, window)} * row + page - 1) / page);
        }
        [[nodiscard]] constexpr std::size_t bytes_a_page() const {
            return page + sizeof(detail::prefix_cache_places::page) + sizeof(entry) + page_tokens * sizeof(std::int32_t);
        }
        /// SIZE_MAX where it is more than that.
        [[nodiscard]] constexpr std::size_t bytes(std::uint64_t pages) const {
            const std::size_t most = (SIZE_MAX - 4 * block_alignment) / bytes_a_page();
            return pages > most ? SIZE_MAX : static_cast<std::size_t>(pages) * bytes_a_page() + 4 * block_alignment;
        }
    };
    /// The memory of a chain of pages, one after the other.
    class state_stream {
    public:
        state_stream(const prefix_cache& of, std::uint32_t first) : cache_(of), page_(first) {}
        /// `visit(memory, bytes)` for the next `bytes`.
        template <class Visit>
        void move(std::size_t bytes, Visit&& visit) {
            while (bytes != 0) {
                if (used_ == cache_.of_.page) page_ = cache_.pages_[page_].before, used_ = 0;
                const std::size_t n = (std::min)(bytes, cache_.of_.page - used_);
                visit(cache_.memory_of(page_) + used_, n);
                used_ += n;
                bytes -= n;
            }
        }

    private:
        const prefix_cache& cache_;
        std::uint32_t page_;
        std::size_t used_ = 0;
    };

    explicit prefix_cache(const model<Shape>& m) : of_(m.shape().shape()) { shape_ = m.shape().shape(); }

    [[nodiscard]] static constexpr std::size_t pages_of(std::size_t tokens) { return tokens / page_tokens + (tokens % page_tokens != 0 ? 1 : 0); }

    static status refusal(const model<Shape>& m, std::size_t budget) {
        const std::size_t least = bytes_for(m, 1, m.shape().window());
        if (budget < least)
            return error::format(errc::invalid_argument, "prefix cache: want a budget of at least %zu bytes, have %zu", least, budget);
        return {};
    }
    /// Errors: invalid_argument (another shape; either was moved from).
    [[nodiscard]] status check_session(const session_type& s) const {
        if (pages_.empty()) return detail::moved_from_error("prefix cache");
        if (s.moved_from()) return detail::moved_from_error();
        if (s.shape() != shape_) return error::format(errc::invalid_argument, "prefix cache: the session is of a model of another shape");
        return {};
    }
    [[nodiscard]] detail::session_extent extent(std::size_t position) const { return {position, position, shape_.window}; }

    void attach(std::span<std::byte> memory) {
        budget_ = memory.size();
        const std::size_t most = (std::min)((budget_ - 4 * block_alignment) / of_.bytes_a_page(), std::size_t{none} - 1);
        arena carving(memory.data());
        pages_ = {carving.take<page>(most), most};
        entries_ = carving.take<entry>(most);
        tokens_ = carving.take<std::int32_t>(most * page_tokens);
        memory_ = carving.take<std::byte>(most * of_.page);
        for (std::size_t i = most; i-- > 0;) {
            std::construct_at(&pages_[i]);
            give_back(static_cast<std::uint32_t>(i));
        }
    }

    [[nodiscard]] std::span<entry> entries() const { return {entries_, n_entries_}; }
    [[nodiscard]] std::byte* memory_of(std::uint32_t p) const { return memory_ + p * of_.page; }
    [[nodiscard]] std::span<std::int32_t> tokens_of(std::uint32_t p) const { return {tokens_ + p * page_tokens, pages_[p].count}; }
    [[nodiscard]] bool holds(std::uint32_t p, std::span<const std::int32_t> tokens) const {
        const auto have = tokens_of(p);
        return std::memcmp(have.data(), tokens.data() + pages_[p].first, have.size_bytes()) == 0;
    }

    /// The deepest entry that begins these tokens and is no longer than `most`. From the end: texts differ there.
    [[nodiscard]] entry* deepest(std::span<const std::int32_t> tokens, std::size_t most) const {
        entry* best = nullptr;
        for (entry& e : entries()) {
            if (e.position > (std::min)(tokens.size(), most) || (best != nullptr && e.position <= best->position)) continue;
            std::uint32_t p = e.last;
            while (p != none && holds(p, tokens)) p = pages_[p].before;
            if (p == none) best = &e;
        }
        return best;
    }

    /// The entry of exactly these tokens, if the session has read them, to the same bits.
    [[nodiscard]] const entry* entry_before(const session_type& s, std::span<const std::int32_t> tokens) const {
        const entry* const e = check_session(s) && tokens.size() <= s.position() ? deepest(tokens, tokens.size()) : nullptr;
        if (e == nullptr || e->position != tokens.size()) return nullptr;
        for (std::uint32_t p = e->last; p != none; p = pages_[p].before)
            if (!same_bits(s, p)) return nullptr;
        return e;
    }

    /// Whether the session's K/V of a page's tokens are the page's.
    [[nodiscard]] bool same_bits(const session_type& s, std::uint32_t p) const {
        const std::byte* have = memory_of(p);
        return detail::each_full_piece(s, pages_[p].first, pages_[p].first + pages_[p].count, [&](const std::byte* want, std::size_t bytes) {
            const bool same = std::memcmp(want, have, bytes) == 0;
            have += bytes;
            return same;
        });
    }

    /// The longest row of pages from the beginning, up to `last`, of which `same(page)` is true.
    template <class Same>
    [[nodiscard]] shared_pages from_the_beginning(std::uint32_t last, Same&& same) const {
        shared_pages found;
        for (std::uint32_t p = last; p != none; p = pages_[p].before) {
            if (!same(p)) found = {};
            else if (found.last == none) found = {p, pages_[p].first / page_tokens + 1};
        }
        return found;
    }

    /// Whole pages that hold these tokens already, and the session's very bits.
    [[nodiscard]] shared_pages pages_in_common(const session_type& s, std::span<const std::int32_t> tokens) const {
        shared_pages most;
        for (const entry& e : entries()) {
            const shared_pages found = from_the_beginning(e.last, [&](std::uint32_t p) {
                return pages_[p].count == page_tokens && pages_[p].first + page_tokens <= tokens.size() && holds(p, tokens);
            });
            if (found.count > most.count) most = found;
        }
        return from_the_beginning(most.last, [&](std::uint32_t p) { return same_bits(s, p); });
    }

    [[nodiscard]] std::uint32_t take_page() {
        const std::uint32_t p = free_;
        free_ = pages_[p].before;
        --n_free_;
        return p;
    }
    void give_back(std::uint32_t p) {
        pages_[p] = {};
        pages_[p].before = free_;
        free_ = p;
        ++n_free_;
    }

    /// A page of the tokens from `at` on, behind `before`, of which the caller's share becomes the page's.
    [[nodiscard]] std::uint32_t add_page(const session_type& s, std::span<const std::int32_t> tokens, std::size_t at, std::uint32_t before) {
        const std::uint32_t p = take_page();
        const std::size_t count = (std::min)(page_tokens, tokens.size() - at);
        pages_[p] = {before, 1, static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(count)};
        std::copy_n(tokens.data() + at, count, tokens_of(p).data());
        std::byte* to = memory_of(p);
        detail::each_full_piece(s, at, at + count, [&](const std::byte* from, std::size_t bytes) {
            std::memcpy(to, from, bytes);
            to += bytes;
            return true;
        });
        return p;
    }

    [[nodiscard]] std::uint32_t add_states(const session_type& s, std::size_t pages) {
        std::uint32_t first = none;
        for (std::size_t i = 0; i < pages; ++i) {
            const std::uint32_t p = take_page();
            pages_[p].before = first;
            first = p;
        }
        state_stream to(*this, first);
        detail::each_state_piece(s, extent(s.position()), [&](const std::byte* from, std::size_t bytes) {
            to.move(bytes, [&](std::byte* piece, std::size_t n) {
                std::memcpy(piece, from, n);
                from += n;
            });
            return true;
        });
        return first;
    }

    void drop(entry& e) {
        for (std::uint32_t p = e.states; p != none;) {
            const std::uint32_t next = pages_[p].before;
            give_back(p);
            p = next;
        }
        for (std::uint32_t p = e.last; p != none && --pages_[p].users == 0;) {
            const std::uint32_t before = pages_[p].before;
            give_back(p);
            p = before;
        }
        e = entries_[--n_entries_];
    }

    memory_block own_;
    sizes of_;
};

/// Brings a session to having read `tokens`, or as near before that as can be: by rewinding where it can go back so far, else from the cache,
/// which may be null, else to nothing. What the session has read begins with `tokens`, or is the beginning of them. Returns how many of them it
/// has read then; the rest is left to read. Errors: in_use.
template <sambay_shape Shape, class Kv>
[[nodiscard]] result<std::size_t> go_back(session<Shape, Kv>& s, std::span<const std::int32_t> tokens, prefix_cache<Shape, Kv>* cache) {
    if (s.busy()) return detail::in_use_error("session");
    if (s.position() > tokens.size() && s.rewind(tokens.size())) return s.position();
    const bool too_far = s.position() > tokens.size();
    if (!too_far && (cache == nullptr || cache->find(tokens, s.context()) <= s.position())) return s.position();
    if (cache != nullptr) return cache->restore(s, tokens);
    s.reset();
    return std::size_t{0};
}

/// `prefill` of a whole prompt that reads only what no entry of the cache holds: whatever the session had read is forgotten. It keeps what has
/// been read at each of `marks`, ascending numbers of tokens of the prompt: where other prompts will part from this one, such as
/// the end of a document. (What does not fit into the cache is not kept.) Returns the logits after the last token.
/// Errors: those of `prefill` and of prefix_cache::restore. Of those that are known before the first chunk is read nothing has changed then.
template <sambay_shape Shape, class Kv, class Continue = always_continue>
result<std::span<const float>> prefill_cached(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w,
                                              prefix_cache<Shape, Kv>& cache, std::span<const std::int32_t> prompt,
                                              std::span<const std::size_t> marks = {}, Continue&& go_on = {}) {
    if (prompt.empty()) return error::format(errc::invalid_argument, "the prompt has no tokens: want at least one");
    if (prompt.size() > past.context())
        return error::format(errc::context_full, "the session has room for %zu tokens: a prompt of %zu does not fit", past.context(), prompt.size());
    const auto all_but_last = prompt.first(prompt.size() - 1);
    const std::size_t found = cache.find(all_but_last, past.context());
    if (const status ok = detail::check_call(m, past, found, w, prompt.subspan(found), w.logits); !ok) return ok.error();
    const auto begin = cache.restore(past, all_but_last);
    if (!begin) return begin.error();
    for (std::size_t at = *begin; at < prompt.size();) {
        const auto mark = std::upper_bound(marks.begin(), marks.end(), at);
        const bool last = prompt.size() - at <= w.chunk() && (mark == marks.end() || *mark >= prompt.size());
        const std::size_t until = mark == marks.end() ? prompt.size() : (std::min)(*mark, prompt.size());
        const auto tokens = prompt.subspan(at, (std::min)(until - at, w.chunk()));
        const reading<Shape, Kv> r{&past, tokens, last ? std::size_t{1} : std::size_t{0}};
        if (const status ok = detail::read_chunk(m, w, r, w.logits, detail::observe_nothing{}); !ok) return ok.error();
        at += tokens.size();
        if (mark != marks.end() && *mark == at) (void)cache.keep(past, prompt.first(at));
        const detail::use_of in_use(past, w);  // by go_on
        const bool more = go_on(at, prompt.size());
        if (const status ok = in_use.refusal(); !ok) return ok.error();
        if (!more && !last) return error::format(errc::cancelled, "stopped by the caller after %zu of %zu prompt tokens", at, prompt.size());
    }
    return std::span<const float>(w.logits.data, m.shape().vocab());
}

PHI4FLASH_END
