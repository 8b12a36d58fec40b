#pragma once
/// Drafts from the text so far, prompt and answer: where its last tokens occurred before, and what followed them there. Reasoning repeats
/// itself: numbers, conditions, formulas; code that is edited and documents that are quoted repeat their prompt.
///
/// How: the places of each pair of tokens are chained, latest first, as an LZ77 compressor does it. Each place that ends like the text votes
/// for the token after it, with four times the weight for each further token that agrees; a place where 10 or more agree is followed alone.
/// Where a pair is new, the places of its last token alone vote: one in four of these guesses is right, and where they are of one mind three.
/// A drafted token counts as text for the next one. How far the best place agrees, and whether the votes do, is a class of guesses; how many
/// guesses of each class were right, in the prompt and since, is the chance of the next.
/// Sources: prompt lookup (github.com/apoorvumang/prompt-lookup-decoding), n-gram caches (llama.cpp), suffix decoding (arXiv:2411.04975).
/// @since 0.2
#include <phi4flash/core/memory.hpp>
#include <phi4flash/generate/drafter.hpp>

#include <algorithm>
#include <bit>

PHI4FLASH_BEGIN

/// Remembers the last `tokens` tokens of one text; older ones are forgotten. Some 16 bytes a token, taken when it is made. Reading a token or
/// guessing one takes some 128 comparisons at most, whatever the length of the text. For one thread at a time.
class ngram_drafter {
public:
    static constexpr std::size_t most_tokens = std::size_t{1} << 30;  ///< that create allows

    /// Bytes that such a drafter takes.
    [[nodiscard]] static constexpr std::size_t bytes(std::size_t tokens) {
        arena counting;
        (void)tables::lay_out(counting, tokens);
        return counting.bytes();
    }

    /// `tokens`: a session's context, at least one. Errors: invalid_argument, out_of_memory.
    static result<ngram_drafter> create(std::size_t tokens);

    /// Forgets the text. How well guesses fared is kept: it is a matter of what is written here.
    void reset() {
        std::fill(in_.pairs.last.begin(), in_.pairs.last.end(), 0u);
        std::fill(in_.singles.last.begin(), in_.singles.last.end(), 0u);
        size_ = 0;
    }

    /// The text went on.
    void read(std::span<const std::int32_t> tokens);

    /// Guesses at what comes, with their chances, until one of them is hardly reached.
    [[nodiscard]] std::size_t propose(std::span<draft> out);

private:
    static constexpr std::size_t places = 64;      // looked at for a guess
    static constexpr std::size_t counted = 40;     // tokens that agree, at most
    static constexpr std::size_t certain = 10;     // a place where so many agree is followed alone
    static constexpr std::size_t lengths = 8;      // classes of lengths, see length_class
    static constexpr std::size_t accords = 6;      // see accord_class
    static constexpr std::size_t no_kind = lengths * accords;

    struct guess {
        std::int32_t token = -1;
        std::size_t kind = no_kind;
    };

    /// How guesses of a kind fared, the last few hundred, and before there are any what is usual.
    struct fare {
        float tries = 12.0f;
        float hits = 0.0f;
        void note(bool hit) {
            constexpr float fading = 0.995f;
            tries = tries * fading + 1.0f;
            hits = hits * fading + (hit ? 1.0f : 0.0f);
        }
        [[nodiscard]] float chance() const { return hits / tries; }
    };

    /// The places that vote for one token.
    struct candidate {
        std::int32_t token;
        std::size_t length;  ///< of the longest agreement
        std::uint32_t votes;
    };

    /// Places where the same was read, latest first; as it is found by a hash, some of them are others'.
    struct chain {
        std::span<std::uint32_t> before;  ///< a ring: the place before this one
        std::span<std::uint32_t> last;    ///< of each bucket

