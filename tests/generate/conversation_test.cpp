/// What is read at each turn of a conversation, and options from what a model's files say.
#include <phi4flash/generate/conversation.hpp>
#include <phi4flash/generate/options.hpp>

#include <doctest/doctest.h>

namespace {

namespace p4 = phi4flash;
using ids_type = std::vector<std::int32_t>;

constexpr std::int32_t end_of_text = 256, assistant = 257, end_mark = 258, user = 259, system_marker = 260;

/// Each byte is its own id; the markers of the chat format follow.
p4::tokenizer byte_tokenizer() {
    p4::tokenizer_builder builder;
    for (std::size_t byte = 0; byte < 256; ++byte) {
        const char c = static_cast<char>(byte);
        REQUIRE(builder.add_token(byte, std::string_view(&c, 1)));
    }
    std::uint32_t id = 256;
    for (const char* marker : {"<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>"})
        REQUIRE(builder.add_added_token({.id = id++, .content = marker, .special = true, .lstrip = false, .rstrip = false, .normalized = false}));
    auto t = builder.build();
    REQUIRE(t);
    return *std::move(t);
}

ids_type ask(p4::conversation& turns, std::string_view text) {
    const auto ids = turns.ask(text);
    REQUIRE(ids);
    return {ids->begin(), ids->end()};
}

/// With tokens that fit the summary.
void answered(p4::conversation& turns, const p4::generation_summary& summary) {
    ids_type written(summary.new_tokens, 'w');
    if (summary.unread >= 0 && summary.reason != p4::stop_reason::stop_token && !written.empty()) written.back() = summary.unread;
    REQUIRE(turns.answered(summary, written));
}

/// A session as a list of what it has read.
struct reader {
    ids_type read;
    std::size_t asked = 0;  // where the last prompt began
    p4::generation_summary summary;
    ids_type written;

    /// Reads a question's prompt, `most` tokens of it at most, and answers with `answer` and then the end of a message, or is cut before that.
    void turn(p4::conversation& turns, std::string_view question, const ids_type& answer, bool cut = false, std::size_t most = 1000) {
        const auto prompt = turns.ask(question, read.size());
        REQUIRE(prompt);
        asked = read.size();
        summary = {.reason = p4::stop_reason::cancelled, .prompt_tokens = std::min(most, prompt->size())};
        read.insert(read.end(), prompt->begin(), prompt->begin() + static_cast<std::ptrdiff_t>(summary.prompt_tokens));
        written.clear();
        if (summary.prompt_tokens == prompt->size()) {
            written = answer;
            summary.reason = cut ? p4::stop_reason::max_tokens : p4::stop_reason::stop_token;
            summary.new_tokens = answer.size();
            summary.unread = cut ? answer.back() : end_mark;
            read.insert(read.end(), answer.begin(), answer.end() - (cut ? 1 : 0));
        }
        REQUIRE(turns.answered(summary, written));
    }
};

ids_type all(const p4::conversation& turns) {
    ids_type ids(turns.tokens().begin(), turns.tokens().end());
    ids.insert(ids.end(), turns.record().unread.begin(), turns.record().unread.end());
    return ids;
}

}  // namespace

TEST_CASE("generate/conversation: it knows all that was read, and a turn that is taken back was never there") {
    const p4::tokenizer text = byte_tokenizer();
    p4::conversation turns(text, "S");
    reader session;
    CHECK_FALSE(turns.take_back());
    session.turn(turns, "a", {'1', '2'});
    CHECK(session.read == ids_type{system_marker, 'S', end_mark, user, 'a', end_mark, assistant, '1', '2'});
    CHECK(all(turns) == ids_type{system_marker, 'S', end_mark, user, 'a', end_mark, assistant, '1', '2', end_mark});
    const ids_type after_one = all(turns);
    for (const bool cut : {false, true}) {
        session.turn(turns, "b", {'3', '4'}, cut);
        CHECK(turns.turns().size() == 2);
        CHECK(turns.turns()[1].question == "b");
        CHECK(turns.turns()[1].begin == 9);
        CHECK(ids_type(turns.tokens().begin(), turns.tokens().end()) == session.read);
        session.turn(turns, "c", {'5'}, cut);
        CHECK(ids_type(turns.tokens().begin(), turns.tokens().end()) == session.read);
        REQUIRE(turns.take_back());
        REQUIRE(turns.take_back());
        CHECK(all(turns) == after_one);
        session.read.resize(turns.tokens().size());
    }
    // The same question again, by a session that went back less far, nowhere, or further than that.
    session.turn(turns, "b", {'3'});
    const ids_type whole = all(turns);
    for (const std::size_t read : {std::size_t{0}, std::size_t{4}, std::size_t{9}}) {
        REQUIRE(turns.take_back());
        session.read.resize(read);
        session.turn(turns, "b", {'3'});
        CHECK(all(turns) == whole);
        CHECK(ids_type(turns.tokens().begin(), turns.tokens().end()) == session.read);
    }
    REQUIRE(turns.take_back());
    REQUIRE(turns.take_back());
    CHECK(turns.tokens().empty());
    session.read.clear();
    session.turn(turns, "a", {'1', '2'});
    CHECK(all(turns) == after_one);
}

