#pragma once
/// What a game has of phi4flash: characters that share one model, think for some milliseconds a frame in the same passes, can be interrupted, and are
/// part of a saved game. The C API and the standard library; no thread but those of the workspace.
#include <phi4flash/phi4flash.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace game {

template <auto Destroy>
struct destroys {
    template <class T>
    void operator()(T* h) const { Destroy(h); }
};
using model_ptr = std::unique_ptr<phi4flash_model, destroys<phi4flash_model_destroy>>;
using tokenizer_ptr = std::unique_ptr<phi4flash_tokenizer, destroys<phi4flash_tokenizer_destroy>>;
using session_ptr = std::unique_ptr<phi4flash_session, destroys<phi4flash_session_destroy>>;
using workspace_ptr = std::unique_ptr<phi4flash_workspace, destroys<phi4flash_workspace_destroy>>;
using scheduler_ptr = std::unique_ptr<phi4flash_scheduler, destroys<phi4flash_scheduler_destroy>>;

/// A failure ends the game's loading, or what was asked; a game of yours may have other manners.
inline phi4flash_error error;
inline void check(phi4flash_code code) {
    if (code != PHI4FLASH_OK) throw std::runtime_error(error.message);
}
template <class Pointer, class F, class... A>
Pointer make(F create, A... arguments) {
    typename Pointer::pointer made = nullptr;
    check(create(arguments..., &made, &error));
    return Pointer(made);
}
template <class T>
T sized() {
    T t{};
    t.size = sizeof t;
    return t;
}

struct character {
    std::string name;
    session_ptr session;
    std::string question;
    std::string said;
    std::vector<std::int32_t> ids;   // prompt and answer; the session has read the first ones of them
    std::uint64_t prompt = 0;        // how many of them are the prompt
    std::uint64_t request = 0;       // 0: silent
    bool interrupted = false;        // the last answer was, or this one will be
    std::string next;                // asked while this one talked
};

class minds {
public:
    static constexpr std::uint64_t context = 2048;
    static constexpr std::uint64_t longest_answer = 1000;

    /// Opens the model: files are mapped, so this is a matter of milliseconds, but those that were never read come from the disk as they are used.
    minds(const std::string& path, std::vector<std::string> names, std::uint32_t threads) {
        model_ = make<model_ptr>(phi4flash_model_open, path.c_str(), path.size(), nullptr);
        auto about = sized<phi4flash_model_info>();
        check(phi4flash_model_get_info(model_.get(), &about, &error));
        if (about.has_tokenizer != 0) words_ = make<tokenizer_ptr>(phi4flash_tokenizer_open, model_.get());
        auto how = sized<phi4flash_workspace_options>();
        how.threads = threads;
        how.chunk = 32;                                             // pieces of prompts are short too
        how.states = how.logits = static_cast<std::uint32_t>(names.size());  // all may talk at once
        work_ = make<workspace_ptr>(phi4flash_workspace_create, model_.get(), &how);
        for (std::string& name : names) cast_.push_back(new_character(std::move(name)));
        scheduler_ = new_scheduler();
    }

    [[nodiscard]] std::vector<character>& cast() { return cast_; }
    [[nodiscard]] bool talking(std::size_t who) const { return cast_[who].request != 0; }

    /// Asks; whoever is talking is interrupted first.
    void ask(std::size_t who, std::string_view question) {
        if (!talking(who)) return begin(scheduler_, cast_[who], question);
        cast_[who].next = question;
        interrupt(who);
    }

    /// The next thing that comes of this talk is its end.
    void interrupt(std::size_t who) {
        if (!talking(who)) return;
        check(phi4flash_scheduler_cancel(scheduler_.get(), cast_[who].request, &error));
        cast_[who].interrupted = true;
    }

    /// Thinks: every frame. Returns within the budget, which may be used up, and one piece of work more, at once if nobody has anything to say.
    void think(std::uint64_t microseconds) {
        auto budget = sized<phi4flash_budget>();
        budget.microseconds = microseconds;
        const auto begin = std::chrono::steady_clock::now();
        std::uint32_t outcome = PHI4FLASH_TICK_DONE;
        while (outcome == PHI4FLASH_TICK_DONE) {
            const auto used = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
            if (static_cast<std::uint64_t>(used.count()) >= microseconds && used.count() != 0) break;
            budget.microseconds = (std::max)(microseconds - static_cast<std::uint64_t>(used.count()), std::uint64_t{1});  // 0 would be no limit
            check(phi4flash_scheduler_tick(scheduler_.get(), &budget, &outcome, &error));
            listen();
        }
    }

