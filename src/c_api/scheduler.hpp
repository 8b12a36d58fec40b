#pragma once
/// Schedulers: many texts in the same passes. Events are fetched, not told: a host that is called back is not needed for that.
#include "generation.hpp"

#include <phi4flash/generate/scheduler.hpp>

#include <memory>

PHI4FLASH_BEGIN
namespace c_api {

template <class Kv>
using scheduler_type = scheduler<any_sambay, Kv>;
using any_scheduler = one_of_each_kv<scheduler_type>;

static_assert(static_cast<std::uint32_t>(tick_outcome::idle) == PHI4FLASH_TICK_IDLE &&
              static_cast<std::uint32_t>(tick_outcome::paused) == PHI4FLASH_TICK_PAUSED &&
              static_cast<std::uint32_t>(tick_outcome::done) == PHI4FLASH_TICK_DONE &&
              static_cast<std::uint32_t>(stop_reason::failed) == PHI4FLASH_END_FAILED);

class scheduler_handle : public handle<scheduler_handle, handle_kind::scheduler> {
public:
    /// A request that has not ended.
    struct place {
        std::uint64_t request = 0;  // 0: free
        ref<session_handle> past;
        std::atomic<bool> cancelled{false};
        text_drafter drafter;
        draft_policy policy;
    };

    scheduler_handle(const host_memory& memory, const ref<workspace_handle>& w, const ref<tokenizer_handle>& words, std::size_t requests)
        : handle(memory), work(w), words_(words), places_(std::make_unique<place[]>(requests)),
          held_(std::make_unique<held<session_handle>[]>(requests)), n_places_(requests) {}

    [[nodiscard]] outcome prepare(const scheduler_options& options) {
        return with_kv(work->kv_type(), [&]<class Kv>(std::type_identity<Kv>) -> outcome {
            auto made = scheduler_type<Kv>::create(work->of->weights, *std::get_if<workspace_type<Kv>>(&*work->place),
                                                   words_ ? &words_->words : nullptr, options);
            if (!made) return made.error();
            of_.emplace(*std::move(made));
            return {};
        });
    }

    [[nodiscard]] std::span<place> places() const { return {places_.get(), n_places_}; }
    /// Any thread, any time.
    void cancel_all() {
        for (place& p : places()) p.cancelled.store(true, std::memory_order_relaxed);
    }

    /// The sessions of all requests, for as long as a call needs them.
    [[nodiscard]] outcome hold_sessions() {
        for (std::size_t i = 0; i < n_places_; ++i) {
            if (places_[i].request == 0 || held_[i].get() != nullptr) continue;
            if (outcome ok = held_[i].take(places_[i].past, "session of a request"); !ok) {
                drop_sessions();
                return ok;
            }
        }
        return {};
    }
    void drop_sessions() {
        for (std::size_t i = 0; i < n_places_; ++i) held_[i] = {};
    }

    [[nodiscard]] outcome read_options(const phi4flash_generation_options* from, generation_choices& to) const {
        return read_generation_options(from, *work, words_.get(), to);
    }

    [[nodiscard]] outcome submit(const ref<session_handle>& session, std::span<const std::int32_t> prompt, generation_choices&& how,
                                 std::uint64_t* id) {
        if (outcome ok = belong_together(*work, *session); !ok) return ok;
        place* free = nullptr;
        for (place& p : places())
            if (p.request == 0) free = &p;
        text_.make_room(how.options.stop_strings);
        if (free != nullptr) {
            free->cancelled.store(false, std::memory_order_relaxed);
            how.options.cancel = &free->cancelled;
            if (outcome ok = prepare_drafts(*session, how, *free); !ok) return ok;
        }
        return with_kv(work->kv_type(), [&]<class Kv>(std::type_identity<Kv>) -> outcome {
            request<any_sambay, Kv> r;
            r.past = std::get_if<session_type<Kv>>(&session->state);
            r.prompt = prompt;
            r.options = std::move(how.options);
            const auto added = std::get_if<scheduler_type<Kv>>(&*of_)->add(r);  // refuses where no place is free
            if (!added) return added.error();
            free->request = *id = static_cast<std::uint64_t>(*added);
            free->past = session;
            return {};
        });
    }

    [[nodiscard]] result<tick_outcome> tick(const time_budget& budget) {
        return std::visit([&](auto& s) { return s.tick_until(budget); }, *of_);
    }

