#pragma once
/// One text being written, apart from the passes that read it: what it wants read next, what is chosen from the logits that come of it, and
/// when it ends. `generation` drives one of these, `scheduler` many in the same passes.
///
///     next(most)    tokens that a pass should read now: a slice of the prompt, or the last chosen token and drafts of what follows it
///     take(logits)  chooses; how many of these tokens are to be committed
///     event()       what happened, one after the other, until there is nothing: then another pass is wanted, or the text has ended
///     surplus()     after the end: tokens that were committed and are not part of the text, to be taken back (session::rewind)
/// @since 0.2
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/generate/drafter.hpp>
#include <phi4flash/generate/events.hpp>
#include <phi4flash/generate/options.hpp>
#include <phi4flash/generate/stop.hpp>
#include <phi4flash/kernels/compute.hpp>
#include <phi4flash/model/shape.hpp>
#include <phi4flash/text/decoder.hpp>

#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// Whether an id may be chosen: one that has a string, or a stop id. Without a tokenizer, any.
[[nodiscard]] inline bool may_be_chosen(std::size_t id, const tokenizer* text, std::span<const std::int32_t> stop_ids) {
    return text == nullptr || text->has_string(static_cast<std::int64_t>(id)) ||
           std::find(stop_ids.begin(), stop_ids.end(), static_cast<std::int32_t>(id)) != stop_ids.end();
}

/// What a text wants read, and what of it: see `reading`.
struct text_slice {
    std::span<const std::int32_t> tokens;
    std::size_t wanted = 0;
    std::size_t choices = 1;
};

/// What is set aside for a text when it is made.
struct text_limits {
    std::size_t prompt = 0;  ///< tokens of the longest prompt
    std::size_t drafts = 0;  ///< at once, at most max_drafts
};

/// For one thread at a time. After `create` it allocates nothing. The tokenizer must outlive it and stay in place.
class text_writer {
public:
    /// Bytes that a text takes: what choosing takes, a decoder, the prompt and its drafts. Beside them copies of stop ids, and where there are
    /// stop strings some 30 KiB.
    [[nodiscard]] static constexpr std::size_t bytes(std::size_t vocab, const sampling_options& sampling, const text_limits& limits) {
        return sampler::bytes(sampling, vocab) + sizeof(stream_decoder) + (limits.prompt + 2 * (limits.drafts + 1)) * sizeof(std::int32_t) +
               limits.drafts * sizeof(draft);
    }

    /// `text` may be null: then events carry tokens only. `kernels`: a table's, or plain ones that choose the same. Errors: those of
    /// check_generation and sampler::create; invalid_argument (a prompt of more than max_extent tokens); out_of_memory.
    static result<text_writer> create(std::size_t vocab, const tokenizer* text, const generation_options& options, const text_limits& limits,
                                      const choosing_kernels& kernels = plain_choosing);

    /// What is wrong with a prompt that goes into a session with `room` for so many tokens. Errors: see `start`.
    [[nodiscard]] status refusal(std::span<const std::int32_t> prompt, std::size_t room) const {
        if (prompt.size() > limits_.prompt)
            return error::format(errc::invalid_argument, "a prompt of %zu tokens: want at most %zu, as it was made for (text_limits)", prompt.size(),
                                 limits_.prompt);
        return refusal(vocab_, prompt, room);
    }
    /// The same of any writer that was made for prompts so long. Errors: invalid_argument (no tokens), context_full, unknown_token.
    [[nodiscard]] static status refusal(std::size_t vocab, std::span<const std::int32_t> prompt, std::size_t room);

    /// Begins a text: `prompt` goes into a session that has `room` for so many tokens. Forgets the text before. `guesses`, if any, must stay
    /// in place until the text has ended. `policy` says how many of them are read; without one, all. `place`: where the prompt begins in its
    /// session. Random numbers are those of a token's place, so that a text which is stopped and goes on is the one that was not stopped.
    /// Errors: invalid_argument (no tokens, more than there is a place for); context_full; unknown_token. Nothing has changed then.
    [[nodiscard]] status start(std::span<const std::int32_t> prompt, std::size_t room, drafter_ref guesses = {}, draft_policy* policy = nullptr,
                               std::size_t place = 0);

