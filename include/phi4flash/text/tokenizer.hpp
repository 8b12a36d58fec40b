#pragma once
/// The tokenizer: text to ids and back. Byte-level BPE with a split pattern, added tokens, and normalization before all that where the
/// vocabulary wants it.
#include <phi4flash/core/plain_name.hpp>
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/text/added_tokens.hpp>
#include <phi4flash/text/bpe.hpp>
#include <phi4flash/text/word_cache.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// How text becomes ids.
struct encode_options {
    marker_policy markers = marker_policy::parse;
};

/// How ids become text.
struct decode_options {
    bool skip_special = false;  ///< leave out added tokens that are `special`
};

/// Immutable once built: any number of threads may use one tokenizer. Move it only while nobody does.
class tokenizer {
public:
    tokenizer(tokenizer&&) = default;
    tokenizer& operator=(tokenizer&&) = default;

    /// One past the highest id with a string. A model may have more rows than that.
    [[nodiscard]] std::size_t vocab_size() const { return vocab_size_; }
    [[nodiscard]] split_pattern pattern() const { return pattern_; }
    /// What texts are normalized to before they are split. @since 0.2
    [[nodiscard]] normal_form normalization() const { return normalization_; }
    [[nodiscard]] const bpe& merges() const { return bpe_; }
    /// Sorted by id.
    [[nodiscard]] std::span<const added_token> added_tokens() const { return detail::span_of(added_); }

    /// The bytes of a token, which need not be valid UTF-8; empty for an id without a string, negative ids included.
    [[nodiscard]] std::string_view bytes_of(std::int64_t id) const {
        const vocabulary& strings = bpe_.strings();
        if (id >= 0 && static_cast<std::uint64_t>(id) < strings.size())
            if (const std::string_view s = strings.bytes_of(static_cast<std::size_t>(id)); !s.empty()) return s;
        const added_token* const t = added(id);
        return t == nullptr ? std::string_view{} : std::string_view{t->content};
    }

    /// False for ids that decode to nothing. Never sample those.
    [[nodiscard]] bool has_string(std::int64_t id) const { return !bytes_of(id).empty(); }

    /// Calls visit(name, span) with each finished table, in whole 32-bit numbers or bytes: for a file from which
    /// tokenizer_builder::build_from_tables loads it again, in a fraction of the time.
    template <class Visit>
    void for_each_table(Visit&& visit) const {
        bpe::for_each_table(bpe_, [&](std::string_view name, const auto& table) { visit(name, detail::span_of(table)); });
    }

    /// The added token with this id, or nullptr.
    [[nodiscard]] const added_token* added(std::int64_t id) const;

    /// The added token with exactly this content, or nullptr.
    [[nodiscard]] const added_token* added(std::string_view content) const;

    [[nodiscard]] bool is_special(std::int64_t id) const {
        const added_token* const t = added(id);
        return t != nullptr && t->special;
    }

    /// Appends the ids of `text` to `ids`. Invalid UTF-8 counts as U+FFFD. For many texts use an `encoder`, which remembers words.
    /// Errors: invalid_argument for texts of 2 GiB and more; out_of_memory. `ids` is then as it was.
    status encode(std::string_view text, const encode_options& options, std::vector<std::int32_t>& ids) const;

    /// Appends the text of `ids` to `text`: their bytes joined, then one U+FFFD for each maximal invalid subpart. Ids without
    /// a string are nothing. Errors: out_of_memory; `text` is then as it was.
    status decode(std::span<const std::int32_t> ids, const decode_options& options, std::string& text) const;

private:
    friend class tokenizer_builder;
    friend class encoder;
    tokenizer() = default;

    bpe bpe_;
    std::vector<added_token> added_;
    detail::marker_set markers_;             // normalized: false
    detail::marker_set normalized_markers_;  // normalized: true, in normalized form
    std::size_t vocab_size_ = 0;
    split_pattern pattern_ = split_pattern::o200k;
    normal_form normalization_ = normal_form::none;
};