TEST_CASE("generate/conversation: a session that lost some reads it again, cancelled or not, and nothing of the text is lost") {
    const p4::tokenizer text = byte_tokenizer();
    p4::conversation turns(text);
    reader session;
    session.turn(turns, "ab", {'1'});
    session.turn(turns, "cd", {'2', '3'}, true);
    const ids_type before = all(turns);
    const auto prefix_of_text = [&] { return std::equal(session.read.begin(), session.read.end(), all(turns).begin()); };
    for (std::size_t lost = 0; lost <= before.size() - 1; ++lost) {
        for (std::size_t most = 0; most < 6; ++most) {
            CAPTURE(lost);
            CAPTURE(most);
            p4::conversation copy(text);
            REQUIRE(copy.restore(turns.record()));
            reader again;
            again.read.assign(copy.tokens().begin(), copy.tokens().end() - static_cast<std::ptrdiff_t>(std::min(lost, copy.tokens().size())));
            const std::size_t missed = copy.tokens().size() - again.read.size();
            again.turn(copy, "xyz", {'4'}, false, most);  // dropped
            if (most <= missed) CHECK(all(copy) == before);
            CHECK(again.read.size() <= copy.tokens().size());
            CHECK(std::equal(again.read.begin(), again.read.end(), copy.tokens().begin()));
            CHECK(copy.turns().size() == 2);
            again.turn(copy, "e", {'5'});
            CHECK(ids_type(copy.tokens().begin(), copy.tokens().end()) == again.read);
            const ids_type now = all(copy);
            CHECK(std::equal(before.begin(), before.end(), now.begin()));
            const ids_type last = {user, 'e', end_mark, assistant, '5', end_mark};
            CHECK(std::equal(last.rbegin(), last.rend(), now.rbegin()));
        }
    }
    CHECK(prefix_of_text());
}

TEST_CASE("generate/conversation: what cannot be is refused, and nothing changes") {
    const p4::tokenizer text = byte_tokenizer();
    p4::conversation turns(text, "S");
    reader session;
    session.turn(turns, "a", {'1', '2'});
    const ids_type before = all(turns);
    CHECK_FALSE(turns.ask("b", before.size()));
    CHECK_FALSE(turns.answered({.reason = p4::stop_reason::stop_token, .prompt_tokens = 5, .new_tokens = 3, .unread = end_mark}, before));
    p4::conversation_record bad = turns.record();
    bad.turns[0].begin = bad.tokens.size();
    CHECK_FALSE(turns.restore(bad));
    bad = turns.record();
    bad.turns.push_back(bad.turns[0]);
    CHECK_FALSE(turns.restore(bad));
    bad = turns.record();
    bad.unread = {-1};
    CHECK_FALSE(turns.restore(bad));
    CHECK(all(turns) == before);
    turns.reset();
    CHECK(all(turns).empty());
    session.read.clear();
    session.turn(turns, "a", {'1', '2'});
    CHECK(all(turns) == before);
}

TEST_CASE("generate/conversation: a turn reads what the session has not read") {
    const p4::tokenizer text = byte_tokenizer();
    p4::conversation turns(text, "S");
    const ids_type first = {system_marker, 'S', end_mark, user, 'a', end_mark, assistant};
    CHECK(ask(turns, "a") == first);
    CHECK(ask(turns, "a") == first);  // nothing was generated in between: the same again

    // The model ended its answer itself; the session has not read the marker.
    answered(turns, {.reason = p4::stop_reason::stop_token, .prompt_tokens = first.size(), .new_tokens = 3, .unread = end_mark});
    CHECK(ask(turns, "b") == ids_type{end_mark, user, 'b', end_mark, assistant});

    // Another stop token is left out: the marker ends the answer.
    answered(turns, {.reason = p4::stop_reason::stop_token, .prompt_tokens = 5, .new_tokens = 3, .unread = end_of_text});
    CHECK(ask(turns, "c") == ids_type{end_mark, user, 'c', end_mark, assistant});

    // An answer that was cut short.
    answered(turns, {.reason = p4::stop_reason::max_tokens, .prompt_tokens = 5, .new_tokens = 3, .unread = 'x'});
    CHECK(ask(turns, "d") == ids_type{'x', end_mark, user, 'd', end_mark, assistant});

    turns.reset();
    CHECK(ask(turns, "a") == first);
}