        [[nodiscard]] std::size_t bucket_of(std::uint64_t key) const {
            return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15u) >> 40) & (last.size() - 1);
        }
        [[nodiscard]] std::size_t first(std::uint64_t key) const { return last[bucket_of(key)]; }
        [[nodiscard]] std::size_t next(std::size_t place) const { return before[place % before.size()]; }
        void add(std::size_t place, std::uint64_t key) const {
            std::uint32_t& latest = last[bucket_of(key)];
            before[place % before.size()] = latest;
            latest = static_cast<std::uint32_t>(place);
        }
    };

    /// What lies in its memory.
    struct tables {
        std::span<std::int32_t> text;  ///< a ring: the token at place i, and drafts behind the last
        chain pairs;                   ///< of tokens, by the place of the second
        chain singles;

        [[nodiscard]] static constexpr tables lay_out(arena& memory, std::size_t tokens) {
            const std::size_t ring = tokens + max_drafts + 1;  // drafts lie behind the text
            tables all;
            take(memory, all.text, ring);
            take(memory, all.pairs.before, ring);
            take(memory, all.pairs.last, std::bit_ceil((std::max)(tokens / 2, std::size_t{16})));
            take(memory, all.singles.before, ring);
            take(memory, all.singles.last, std::bit_ceil((std::max)(tokens / 4, std::size_t{16})));
            return all;
        }

    private:
        template <class T>
        static constexpr void take(arena& memory, std::span<T>& out, std::size_t count) {
            T* const place = memory.take<T>(count);
            if (place != nullptr) out = {place, count};
        }
    };

    ngram_drafter() {
        // Counted in 82 texts of a reasoning model, but for those that docs/drafts.md measures.
        constexpr float usual[lengths][accords] = {
            {0.31f, 0.52f, 0.75f, 0.39f, 0.19f, 0.11f}, {0.42f, 0.66f, 0.85f, 0.46f, 0.22f, 0.15f}, {0.49f, 0.70f, 0.91f, 0.50f, 0.28f, 0.21f},
            {0.52f, 0.74f, 0.92f, 0.53f, 0.30f, 0.22f}, {0.58f, 0.80f, 0.94f, 0.55f, 0.33f, 0.21f}, {0.68f, 0.82f, 0.96f, 0.62f, 0.33f, 0.20f},
            {0.72f, 0.88f, 0.97f, 0.66f, 0.60f, 0.40f}, {0.85f, 0.95f, 0.98f, 0.84f, 0.77f, 0.80f}};
        for (std::size_t kind = 0; kind < no_kind; ++kind) fares_[kind].hits = fares_[kind].tries * usual[kind / accords][kind % accords];
    }

    [[nodiscard]] std::int32_t& at(std::size_t i) { return in_.text[i % in_.text.size()]; }
    [[nodiscard]] static std::uint64_t pair_of(std::int32_t a, std::int32_t b) {
        return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32 | static_cast<std::uint32_t>(b);
    }
    [[nodiscard]] static std::uint64_t single_of(std::int32_t a) { return static_cast<std::uint32_t>(a); }

    /// The likeliest token at place n, of the text and drafts before it.
    [[nodiscard]] guess guess_after(std::size_t n);

    /// The same, by the places of a chain that agree with the text for `least` tokens or more.
    [[nodiscard]] guess guess_from(const chain& places_of, std::uint64_t key, std::size_t least, std::size_t n);

    /// One place; two, or more, that are of one mind; most of the votes, a third or more, fewer.
    [[nodiscard]] static std::size_t accord_class(std::size_t voters, std::size_t votes, std::size_t all) {
        if (voters == 1) return 0;
        if (votes == all) return voters == 2 ? 1 : 2;
        return 2 * votes > all ? 3 : 3 * votes > all ? 4 : 5;
    }

    /// Adds a place's vote, and returns whose it is.
    static std::size_t vote(candidate* found, std::size_t& count, std::int32_t token, std::size_t length);

    [[nodiscard]] static std::uint32_t weight_of(std::size_t length) { return std::uint32_t{1} << 2 * (std::min)(length, std::size_t{8}); }

    [[nodiscard]] static std::size_t length_class(std::size_t length);

    /// How many tokens before and at `a` are those before and at `b`.
    [[nodiscard]] std::size_t agreement(std::size_t a, std::size_t b, std::size_t oldest) {
        std::size_t n = 0;
        while (n < counted && a >= oldest + n && at(a - n) == at(b - n)) ++n;
        return n;
    }

    memory_block own_;
    detail::moving_places<tables> in_;
    std::size_t kept_ = 0;             // tokens that are remembered
    std::size_t size_ = 0;             // tokens read
    fare fares_[no_kind];
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY result<ngram_drafter> ngram_drafter::create(std::size_t tokens) {
    if (tokens == 0 || tokens > most_tokens)
        return error::format(errc::invalid_argument, "ngram_drafter: want 1 to %zu tokens, have %zu", most_tokens, tokens);
    auto block = memory_block::allocate(bytes(tokens), "drafter");
    if (!block) return block.error();
    ngram_drafter d;
    d.own_ = std::move(*block);
    arena carving(d.own_.bytes().data());
    d.in_ = tables::lay_out(carving, tokens);
    d.kept_ = tokens;
    d.reset();
    return d;
}