/// Puts a tokenizer together from its parts, checking each: first all tokens, then merges in order of rank, and added tokens. Every call
/// may also fail with out_of_memory; the builder is then good for nothing but to be dropped.
class tokenizer_builder {
public:
    split_pattern pattern = split_pattern::o200k;
    normal_form normalization = normal_form::none;
    bool ignore_merges = false;  ///< a piece that is a token is that token, whatever the merges say

    [[nodiscard]] status reserve(std::size_t tokens, std::size_t bytes, std::size_t merges) {
        const status room = strings_.reserve(tokens, bytes);
        return room ? detail::or_out_of_memory("take the merges of a tokenizer", [&] { rules_.reserve(merges); }) : room;
    }

    /// A token of the vocabulary, as bytes. Errors: bad_vocabulary.
    [[nodiscard]] status add_token(std::size_t id, std::string_view bytes) { return strings_.add(id, bytes); }

    /// The next merge. Errors: bad_merge if a part or the result is no token.
    [[nodiscard]] status add_merge(std::string_view left, std::string_view right) {
        return detail::or_out_of_memory("add a merge to the tokenizer", [&] { return append_merge(left, right); });
    }

    /// Errors: bad_vocabulary (id out of range, content empty, too long or not UTF-8).
    [[nodiscard]] status add_added_token(added_token token);

    /// The tokenizer; the builder is empty afterwards. Errors: bad_vocabulary (bytes without a token, added tokens that
    /// contradict each other or the vocabulary), bad_merge.
    [[nodiscard]] result<tokenizer> build();

    /// The tokenizer from the tables of one like it, instead of tokens and merges; added tokens come first. `fill(name, vector)`
    /// returns a status and fills one table. Tables are checked so far that nothing in them can do harm, not that they are right.
    /// Errors: bad_vocabulary, bad_merge, and those of `fill`.
    template <class Fill>
    [[nodiscard]] result<tokenizer> build_from_tables(Fill&& fill) {
        return detail::or_out_of_memory("build a tokenizer", [&]() -> result<tokenizer> {
            result<bpe> b = bpe::from_tables(fill, ignore_merges);
            if (!b) return b.error();
            if (status s = check_added(b->strings()); !s) return s.error();
            return finish(std::move(b));
        });
    }

    [[nodiscard]] const vocabulary& strings() const { return strings_; }

private:
    [[nodiscard]] status append_merge(std::string_view left, std::string_view right);

    [[nodiscard]] result<tokenizer> finish(result<bpe> b);

    [[nodiscard]] status check_added(const vocabulary& strings);

    vocabulary strings_;
    std::vector<merge_rule> rules_;
    std::vector<added_token> added_;
    std::string joined_;
};

/// Encodes with one tokenizer, which must outlive it and stay in place. Owns the buffers and a cache of words, which the first text takes,
/// so it is for one thread at a time.
class encoder {
public:
    static constexpr std::size_t default_cache_entries = 8192;  ///< of 64 bytes each, all in all

    explicit encoder(const tokenizer& t, std::size_t cache_entries = default_cache_entries)
        : tokenizer_(&t), cache_entries_(cache_entries), scratch_(2 * cache_entries) {}

    /// Appends the ids of `text` to `ids`. Invalid UTF-8 counts as U+FFFD. Errors: invalid_argument for texts of 2 GiB and more, also where they are
    /// that long once they are valid and normalized, and for a tokenizer that was moved from; out_of_memory. `ids` is then as it was.
    status encode(std::string_view text, const encode_options& options, std::vector<std::int32_t>& ids);

    [[nodiscard]] const tokenizer& of() const { return *tokenizer_; }

private:
    void take_caches() {
        if (!words_.empty()) return;
        long_words_ = detail::word_cache<5, 5>((cache_entries_ + 3) / 4);
        words_ = detail::word_cache<2, 3>(cache_entries_);
    }

    /// Errors: those of `encode`.
    [[nodiscard]] status append_ids(std::string_view text, const encode_options& options, std::vector<std::int32_t>& ids);