    [[nodiscard]] phi4flash_event next_event() {
        return std::visit(
            [&](auto& s) {
                const auto told = s.next_event();
                if (!told) return text_.of({.kind = event_kind::none}, {});
                const generation_summary* const summary = s.summary(told->id);
                phi4flash_event e = text_.of(told->event, summary == nullptr ? generation_summary() : *summary);
                e.request = static_cast<std::uint64_t>(told->id);
                if (told->event.failure != nullptr) {
                    e.code = code_of(told->event.failure->code());
                    failure_ = *told->event.failure;
                    e.message = failure_.message();
                }
                if (told->event.kind == event_kind::end) ended(e.request);
                return e;
            },
            *of_);
    }

    [[nodiscard]] outcome cancel(std::uint64_t id) {
        for (place& p : places()) {
            if (p.request != id || id == 0) continue;
            p.cancelled.store(true, std::memory_order_relaxed);
            return {};
        }
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "request %llu: there is none, or its end has been told",
                               static_cast<unsigned long long>(id));
    }

    [[nodiscard]] phi4flash_scheduler_info info() const {
        phi4flash_scheduler_info info{};
        std::visit([&](const auto& s) { info.requests = s.size(), info.capacity = s.capacity(); }, *of_);
        return info;
    }

    const ref<workspace_handle> work;

private:
    [[nodiscard]] outcome prepare_drafts(const session_handle& session, generation_choices& how, place& to) {
        if (how.drafts.most == 0) return {};
        to.drafter.forget_text();
        use_drafts(how.drafts, to.drafter, to.policy, how.options.drafts);
        return std::visit([&](const auto& s) -> outcome { return to.drafter.make_room(s.context()); }, session.state);
    }

    void ended(std::uint64_t id) {
        for (std::size_t i = 0; i < n_places_; ++i) {
            if (places_[i].request != id) continue;
            held_[i] = {};
            places_[i].request = 0;
            places_[i].past = nullptr;
        }
    }

    const ref<tokenizer_handle> words_;
    const std::unique_ptr<place[]> places_;
    const std::unique_ptr<held<session_handle>[]> held_;
    const std::size_t n_places_;
    event_text text_;
    error failure_;
    std::optional<any_scheduler> of_;  // the last member: it points to sessions and flags
};

[[nodiscard]] inline outcome make_scheduler(const ref<workspace_handle>& w, const ref<tokenizer_handle>& words,
                                            const phi4flash_scheduler_options* from, phi4flash_scheduler** out) {
    constexpr std::uint32_t most = 1u << 16;
    phi4flash_scheduler_options o;
    if (outcome ok = read_optional(from, o, "options"); !ok) return ok;
    if (o.requests > most)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "options.requests: want at most %lu, have %lu", static_cast<unsigned long>(most),
                               static_cast<unsigned long>(o.requests));
    if (outcome ok = check_reserved(o.reserved, "options.reserved"); !ok) return ok;
    constexpr std::uint64_t longest = 1000000000000000;  // of scheduler_options, in microseconds
    if (o.longest_pass >= longest)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "options.longest_pass: want less than %llu microseconds, have %llu",
                               static_cast<unsigned long long>(longest), static_cast<unsigned long long>(o.longest_pass));
    scheduler_options options;
    if (o.requests != 0) options.requests = o.requests;
    if (o.prompt_rows != 0) options.prompt_rows = o.prompt_rows;
    options.longest_tick = static_cast<double>(o.longest_pass) * 1e-6;
    auto made = make_handle<scheduler_handle>(w->memory(), w, words, options.requests);
    if (!made) return made.error();
    if (outcome ok = (*made)->prepare(options); !ok) return ok;
    give_handle(out, *std::move(made));
    return {};
}

/// The locks of a call with a scheduler: what it computes with, too.
struct scheduler_in_use {
    held<scheduler_handle> of;
    held<workspace_handle> work;
    ~scheduler_in_use() {
        if (of.get() != nullptr) of->drop_sessions();
    }
    [[nodiscard]] outcome take(phi4flash_scheduler* given) {
        if (outcome ok = of.take(given, "scheduler"); !ok) return ok;
        if (outcome ok = work.take(of->work, "workspace of the scheduler"); !ok) return ok;
        return of->hold_sessions();
    }
};

}  // namespace c_api
PHI4FLASH_END