TEST_CASE("generate/conversation: no later turn reads a message whose reading was cancelled") {
    const p4::tokenizer text = byte_tokenizer();
    const ids_type prompt = {system_marker, 'S', end_mark, user, 'a', 'b', end_mark, assistant};
    const auto cancelled_after = [&](std::size_t read) {
        p4::conversation turns(text, "S");
        REQUIRE(ask(turns, "ab") == prompt);
        answered(turns, {.reason = p4::stop_reason::cancelled, .prompt_tokens = read, .new_tokens = 0, .unread = -1});
        return ask(turns, "c");
    };
    const ids_type next = {user, 'c', end_mark, assistant};
    const auto after = [&](ids_type first) {
        first.insert(first.end(), next.begin(), next.end());
        return first;
    };
    CHECK(cancelled_after(0) == after({system_marker, 'S', end_mark}));  // what was not cancelled is still to be read
    CHECK(cancelled_after(2) == after({end_mark}));
    CHECK(cancelled_after(3) == next);                              // nothing of the message was read
    CHECK(cancelled_after(4) == after({end_mark}));                      // a part of it was: it is closed
    CHECK(cancelled_after(6) == after({end_mark}));
    CHECK(cancelled_after(7) == next);                              // all of it was, and no answer begun
    CHECK(cancelled_after(8) == after({end_mark}));                      // the answer was begun, and is empty

    // What an earlier turn left is no part of the message either. Two in a row.
    p4::conversation turns(text);
    CHECK(ask(turns, "a") == ids_type{user, 'a', end_mark, assistant});
    answered(turns, {.reason = p4::stop_reason::max_tokens, .prompt_tokens = 4, .new_tokens = 3, .unread = 'x'});
    CHECK(ask(turns, "b") == ids_type{'x', end_mark, user, 'b', end_mark, assistant});
    answered(turns, {.reason = p4::stop_reason::cancelled, .prompt_tokens = 1, .new_tokens = 0, .unread = -1});
    CHECK(ask(turns, "d") == ids_type{end_mark, user, 'd', end_mark, assistant});
    answered(turns, {.reason = p4::stop_reason::cancelled, .prompt_tokens = 2, .new_tokens = 0, .unread = -1});
    CHECK(ask(turns, "c") == after({end_mark}));
}

TEST_CASE("generate/conversation: a stop string that is a marker is no part of the answer, one that is text is") {
    const p4::tokenizer text = byte_tokenizer();
    p4::conversation turns(text);
    const std::size_t read = ask(turns, "a").size();
    answered(turns, {.reason = p4::stop_reason::stop_string, .prompt_tokens = read, .new_tokens = 3, .unread = user});
    const std::size_t again = ask(turns, "b").size();
    CHECK(ask(turns, "b") == ids_type{end_mark, user, 'b', end_mark, assistant});
    answered(turns, {.reason = p4::stop_reason::stop_string, .prompt_tokens = again, .new_tokens = 3, .unread = 'x'});
    CHECK(ask(turns, "c") == ids_type{'x', end_mark, user, 'c', end_mark, assistant});
}

TEST_CASE("generate/options: a chat stops at the template's own end, though the files name <|endoftext|> alone") {
    const p4::tokenizer text = byte_tokenizer();
    p4::generation_config said;
    said.stop_ids = {end_of_text};
    CHECK(p4::options_from(said, &text)->stop_ids == ids_type{end_of_text, end_mark});
    said.stop_ids = {end_mark, end_of_text};
    CHECK(p4::options_from(said, &text)->stop_ids == ids_type{end_mark, end_of_text});
    p4::generation_options own;
    REQUIRE(p4::stop_at_end_of_message(own, text));
    REQUIRE(p4::stop_at_end_of_message(own, text));
    CHECK(own.stop_ids == ids_type{end_mark});
}

TEST_CASE("generate/conversation: without a system message, and markers in the text stay text") {
    const p4::tokenizer text = byte_tokenizer();
    p4::conversation turns(text);
    CHECK(ask(turns, "a") == ids_type{user, 'a', end_mark, assistant});
    CHECK(ask(turns, "<|end|>").size() == 3 + 7);
}

TEST_CASE("generate/options: the files, else the model card; stop ids, else the markers'") {
    const p4::tokenizer text = byte_tokenizer();
    const p4::generation_options card = *p4::options_from({});
    CHECK(card.sampling.temperature == 0.6f);
    CHECK(card.sampling.top_p == 0.95f);
    CHECK(card.max_tokens == 32768);
    CHECK(card.stop_ids.empty());
    CHECK(p4::options_from({}, &text)->stop_ids == ids_type{end_mark, end_of_text});

    p4::generation_config said;
    said.stop_ids = {7, 9};
    said.temperature = 0.3f;
    said.top_p = 0.5f;
    said.min_p = 0.1f;
    said.top_k = 40;
    said.repetition_penalty = 1.5f;
    said.max_new_tokens = 12;
    said.stop_strings = {"STOP", "", "a\xC3"};  // of the files, empty ones and those that are not UTF-8 are none
    p4::generation_options options = *p4::options_from(said, &text);
    CHECK(options.stop_ids == ids_type{7, 9, end_mark});  // an answer is one message, whatever the files call an end
    CHECK(p4::options_from(said)->stop_ids == ids_type{7, 9});
    CHECK(options.stop_strings == std::vector<std::string>{"STOP"});
    CHECK(options.sampling.temperature == 0.3f);
    CHECK(options.sampling.top_p == 0.5f);
    CHECK(options.sampling.min_p == 0.1f);
    CHECK(options.sampling.top_k == 40);
    CHECK(options.sampling.repetition_penalty == 1.5f);
    CHECK(options.max_tokens == 12);
    said.do_sample = false;
    CHECK(p4::options_from(said)->sampling.temperature == 0.0f);
}