    /// Whether it is being written: started, and its end has not been told.
    [[nodiscard]] bool running() const { return running_; }
    /// Whether it is past its prompt.
    [[nodiscard]] bool writing() const { return read_ == prompt_.size(); }
    /// Tokens of the prompt that have not been read.
    [[nodiscard]] std::size_t prompt_left() const { return prompt_.size() - read_; }

    /// What it wants read in the next pass, at most `most` tokens, at least one. To be asked when `event` has nothing to tell and the text
    /// is running. Valid until the next call of anything here.
    [[nodiscard]] text_slice next(std::size_t most);

    /// What `next` asked for has been read, and these are the logits after the last `wanted` of it: [wanted, vocab], finite numbers.
    /// Returns how many of its tokens are to be committed. Touches nothing but this text: may run on any thread.
    [[nodiscard]] std::size_t take(rows_view<const float> logits);

    /// The pass of what `next` asked for took so many seconds, and was of this text alone: for the policy. To be told before `take`.
    void took(double seconds) {
        if (policy_ != nullptr && writing()) policy_->took(drafts_.size(), seconds);
    }

    /// What happened, one after the other; kind `none` when there is nothing more to tell. `end` comes once, and is the last.
    [[nodiscard]] generation_event event();

    /// Ends the text before anything else is told; `event` then tells the end. What was told last may have ended it: then it was not cancelled.
    void stop(stop_reason reason) {
        if (!running()) return;
        if (!ending_ || reason != stop_reason::cancelled) ending_ = reason;
        stopped_ = true;
    }

    /// The text is over, and `event` has nothing more to tell.
    void end(stop_reason reason) {
        running_ = false;
        summary_.reason = reason;
    }

    /// Whether `event` has something to tell; where it has not, a running text wants another pass.
    [[nodiscard]] bool has_event() const { return running() && (ending_ || told_ != read_ || delivered_ < chosen_.size()); }

    /// Tokens that were committed and come after the last one told: to be taken back where the text ends here.
    [[nodiscard]] std::size_t surplus() const {
        const std::size_t untold = chosen_.size() - delivered_;
        return untold != 0 && delivered_ == 0 ? untold - 1 : untold;
    }

    [[nodiscard]] const generation_summary& summary() const { return summary_; }

private:
    text_writer(std::size_t vocab, const tokenizer* text, const generation_options& options, const text_limits& limits, sampler&& chooser,
                stop_matcher&& stops)
        : text_(text), chooser_(std::move(chooser)), stops_(std::move(stops)), stop_ids_(options.stop_ids), limits_(limits), vocab_(vocab),
          max_tokens_(options.max_tokens), skip_special_(options.skip_special) {
        // Without a tokenizer there is no text, so nothing to decode and no string to find.
        if (text != nullptr) decoder_ = std::make_unique<stream_decoder>(*text, decode_options{.skip_special = options.skip_special});
        limits_.drafts = (std::min)(limits.drafts, max_drafts);
        prompt_.reserve(limits.prompt);
        slice_.reserve(limits_.drafts + 1);
        drafts_.reserve(limits_.drafts);
        chosen_.reserve(limits_.drafts + 1);
    }

    [[nodiscard]] bool in_vocabulary(std::int32_t token) const { return token >= 0 && static_cast<std::size_t>(token) < vocab_; }
    [[nodiscard]] bool is_stop(std::int32_t token) const { return std::find(stop_ids_.begin(), stop_ids_.end(), token) != stop_ids_.end(); }

    /// Drafts of what comes after the last token, as many as are worth reading.
    void propose(std::size_t most);

    /// Chooses after each token that was read, as long as what is chosen is what was read next.
    void choose(rows_view<const float> logits);

    [[nodiscard]] generation_event deliver(std::int32_t token);

    [[nodiscard]] generation_event finish();

