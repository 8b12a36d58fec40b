/// Text to ids and back, by a tokenizer that the input makes, against the plain twins of tests/support: the split pattern matched by
/// backtracking, merging by looking at all pairs, UTF-8 by its table.
#include "fuzz.hpp"

#include <phi4flash/text/decoder.hpp>
#include <support/plain_text.hpp>

#include <string>
#include <vector>

namespace text_entry {

using namespace phi4flash;
using ids_type = std::vector<std::int32_t>;

/// All bytes, then merges of what there is, as the input says; some make a string that is there already. None: refused.
result<tokenizer> make_tokenizer(fuzz::input& in) {
    tokenizer_builder b;
    const std::uint8_t flags = in.byte();
    b.pattern = static_cast<split_pattern>(flags & 3);
    b.normalization = static_cast<normal_form>((flags >> 2 & 3) % 3);
    b.ignore_merges = (flags & 16) != 0;
    std::vector<std::string> strings;
    for (unsigned i = 0; i < 256; ++i) {
        strings.emplace_back(1, static_cast<char>(i));
        PHI4FLASH_FUZZ_CHECK(b.add_token(i, strings.back()));
    }
    for (std::size_t merges = in.below(24); merges > 0; --merges) {
        // Mostly letters and what was made before.
        const auto part = [&] { const std::size_t n = in.byte(); return n < 128 ? n : strings.size() - 1 - (n - 128) % (strings.size() - 200); };
        const std::string left = strings[part()], right = strings[part()];
        if (left.size() + right.size() > 16) continue;
        if (b.strings().find(left + right) == no_token) {
            strings.push_back(left + right);
            PHI4FLASH_FUZZ_CHECK(b.add_token(strings.size() - 1, strings.back()));
        }
        PHI4FLASH_FUZZ_CHECK(b.add_merge(left, right));
    }
    const std::size_t first_added = strings.size();
    for (std::size_t i = 0, markers = in.below(4); i < markers; ++i) {
        const std::uint8_t how = in.byte();
        const std::string content(in.text(1 + how % 5));
        (void)b.add_added_token(
            {static_cast<std::uint32_t>(first_added + i), content, (how & 8) != 0, (how & 16) != 0, (how & 32) != 0, (how & 64) != 0});
    }
    return b.build();
}

/// Each maximal subpart that is no character becomes U+FFFD.   Source: The Unicode Standard, table 3-7.
std::string plain_utf8(std::string_view bytes) {
    const auto at = [&](std::size_t i) { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u; };
    std::string out;
    for (std::size_t i = 0; i < bytes.size();) {
        const unsigned first = at(i);
        std::size_t more = 0;
        unsigned low = 0x80, high = 0xBF;  // of the second byte
        if (first < 0x80) more = 0;
        else if (first >= 0xC2 && first <= 0xDF) more = 1;
        else if (first >= 0xE0 && first <= 0xEF) more = 2, low = first == 0xE0 ? 0xA0 : low, high = first == 0xED ? 0x9F : high;
        else if (first >= 0xF0 && first <= 0xF4) more = 3, low = first == 0xF0 ? 0x90 : low, high = first == 0xF4 ? 0x8F : high;
        else more = 9;
        std::size_t size = 1;
        while (more < 9 && size <= more && at(i + size) >= low && at(i + size) <= high) ++size, low = 0x80, high = 0xBF;
        if (more < 9 && size == more + 1) out.append(bytes.substr(i, size));
        else out.append("\xEF\xBF\xBD");
        i += size;
    }
    return out;
}

ids_type plain_encode(const tokenizer& t, std::string_view text) {
    ids_type ids;
    for (const std::string& piece : plain_text::naive_split(t.pattern(), text)) {
        const std::uint32_t whole = t.merges().ignore_merges() ? t.merges().strings().find(piece) : no_token;
        if (whole != no_token) {
            ids.push_back(static_cast<std::int32_t>(whole));
            continue;
        }
        for (const std::uint32_t id : plain_text::naive_encode(t.merges(), piece)) ids.push_back(static_cast<std::int32_t>(id));
    }
    return ids;
}

std::string join(const tokenizer& t, const ids_type& ids) {
    std::string all;
    for (const std::int32_t id : ids) all.append(t.bytes_of(id));
    return all;
}

void check_decoding(const tokenizer& t, const ids_type& ids) {
    std::string text, streamed;
    PHI4FLASH_FUZZ_CHECK(t.decode(ids, {}, text));
    PHI4FLASH_FUZZ_CHECK(text == plain_utf8(join(t, ids)));
    stream_decoder stream(t);
    for (const std::int32_t id : ids) {
        streamed.append(stream.push(id));
        PHI4FLASH_FUZZ_CHECK(valid_utf8_prefix(streamed) == streamed.size());
    }
    streamed.append(stream.flush());
    PHI4FLASH_FUZZ_CHECK(streamed == text);
}

}  // namespace text_entry

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi4flash;
    using namespace text_entry;
    if (size > 600) return 0;  // the twins are slow
    const fuzz::memory_limit limit(size, std::size_t{4} << 20, 1024);
    fuzz::input in(data, size);
    const auto t = make_tokenizer(in);
    if (!t) return fuzz::check_refusal(t.error()), 0;
    const std::string_view bytes = in.text(size);
    const std::string clean = plain_utf8(bytes);

    // Text of a user: no markers, so that everything comes back.
    std::string normal;
    PHI4FLASH_FUZZ_CHECK(append_normalized(clean, t->normalization(), normal));
    std::string twice;
    PHI4FLASH_FUZZ_CHECK(append_normalized(normal, t->normalization(), twice));
    PHI4FLASH_FUZZ_CHECK(twice == normal);
    ids_type plain;
    PHI4FLASH_FUZZ_CHECK(t->encode(bytes, {marker_policy::plain_text}, plain));
    PHI4FLASH_FUZZ_CHECK(plain == plain_encode(*t, normal));
    PHI4FLASH_FUZZ_CHECK(join(*t, plain) == normal);
    check_decoding(*t, plain);

    // With markers; twice by one encoder, which remembers words.
    encoder e(*t, 16);
    ids_type first, again;
    PHI4FLASH_FUZZ_CHECK(e.encode(bytes, {}, first));
    PHI4FLASH_FUZZ_CHECK(e.encode(bytes, {}, again));
    PHI4FLASH_FUZZ_CHECK(first == again);
    for (const std::int32_t id : first) PHI4FLASH_FUZZ_CHECK(t->has_string(id));
    check_decoding(*t, first);

    // Any ids at all.
    ids_type any;
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2)
        any.push_back(static_cast<signed char>(bytes[i]) * 64 + static_cast<unsigned char>(bytes[i + 1]));
    check_decoding(*t, any);
    return 0;
}