    /// Positions in a piece have 32 bits. `what` the text is, beside itself. Errors: invalid_argument.
    [[nodiscard]] static status check_length(std::string_view text, const char* what = "") {
        if (text.size() < (std::size_t{1} << 31)) return {};
        return error::format(errc::invalid_argument, "the text has %zu bytes%s, one call takes less than 2 GiB: cut it", text.size(), what);
    }

    /// The text in the tokenizer's normal form: itself if it is, else valid until the next call.
    std::string_view normalized(std::string_view text);

    /// Markers become ids; `sink` gets the text between them.
    template <class Sink>
    void encode_marked(std::string_view text, const detail::marker_set& markers, marker_policy policy,
                       std::vector<std::int32_t>& ids, Sink&& sink) {
        const char* const begin = text.data();
        const char* const end = begin + text.size();
        const char* done = begin;       // start of the text that is not encoded yet
        const char* space_end = begin;  // of the white space behind the last marker that swallows it: looked at once, also where markers are spaces
        for (const char* p = begin; !markers.empty();) {
            const byte_trie::match found = markers.find(p, end);
            if (found.token == no_token) break;
            const added_token& marker = tokenizer_->added_[found.token];
            const char* start = p;
            p += found.size;  // the search goes on here, in white space that is swallowed too
            if (policy == marker_policy::parse_not_special && marker.special) continue;
            const auto view = [](const char* from, const char* to) {
                return std::string_view(from, static_cast<std::size_t>(to - from));
            };
            if (marker.lstrip && done < start) start -= detail::trailing_space(view(done, start));
            if (done < start) sink(view(done, start));
            ids.push_back(static_cast<std::int32_t>(marker.id));
            if (marker.rstrip && p >= space_end) space_end = p + detail::leading_space(view(p, end));  // else p is inside of it
            done = marker.rstrip ? space_end : p;
        }
        if (done < end) sink(std::string_view(done, static_cast<std::size_t>(end - done)));
    }

    void encode_plain(std::string_view text, std::vector<std::int32_t>& ids);

    template <split_pattern Pattern>
    void encode_pieces(std::string_view text, std::vector<std::int32_t>& ids) {
        const char* const end = text.data() + text.size();
        for_each_piece<Pattern>(text, [&](std::string_view piece) {
            if (piece.size() <= words_.max_bytes) return encode_word(piece, end, words_, ids);
            if (piece.size() <= long_words_.max_bytes) return encode_word(piece, end, long_words_, ids);
            encode_piece(piece, ids);
        });
    }

    void encode_piece(std::string_view piece, std::vector<std::int32_t>& ids) {
        tokenizer_->bpe_.tokens_of(piece, scratch_, [&ids](std::uint32_t id) { ids.push_back(static_cast<std::int32_t>(id)); });
    }

    /// `end` of the text, up to which bytes may be read.
    template <class Cache>
    void encode_word(std::string_view piece, const char* end, Cache& words, std::vector<std::int32_t>& ids) {
        const auto key = Cache::key_of(piece.data(), piece.size(), static_cast<std::size_t>(end - piece.data()));
        typename Cache::entry& known = words.at(key);
        if (known.key == key) {
            for (std::uint32_t i = 0; i < known.count; ++i) ids.push_back(known.ids[i]);
            return;
        }
        const std::size_t before = ids.size();
        encode_piece(piece, ids);
        const std::size_t count = ids.size() - before;
        if (count > Cache::max_ids) return;
        known.key = key;
        known.count = static_cast<std::uint32_t>(count);
        for (std::size_t i = 0; i < count; ++i) known.ids[i] = ids[before + i];
    }