    // ---- saved games ----------------------------------------------------------------------------------------------------------------

    /// Everybody's words and sessions, in the middle of a talk too: what is being computed has not happened yet. The saved game of before is
    /// replaced by a whole one, or stays.
    void save(const std::string& path) const {
        const std::string all = saved();
        const std::string beside = path + ".new";
        std::ofstream out(beside, std::ios::binary);
        if (!out.is_open()) throw std::runtime_error("cannot write " + beside);
        out.write(all.data(), static_cast<std::streamsize>(all.size()));
        out.close();
        std::error_code failed;
        if (out) std::filesystem::rename(beside, path, failed);
        if (out && !failed) return;
        std::filesystem::remove(beside, failed);
        throw std::runtime_error("cannot write " + path);
    }

    /// As it was; its talks go on, and those of now are dropped. A file of another model, or one that was damaged, is refused by its sentence, and
    /// nothing has changed: the saved game comes to life beside the one that is played, which costs the memory of the sessions once more, and
    /// takes its place.
    void load(const std::string& path) {
        std::ifstream in(path, std::ios::binary);
        const std::string all{std::istreambuf_iterator<char>(in), {}};
        std::string_view rest = all;
        std::vector<character> cast;
        scheduler_ptr scheduler = new_scheduler();  // behind the cast: destroyed first, it leaves the sessions whole
        for (const character& now : cast_) {
            character& c = cast.emplace_back(new_character(now.name));
            c.question = take(rest);
            c.said = take(rest);
            c.next = take(rest);
            const std::string_view ids = take(rest);
            c.ids.resize(ids.size() / sizeof c.ids[0]);
            if (!ids.empty()) std::memcpy(c.ids.data(), ids.data(), c.ids.size() * sizeof c.ids[0]);
            c.prompt = take_number(rest);
            const bool talked = take_number(rest) != 0;
            c.interrupted = take_number(rest) != 0;
            const std::string_view snapshot = take(rest);
            check(phi4flash_session_restore(c.session.get(), snapshot.data(), snapshot.size(), &error));
            if (!talked) continue;
            auto info = sized<phi4flash_session_info>();
            check(phi4flash_session_get_info(c.session.get(), &info, &error));
            if (info.position >= c.ids.size() || c.prompt > c.ids.size()) throw std::runtime_error("the saved game does not fit together");
            if (!c.interrupted) submit(scheduler, c, info.position);  // what the session has not read
            else if (!c.next.empty()) begin(scheduler, c, std::exchange(c.next, {}));
        }
        cast_.swap(cast);
        scheduler_.swap(scheduler);
    }

private:
    [[nodiscard]] std::vector<std::int32_t> prompt_of(const std::string& question) const {
        if (!words_) return {question.begin(), question.end()};  // weights alone, to be measured: any ids will do
        auto message = sized<phi4flash_chat_message>();
        message.role = "user";
        message.role_length = 4;
        message.content = question.data();
        message.content_length = question.size();
        std::vector<std::int32_t> ids(context);
        std::size_t count = 0;
        check(phi4flash_tokenizer_encode_chat(words_.get(), &message, 1, nullptr, ids.data(), ids.size(), &count, &error));
        ids.resize(count);
        return ids;
    }

    [[nodiscard]] character new_character(std::string name) const {
        auto room = sized<phi4flash_session_options>();
        room.context = context;
        character c;
        c.name = std::move(name);
        c.session = make<session_ptr>(phi4flash_session_create, model_.get(), &room);
        return c;
    }

    [[nodiscard]] scheduler_ptr new_scheduler() const {
        auto together = sized<phi4flash_scheduler_options>();
        together.requests = cast_.size();
        together.prompt_rows = 8;
        return make<scheduler_ptr>(phi4flash_scheduler_create, work_.get(), words_.get(), &together);
    }

