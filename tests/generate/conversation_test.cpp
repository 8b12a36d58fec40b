/// What is read at each turn of a conversation, and options from what a model's files say.
#include <phi4flash/generate/conversation.hpp>

#include <doctest/doctest.h>

namespace {

namespace p4 = phi4flash;
using ids_type = std::vector<std::int32_t>;

constexpr std::int32_t end_of_text = 256, assistant = 257, end = 258, user = 259, system_marker = 260;

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

}  // namespace

TEST_CASE("generate/conversation: a turn reads what the session has not read") {
    const p4::tokenizer text = byte_tokenizer();
    p4::conversation turns(text, "S");
    const ids_type first = {system_marker, 'S', end, user, 'a', end, assistant};
    CHECK(ask(turns, "a") == first);
    CHECK(ask(turns, "a") == first);  // nothing was generated in between: the same again

    // The model ended its answer itself; the session has not read the marker.
    turns.answered({.reason = p4::stop_reason::stop_token, .prompt_tokens = first.size(), .new_tokens = 3, .unread = end});
    CHECK(ask(turns, "b") == ids_type{end, user, 'b', end, assistant});

    // Another stop token is left out: the marker ends the answer.
    turns.answered({.reason = p4::stop_reason::stop_token, .prompt_tokens = 5, .new_tokens = 3, .unread = end_of_text});
    CHECK(ask(turns, "c") == ids_type{end, user, 'c', end, assistant});

    // An answer that was cut short.
    turns.answered({.reason = p4::stop_reason::max_tokens, .prompt_tokens = 5, .new_tokens = 3, .unread = 'x'});
    CHECK(ask(turns, "d") == ids_type{'x', end, user, 'd', end, assistant});

    turns.reset();
    CHECK(ask(turns, "a") == first);
}

TEST_CASE("generate/conversation: no later turn reads a message whose reading was cancelled") {
    const p4::tokenizer text = byte_tokenizer();
    const ids_type prompt = {system_marker, 'S', end, user, 'a', 'b', end, assistant};
    const auto cancelled_after = [&](std::size_t read) {
        p4::conversation turns(text, "S");
        REQUIRE(ask(turns, "ab") == prompt);
        turns.answered({.reason = p4::stop_reason::cancelled, .prompt_tokens = read, .new_tokens = 0, .unread = -1});
        return ask(turns, "c");
    };
    const ids_type next = {user, 'c', end, assistant};
    const auto after = [&](ids_type first) {
        first.insert(first.end(), next.begin(), next.end());
        return first;
    };
    CHECK(cancelled_after(0) == after({system_marker, 'S', end}));  // what was not cancelled is still to be read
    CHECK(cancelled_after(2) == after({end}));
    CHECK(cancelled_after(3) == next);                              // nothing of the message was read
    CHECK(cancelled_after(4) == after({end}));                      // a part of it was: it is closed
    CHECK(cancelled_after(6) == after({end}));
    CHECK(cancelled_after(7) == next);                              // all of it was, and no answer begun
    CHECK(cancelled_after(8) == after({end}));                      // the answer was begun, and is empty

    // What an earlier turn left is no part of the message either. Two in a row.
    p4::conversation turns(text);
    CHECK(ask(turns, "a") == ids_type{user, 'a', end, assistant});
    turns.answered({.reason = p4::stop_reason::max_tokens, .prompt_tokens = 4, .new_tokens = 3, .unread = 'x'});
    CHECK(ask(turns, "b") == ids_type{'x', end, user, 'b', end, assistant});
    turns.answered({.reason = p4::stop_reason::cancelled, .prompt_tokens = 1, .new_tokens = 0, .unread = -1});
    CHECK(ask(turns, "d") == ids_type{end, user, 'd', end, assistant});
    turns.answered({.reason = p4::stop_reason::cancelled, .prompt_tokens = 2, .new_tokens = 0, .unread = -1});
    CHECK(ask(turns, "c") == after({end}));
}

TEST_CASE("generate/conversation: a stop string that is a marker is no part of the answer, one that is text is") {
    const p4::tokenizer text = byte_tokenizer();
    p4::conversation turns(text);
    const std::size_t read = ask(turns, "a").size();
    turns.answered({.reason = p4::stop_reason::stop_string, .prompt_tokens = read, .new_tokens = 3, .unread = user});
    const std::size_t again = ask(turns, "b").size();
    CHECK(ask(turns, "b") == ids_type{end, user, 'b', end, assistant});
    turns.answered({.reason = p4::stop_reason::stop_string, .prompt_tokens = again, .new_tokens = 3, .unread = 'x'});
    CHECK(ask(turns, "c") == ids_type{'x', end, user, 'c', end, assistant});
}

TEST_CASE("generate/options: a chat stops at the template's own end, though the files name <|endoftext|> alone") {
    const p4::tokenizer text = byte_tokenizer();
    p4::generation_config said;
    said.stop_ids = {end_of_text};
    CHECK(p4::options_from(said, &text).stop_ids == ids_type{end_of_text, end});
    said.stop_ids = {end, end_of_text};
    CHECK(p4::options_from(said, &text).stop_ids == ids_type{end, end_of_text});
    p4::generation_options own;
    p4::stop_at_end_of_message(own, text);
    p4::stop_at_end_of_message(own, text);
    CHECK(own.stop_ids == ids_type{end});
}

TEST_CASE("generate/conversation: without a system message, and markers in the text stay text") {
    const p4::tokenizer text = byte_tokenizer();
    p4::conversation turns(text);
    CHECK(ask(turns, "a") == ids_type{user, 'a', end, assistant});
    CHECK(ask(turns, "<|end|>").size() == 3 + 7);
}

TEST_CASE("generate/options: the files, else the model card; stop ids, else the markers'") {
    const p4::tokenizer text = byte_tokenizer();
    const p4::generation_options card = p4::options_from({});
    CHECK(card.sampling.temperature == 0.6f);
    CHECK(card.sampling.top_p == 0.95f);
    CHECK(card.max_tokens == 32768);
    CHECK(card.stop_ids.empty());
    CHECK(p4::options_from({}, &text).stop_ids == ids_type{end, end_of_text});

    p4::generation_config said;
    said.stop_ids = {7, 9};
    said.temperature = 0.3f;
    said.top_p = 0.5f;
    said.min_p = 0.1f;
    said.top_k = 40;
    said.repetition_penalty = 1.5f;
    said.max_new_tokens = 12;
    said.stop_strings = {"STOP"};
    p4::generation_options options = p4::options_from(said, &text);
    CHECK(options.stop_ids == ids_type{7, 9, end});  // an answer is one message, whatever the files call an end
    CHECK(p4::options_from(said).stop_ids == ids_type{7, 9});
    CHECK(options.stop_strings == std::vector<std::string>{"STOP"});
    CHECK(options.sampling.temperature == 0.3f);
    CHECK(options.sampling.top_p == 0.5f);
    CHECK(options.sampling.min_p == 0.1f);
    CHECK(options.sampling.top_k == 40);
    CHECK(options.sampling.repetition_penalty == 1.5f);
    CHECK(options.max_tokens == 12);
    said.do_sample = false;
    CHECK(p4::options_from(said).sampling.temperature == 0.0f);
}