    const tokenizer* text_;
    sampler chooser_;
    stop_matcher stops_;
    std::unique_ptr<stream_decoder> decoder_;  // not in here: it is large, and what it gave stays valid where this is moved
    std::vector<std::int32_t> stop_ids_;
    drafter_ref drafter_;
    draft_policy* policy_ = nullptr;
    text_limits limits_;
    std::size_t vocab_;
    std::size_t max_tokens_;
    bool skip_special_;

    std::vector<std::int32_t> prompt_;
    std::vector<std::int32_t> slice_;   // what is being read, past the prompt
    std::vector<std::int32_t> chosen_;  // in the last pass
    std::vector<draft> drafts_;         // that are being read
    generation_summary summary_;
    std::size_t count_ = 0;      // tokens that `next` asked for
    std::size_t read_ = 0;       // tokens of the prompt
    std::size_t told_ = 0;       // of them
    std::size_t delivered_ = 0;  // of those chosen
    std::size_t guessed_ = 0;    // of those chosen: the drafter has read them
    std::size_t room_ = 0;       // tokens that the session can still read
    std::optional<stop_reason> ending_;
    bool stopped_ = false;  // by `stop`
    bool running_ = false;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY result<text_writer> text_writer::create(std::size_t vocab, const tokenizer* text, const generation_options& options,
                                                       const text_limits& limits, const choosing_kernels& kernels) {
    if (const status ok = check_generation(options, vocab, text); !ok) return ok.error();
    if (limits.prompt > max_extent)
        return error::format(errc::invalid_argument, "text_limits.prompt: want at most %zu, have %zu", max_extent, limits.prompt);
    return detail::or_out_of_memory("begin a text", [&]() -> result<text_writer> {
        const auto allowed = [&](std::size_t id) { return may_be_chosen(id, text, detail::span_of(options.stop_ids)); };
        auto chooser = sampler::create(options.sampling, vocab, allowed, kernels);
        if (!chooser) return chooser.error();
        auto stops = stop_matcher::create(detail::span_of(options.stop_strings));
        if (!stops) return stops.error();
        return text_writer(vocab, text, options, limits, *std::move(chooser), *std::move(stops));
    });
}

PHI4FLASH_BODY status text_writer::refusal(std::size_t vocab, std::span<const std::int32_t> prompt, std::size_t room) {
    if (prompt.empty()) return error::format(errc::invalid_argument, "the prompt has no tokens: want at least one");
    if (prompt.size() > room)
        return error::format(errc::context_full, "a prompt of %zu tokens: the session has room for %zu more", prompt.size(), room);
    for (const std::int32_t token : prompt)
        if (token < 0 || static_cast<std::size_t>(token) >= vocab)
            return error::format(errc::unknown_token, "token %d: want 0 to %zu", static_cast<int>(token), vocab - 1);
    return {};
}

PHI4FLASH_BODY status text_writer::start(std::span<const std::int32_t> prompt, std::size_t room, drafter_ref guesses, draft_policy* policy,
                                         std::size_t place) {
    if (const status ok = refusal(prompt, room); !ok) return ok;
    chooser_.restart(place + prompt.size());
    for (const std::int32_t token : prompt) chooser_.accept(token);
    if (decoder_) (void)decoder_->flush();
    stops_.restart();
    prompt_.assign(prompt.begin(), prompt.end());
    chosen_.clear();
    slice_.clear();
    drafts_.clear();
    summary_ = {};
    drafter_ = guesses;
    policy_ = policy;
    drafter_.read(prompt);
    told_ = read_ = delivered_ = guessed_ = 0;
    room_ = room;
    ending_.reset();
    stopped_ = false;
    running_ = true;
    return {};
}

PHI4FLASH_BODY text_slice text_writer::next(std::size_t most) {
    if (!writing()) {
        const std::size_t n = (std::min)(most, prompt_left());
        slice_.clear();
        count_ = n;
        return {std::span<const std::int32_t>(prompt_.data() + read_, n), n == prompt_left() ? std::size_t{1} : std::size_t{0}, 1};
    }
    drafter_.read(detail::span_of(chosen_).subspan(std::exchange(guessed_, chosen_.size())));
    slice_.assign(1, summary_.unread);
    propose((std::min)({most - 1, limits_.drafts, room_ - 1, max_tokens_ - summary_.new_tokens - 1}));
    for (const draft& d : drafts_) slice_.push_back(d.token);
    count_ = slice_.size();
    return {detail::span_of(slice_), count_, count_};
}

PHI4FLASH_BODY std::size_t text_writer::take(rows_view<const float> logits) {
    chosen_.clear();
    delivered_ = guessed_ = 0;
    if (!writing()) {
        read_ += count_;
        room_ -= count_;
        summary_.prompt_tokens = read_;
        if (!writing()) return count_;
        choose(logits);
        if (max_tokens_ == 0) ending_ = stop_reason::max_tokens;
        return count_;
    }
    choose(logits);
    if (policy_ != nullptr) policy_->fared(detail::span_of(drafts_), chosen_.size() - 1);
    summary_.drafted += drafts_.size();
    summary_.accepted += chosen_.size() - 1;
    summary_.unread = -1;
    room_ -= chosen_.size();
    return chosen_.size();
}

PHI4FLASH_BODY generation_event text_writer::event() {
    if (!running()) return {.kind = event_kind::none};
    if (told_ != read_ && !stopped_) {
        told_ = read_;
        return {.kind = event_kind::prompt, .read = read_, .total = prompt_.size()};
    }
    if (!ending_ && delivered_ < chosen_.size()) {
        const std::int32_t token = chosen_[delivered_++];
        summary_.unread = token;
        if (!is_stop(token)) return deliver(token);
        ending_ = stop_reason::stop_token;
    }
    return ending_ ? finish() : generation_event{.kind = event_kind::none};
}

PHI4FLASH_BODY void text_writer::propose(std::size_t most) {
    drafts_.clear();
    if (policy_ != nullptr) most = policy_->ask(most);
    if (most == 0) return;
    drafts_.resize(most);
    drafts_.resize(drafter_.propose(detail::span_of(drafts_)));
    const auto foreign = std::find_if(drafts_.begin(), drafts_.end(), [this](const draft& d) { return !in_vocabulary(d.token); });
    drafts_.erase(foreign, drafts_.end());
    if (policy_ != nullptr) drafts_.resize(policy_->choose(detail::span_of(drafts_)));
}

PHI4FLASH_BODY void text_writer::choose(rows_view<const float> logits) {
    const std::size_t most = max_tokens_ - summary_.new_tokens;
    while (chosen_.size() < most) {
        const std::size_t row = chosen_.size();
        const std::int32_t token = chooser_.choose({logits[row], vocab_});
        chooser_.accept(token);
        chosen_.push_back(token);
        if (is_stop(token) || row + 1 >= slice_.size() || slice_[row + 1] != token) break;
    }
}

PHI4FLASH_BODY generation_event text_writer::deliver(std::int32_t token) {
    ++summary_.new_tokens;
    std::string_view piece;
    if (text_ != nullptr) {
        const bool hidden = skip_special_ && text_->is_special(token);
        // Never longer than the matcher has memory for: never an error.
        piece = *(hidden ? stops_.push_hidden(text_->bytes_of(token)) : stops_.push(decoder_->push(token)));
    }
    if (stops_.matched()) {
        ending_ = stop_reason::stop_string;
    } else if (summary_.new_tokens == max_tokens_) {
        ending_ = stop_reason::max_tokens;
    } else if (room_ == 0 && delivered_ == chosen_.size()) {
        ending_ = stop_reason::context_full;
    }
    return {.token = token, .text = piece, .kind = event_kind::token};
}

PHI4FLASH_BODY generation_event text_writer::finish() {
    // First, as it may throw, and the end is to be told then, too.
    if (guessed_ < delivered_) {
        const std::size_t from = std::exchange(guessed_, delivered_);
        drafter_.read(detail::span_of(chosen_).subspan(from, delivered_ - from));
    }
    end(*ending_);
    std::string_view rest;
    if (decoder_ && *ending_ != stop_reason::stop_string && *ending_ != stop_reason::sink) rest = *stops_.finish(decoder_->flush());
    return {.text = rest, .kind = event_kind::end, .reason = *ending_};
}
#endif

PHI4FLASH_END