    void begin(const scheduler_ptr& scheduler, character& c, std::string_view question) const {
        c.question = question;
        c.said.clear();
        c.ids = prompt_of(c.question);
        c.prompt = c.ids.size();
        c.interrupted = false;
        check(phi4flash_session_reset(c.session.get(), &error));
        submit(scheduler, c, 0);
    }

    /// The ids from this one on are what the character's session reads next.
    static void submit(const scheduler_ptr& scheduler, character& c, std::size_t from) {
        auto options = sized<phi4flash_generation_options>();
        const std::uint64_t answered = c.ids.size() - c.prompt;
        options.max_tokens = answered < longest_answer ? longest_answer - answered : 1;
        check(phi4flash_scheduler_submit(scheduler.get(), c.session.get(), c.ids.data() + from, c.ids.size() - from, &options, &c.request, &error));
    }

    /// What happened to whom.
    void listen() {
        auto event = sized<phi4flash_event>();
        for (;;) {
            check(phi4flash_scheduler_next_event(scheduler_.get(), &event, &error));
            if (event.kind == PHI4FLASH_EVENT_NONE) return;
            for (std::size_t who = 0; who < cast_.size(); ++who) {
                character& c = cast_[who];
                if (c.request != event.request) continue;
                if (event.kind == PHI4FLASH_EVENT_TOKEN) c.ids.push_back(event.token);
                if (event.text_length != 0) c.said = answer_of(c);
                if (event.kind != PHI4FLASH_EVENT_END) continue;
                c.request = 0;
                c.interrupted = event.reason == PHI4FLASH_END_CANCELLED;
                if (event.reason == PHI4FLASH_END_FAILED) c.said = event.message;
                if (!c.next.empty()) ask(who, std::exchange(c.next, {}));
            }
        }
    }

    /// What the ids say, and not the texts of events one after the other: those of a talk that was saved between two tokens of one character would
    /// have only its end.
    [[nodiscard]] std::string answer_of(const character& c) const {
        const std::int32_t* const ids = c.ids.data() + c.prompt;
        const std::size_t n = c.ids.size() - c.prompt;
        std::size_t length = 0;
        phi4flash_tokenizer_decode(words_.get(), ids, n, 1, nullptr, 0, &length, nullptr);  // how long?
        std::string text(length + 1, '\0');
        check(phi4flash_tokenizer_decode(words_.get(), ids, n, 1, text.data(), text.size(), &length, &error));
        text.resize(length);
        return text;
    }

    [[nodiscard]] std::string saved() const {
        std::string all;
        for (const character& c : cast_) {
            std::uint64_t bytes = 0;
            std::size_t written = 0;
            check(phi4flash_session_get_snapshot_bytes(c.session.get(), 0, &bytes, &error));
            std::string snapshot(bytes, '\0');
            check(phi4flash_session_save(c.session.get(), 0, snapshot.data(), snapshot.size(), &written, &error));
            put(all, c.question);
            put(all, c.said);
            put(all, c.next);
            put(all, {reinterpret_cast<const char*>(c.ids.data()), c.ids.size() * sizeof c.ids[0]});
            put_number(all, c.prompt);
            put_number(all, c.request != 0 ? 1 : 0);
            put_number(all, c.interrupted ? 1 : 0);
            put(all, snapshot);
        }
        return all;
    }

    static void put_number(std::string& out, std::uint64_t number) { out.append(reinterpret_cast<const char*>(&number), sizeof number); }
    static void put(std::string& out, std::string_view bytes) {
        put_number(out, bytes.size());
        out.append(bytes);
    }
    static std::uint64_t take_number(std::string_view& rest) {
        std::uint64_t number = 0;
        if (rest.size() < sizeof number) throw std::runtime_error("the saved game is cut off");
        std::memcpy(&number, rest.data(), sizeof number);
        rest.remove_prefix(sizeof number);
        return number;
    }
    static std::string_view take(std::string_view& rest) {
        const std::uint64_t size = take_number(rest);
        if (rest.size() < size) throw std::runtime_error("the saved game is cut off");
        const std::string_view bytes = rest.substr(0, size);
        rest.remove_prefix(size);
        return bytes;
    }

    model_ptr model_;
    tokenizer_ptr words_;
    workspace_ptr work_;
    std::vector<character> cast_;
    scheduler_ptr scheduler_;  // the last member: destroyed first, it leaves the sessions whole
};

}  // namespace game