PHI4FLASH_BODY void ngram_drafter::read(std::span<const std::int32_t> tokens) {
    if (in_.text.empty()) return;  // it was moved from
    for (const std::int32_t token : tokens) {
        if (const guess g = guess_after(size_); g.kind != no_kind) fares_[g.kind].note(g.token == token);
        if (size_ == most_tokens) reset();
        at(size_) = token;
        // What ends before it is known from here on: what follows it now is.
        if (size_ >= 1) in_.singles.add(size_ - 1, single_of(at(size_ - 1)));
        if (size_ >= 2) in_.pairs.add(size_ - 1, pair_of(at(size_ - 2), at(size_ - 1)));
        ++size_;
    }
}

PHI4FLASH_BODY std::size_t ngram_drafter::propose(std::span<draft> out) {
    float reached = 1.0f;
    std::size_t n = 0;
    if (in_.text.empty()) return n;
    for (; n < (std::min)(out.size(), max_drafts) && reached > 0.02f; ++n) {
        const guess g = guess_after(size_ + n);
        if (g.kind == no_kind) break;
        out[n] = {g.token, fares_[g.kind].chance()};
        reached *= out[n].chance;
        at(size_ + n) = g.token;  // text for the next guess; the text itself overwrites it
    }
    return n;
}

PHI4FLASH_BODY ngram_drafter::guess ngram_drafter::guess_after(std::size_t n) {
    guess g{};
    if (n >= 2) g = guess_from(in_.pairs, pair_of(at(n - 2), at(n - 1)), 2, n);
    if (n >= 1 && g.kind == no_kind) g = guess_from(in_.singles, single_of(at(n - 1)), 1, n);
    return g;
}

PHI4FLASH_BODY ngram_drafter::guess ngram_drafter::guess_from(const chain& places_of, std::uint64_t key, std::size_t least, std::size_t n) {
    candidate found[places];
    std::size_t count = 0;
    std::size_t voters = 0;
    std::uint32_t all = 0;
    std::size_t best = 0;
    const std::size_t oldest = size_ > kept_ ? size_ - kept_ : 0;
    std::size_t tried = 0;
    // A place is that of the last token that agrees; 0 is none.
    for (std::size_t place = places_of.first(key); place > oldest && tried < places; place = places_of.next(place), ++tried) {
        const std::size_t length = agreement(place, n - 1, oldest);
        if (length < least) continue;
        const std::size_t i = vote(found, count, at(place + 1), length);
        all += weight_of(length);
        ++voters;
        if (length >= certain) {
            best = i;
            break;
        }
        // The later of equals stays: it was met first.
        if (found[i].votes > found[best].votes) best = i;
    }
    if (count == 0) return {};
    const candidate& c = found[best];
    return {c.token, length_class(c.length) * accords + accord_class(voters, c.votes, all)};
}

PHI4FLASH_BODY std::size_t ngram_drafter::vote(candidate* found, std::size_t& count, std::int32_t token, std::size_t length) {
    std::size_t i = 0;
    while (i < count && found[i].token != token) ++i;
    if (i == count) found[count++] = {token, 0, 0};
    found[i].length = (std::max)(found[i].length, length);
    found[i].votes += weight_of(length);
    return i;
}

PHI4FLASH_BODY std::size_t ngram_drafter::length_class(std::size_t length) {
    constexpr std::size_t begins[lengths] = {1, 2, 3, 4, 5, 7, 10, 16};
    std::size_t i = lengths - 1;
    while (begins[i] > length) --i;
    return i;
}
#endif

PHI4FLASH_END