    const tokenizer* tokenizer_;
    std::size_t cache_entries_;
    detail::word_cache<2, 3> words_;
    detail::word_cache<5, 5> long_words_;
    bpe_scratch scratch_;
    std::string clean_;
    std::string normalized_;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY status tokenizer::encode(std::string_view text, const encode_options& options, std::vector<std::int32_t>& ids) const {
    encoder e(*this, 1);
    return e.encode(text, options, ids);
}

PHI4FLASH_BODY status encoder::encode(std::string_view text, const encode_options& options, std::vector<std::int32_t>& ids) {
    if (const status ok = check_length(text); !ok) return ok;
    if (tokenizer_->merges().strings().size() == 0)
        return error::format(errc::invalid_argument, "the tokenizer has no tokens: it was moved to another place");
    return detail::append_or_nothing("encode a text", ids, [&] {
        take_caches();
        return append_ids(text, options, ids);
    });
}

PHI4FLASH_BODY status encoder::append_ids(std::string_view text, const encode_options& options, std::vector<std::int32_t>& ids) {
    if (valid_utf8_prefix(text) != text.size()) {
        clean_.clear();
        detail::append_lossy_utf8(text, clean_);
        text = clean_;
        if (const status ok = check_length(text, ", with U+FFFD for what is invalid"); !ok) return ok;
    }
    status outcome;
    const auto in_normal_form = [&](std::string_view given, auto&& encode) {
        if (!outcome) return;
        const std::string_view normal = normalized(given);
        outcome = check_length(normal, ", normalized");
        if (outcome) encode(normal);
    };
    const auto plain = [&](std::string_view normal) { encode_plain(normal, ids); };
    if (options.markers == marker_policy::plain_text) {
        in_normal_form(text, plain);
        return outcome;
    }
    encode_marked(text, tokenizer_->markers_, options.markers, ids, [&](std::string_view between) {
        in_normal_form(between,
                       [&](std::string_view normal) { encode_marked(normal, tokenizer_->normalized_markers_, options.markers, ids, plain); });
    });
    return outcome;
}

PHI4FLASH_BODY std::string_view encoder::normalized(std::string_view text) {
    const normal_form form = tokenizer_->normalization_;
    if (form == normal_form::none) return text;
    const std::size_t good = normalized_prefix(text, form);
    if (good == text.size()) return text;
    normalized_.assign(text.substr(0, good));
    detail::append_normal(text.substr(good), form, normalized_);
    return normalized_;
}

PHI4FLASH_BODY void encoder::encode_plain(std::string_view text, std::vector<std::int32_t>& ids) {
    switch (tokenizer_->pattern_) {
        case split_pattern::gpt2:
            return encode_pieces<split_pattern::gpt2>(text, ids);
        case split_pattern::cl100k:
            return encode_pieces<split_pattern::cl100k>(text, ids);
        case split_pattern::qwen2:
            return encode_pieces<split_pattern::qwen2>(text, ids);
        case split_pattern::o200k:
            return encode_pieces<split_pattern::o200k>(text, ids);
    }
}

PHI4FLASH_BODY const added_token* tokenizer::added(std::int64_t id) const {
    if (added_.empty() || id < added_.front().id || id > added_.back().id) return nullptr;
    const auto place =
        std::lower_bound(added_.begin(), added_.end(), id, [](const added_token& t, std::int64_t x) { return t.id < x; });
    return place != added_.end() && place->id == id ? &*place : nullptr;
}

PHI4FLASH_BODY const added_token* tokenizer::added(std::string_view content) const {
    for (const added_token& t : added_) {
        if (t.content == content) return &t;
    }
    return nullptr;
}

PHI4FLASH_BODY status tokenizer::decode(std::span<const std::int32_t> ids, const decode_options& options, std::string& text) const {
    return detail::append_or_nothing("decode a text", text, [&] {
        std::string bytes;
        for (const std::int32_t id : ids) {
            if (!options.skip_special || !is_special(id)) bytes.append(bytes_of(id));
        }
        detail::append_lossy_utf8(bytes, text);
    });
}

PHI4FLASH_BODY status tokenizer_builder::add_added_token(added_token token) {
    if (token.id >= max_vocabulary_ids)
        return error::format(errc::bad_vocabulary, "added token id %u is not below the limit of %zu", detail::for_print(token.id),
                             max_vocabulary_ids);
    if (token.content.empty() || token.content.size() > max_token_bytes ||
        valid_utf8_prefix(token.content) != token.content.size())
        return error::format(errc::bad_vocabulary, "added token %u: want 1 to %zu bytes of UTF-8, have %zu bytes", detail::for_print(token.id),
                             max_token_bytes, token.content.size());
    return detail::or_out_of_memory("add a token to the tokenizer", [&] { added_.push_back(std::move(token)); });
}

PHI4FLASH_BODY result<tokenizer> tokenizer_builder::build() {
    return detail::or_out_of_memory("build a tokenizer", [&]() -> result<tokenizer> {
        if (status s = check_added(strings_); !s) return s.error();
        return finish(bpe::create(std::move(strings_), std::move(rules_), ignore_merges));
    });
}

PHI4FLASH_BODY status tokenizer_builder::append_merge(std::string_view left, std::string_view right) {
    merge_rule r{strings_.find(left), strings_.find(right), no_token};
    if (r.left == no_token || r.right == no_token)
        return error::format(errc::bad_merge, "merge %zu: its %s part is not in the vocabulary", rules_.size(),
                             r.left == no_token ? "left" : "right");
    // Vocabularies are numbered in the order of their merges, nearly always.
    const std::uint32_t guess = rules_.empty() ? no_token : rules_.back().merged + 1;
    const std::string_view guessed = strings_.bytes_of(guess);
    if (guessed.size() == left.size() + right.size() && guessed.starts_with(left) && guessed.ends_with(right)) {
        r.merged = guess;
    } else {
        joined_.assign(left).append(right);
        r.merged = strings_.find(joined_);
    }
    if (r.merged == no_token)
        return error::format(errc::bad_merge, "merge %zu: its result, %zu bytes, is not in the vocabulary", rules_.size(),
                             joined_.size());
    rules_.push_back(r);
    return {};
}

PHI4FLASH_BODY result<tokenizer> tokenizer_builder::finish(result<bpe> b) {
    if (!b) return b.error();
    tokenizer t;
    t.bpe_ = *std::move(b);
    t.added_ = std::move(added_);
    if (status s = t.markers_.build(t.added_, false, normal_form::none); !s) return s.error();
    if (status s = t.normalized_markers_.build(t.added_, true, normalization); !s) return s.error();
    t.vocab_size_ = t.bpe_.strings().size();
    if (!t.added_.empty() && t.vocab_size_ <= t.added_.back().id) t.vocab_size_ = t.added_.back().id + std::size_t{1};
    t.pattern_ = pattern;
    t.normalization_ = normalization;
    *this = tokenizer_builder{};
    return t;
}

PHI4FLASH_BODY status tokenizer_builder::check_added(const vocabulary& strings) {
    detail::sort_once(added_, [](const added_token& a, const added_token& b) { return a.id < b.id; });
    vocabulary contents;
    for (std::size_t i = 0; i < added_.size(); ++i) {
        const added_token& t = added_[i];
        if (i != 0 && added_[i - 1].id == t.id)
            return error::format(errc::bad_vocabulary, "id %u is given to two added tokens", detail::for_print(t.id));
        const status ok = contents.add(i, t.content);
        if (!ok && contents.find(t.content) == no_token) return ok.error().in("added tokens");
        if (!ok) return error::format(errc::bad_vocabulary, "added token '%s' is given twice", detail::plain_name(t.content).c_str());
        const std::string_view in_vocabulary = strings.bytes_of(t.id);
        const std::uint32_t id_there = strings.find(t.content);
        if ((!in_vocabulary.empty() && in_vocabulary != t.content) || (id_there != no_token && id_there != t.id))
            return error::format(errc::bad_vocabulary, "added token '%s' has id %u, which contradicts the vocabulary",
                                 detail::plain_name(t.content).c_str(), detail::for_print(t.id));
    }
    return {};
}
#endif

PHI4FLASH_END
