/// The file: eight bytes that say what it is, a version, the length and the XXH64 of the text that follows, the text (JSON: what was said, as
/// text and as ids), in version 2 the states before the last question (saved_states.hpp), and a snapshot of the session; both have checksums of
/// their own. A chat without such states is of version 1, which every phi4flash reads.
#include "chat_file.hpp"

#include "json_lines.hpp"

namespace cli {
namespace {

constexpr std::uint32_t newest_version = 2;

struct chat_header {
    char magic[8] = {'p', '4', 'c', 'h', 'a', 't', '\r', '\n'};
    std::uint32_t version = 1;  ///< 2: with states
    std::uint32_t unused = 0;
    std::uint64_t text_bytes = 0;
    std::uint64_t checksum = 0;  ///< of the text
};
static_assert(sizeof(chat_header) == 32);

bool begins_like_a_chat(std::span<const std::byte> bytes) {
    const chat_header usual;
    return bytes.size() >= sizeof usual.magic && std::memcmp(bytes.data(), usual.magic, sizeof usual.magic) == 0;
}

p4::error no_chat() {
    return p4::error::format(p4::errc::bad_magic, "this is no saved chat: want another file for it");
}

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
    p4::xxh64 sum;
    sum.update(bytes);
    return sum.value();
}

std::string text_of_record(const p4::conversation_record& record) {
    json turns = json::array();
    for (const auto& t : record.turns) turns.push_back({{"question", t.question}, {"begin", t.begin}, {"unread", t.unread}});
    return to_line({{"system", record.system}, {"tokens", record.tokens}, {"unread", record.unread}, {"turns", turns}});
}

p4::result<p4::conversation_record> record_of_text(std::string_view text) {
    try {  // nlohmann's own
        const json said = json::parse(text);
        p4::conversation_record record;
        said.at("system").get_to(record.system);
        said.at("tokens").get_to(record.tokens);
        said.at("unread").get_to(record.unread);
        for (const json& t : said.at("turns")) record.turns.push_back({t.at("question"), t.at("begin"), t.at("unread")});
        return record;
    } catch (const json::exception& wrong) {
        return p4::error::format(p4::errc::bad_value, "the saved chat's text cannot be read: %s", wrong.what());
    }
}

/// What is in a file: the text, perhaps the states before the last question, and the snapshot.
struct chat_parts {
    p4::conversation_record said;
    std::span<const std::byte> states;
    std::span<const std::byte> snapshot;
};

p4::result<chat_parts> parts_of(std::span<const std::byte> bytes) {
    chat_header header;
    if (!begins_like_a_chat(bytes)) return no_chat();
    const auto cut = [&](std::uint64_t want) {
        return p4::error::format(p4::errc::file_incomplete, "the saved chat is cut off: want %llu bytes and more, have %zu",
                                 static_cast<unsigned long long>(want), bytes.size());
    };
    if (bytes.size() < sizeof header) return cut(sizeof header);
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.version > newest_version)
        return p4::error::format(p4::errc::unsupported_version, "the saved chat is of version %u: want at most %u, a newer phi4flash wrote it",
                                 static_cast<unsigned>(header.version), static_cast<unsigned>(newest_version));
    bytes = bytes.subspan(sizeof header);
    if (bytes.size() < header.text_bytes) return cut(header.text_bytes);
    const auto text = bytes.first(static_cast<std::size_t>(header.text_bytes));
    if (checksum_of(text) != header.checksum || header.version == 0 || header.unused != 0)
        return p4::error::format(p4::errc::wrong_checksum, "the saved chat was altered since it was written: its checksum does not fit");
    auto said = record_of_text({reinterpret_cast<const char*>(text.data()), text.size()});
    if (!said) return said.error();
    bytes = bytes.subspan(text.size());
    std::size_t states = 0;
    if (header.version == 2) {
        const auto info = p4::inspect_states(bytes);
        if (!info) return info.error();
        if (bytes.size() < info->bytes) return cut(info->bytes);
        states = info->bytes;
    }
    return chat_parts{std::move(*said), bytes.first(states), bytes.subspan(states)};
}

bool is_new(const std::filesystem::path& path) {
    std::error_code ignored;
    return !std::filesystem::exists(path, ignored) ||
           (std::filesystem::is_regular_file(path, ignored) && std::filesystem::file_size(path, ignored) == 0);
}

}  // namespace

p4::status check_chat_file(const std::filesystem::path& path) {
    const p4::printable name(path);
    const auto in_place = p4::is_written_in_place(path);
    if (!in_place) return in_place.error();
    if (*in_place)
        return p4::error::format(p4::errc::file_unwritable, "%s: cannot be written: want a file, have a device or a pipe", name.c_str());
    if (const auto trial = p4::file_writer::create(path); !trial) return trial.error();  // and dropped again
    if (is_new(path)) return {};
    const auto file = p4::mapped_file::open(path);
    if (!file) return file.error();
    return begins_like_a_chat(file->bytes()) ? p4::status() : p4::status(no_chat().in(name.c_str()));
}

p4::result<bool> load_chat(const std::filesystem::path& path, conversation& chat) {
    if (is_new(path)) return false;
    const auto file = p4::mapped_file::open(path, {.populate = true});
    if (!file) return file.error();
    const p4::printable name(path);
    auto parts = parts_of(file->bytes());
    if (!parts) return parts.error().in(name.c_str());
    const auto info = p4::inspect_snapshot(parts->snapshot);
    if (!info) return info.error().in(name.c_str());
    if (info->position > parts->said.tokens.size())
        return p4::error::format(p4::errc::bad_value, "the saved session has read %zu tokens of a text of %zu", info->position,
                                 parts->said.tokens.size())
            .in(name.c_str());
    if (const p4::status ok = chat.restore(std::move(parts->said), parts->snapshot, parts->states); !ok) return ok.error().in(name.c_str());
    return true;
}

p4::status save_chat(chat_place& place, engine& runs, const conversation& chat) {
    if (const p4::status ok = check_chat_file(place.path()); !ok) return ok;
    auto file = p4::file_writer::create(place.path());
    if (!file) return file.error();
    if (const p4::status ok = place.prepare(*file); !ok) return ok;
    const std::string text = text_of_record(chat.said());
    const std::span<const std::int32_t> before = chat.before_last_question();
    const bool states = runs.has_states(before);
    chat_header header;
    header.version = states ? 2 : 1;
    header.text_bytes = text.size();
    header.checksum = checksum_of(std::as_bytes(std::span(text)));
    if (const p4::status ok = file->write(std::as_bytes(std::span(&header, 1))); !ok) return ok;
    if (const p4::status ok = file->write(text); !ok) return ok;
    const auto put = [&](std::span<const std::byte> piece) { return file->write(piece); };
    if (states)
        if (const p4::status ok = runs.write_states(before, put); !ok) return ok;
    if (const p4::status ok = runs.write_snapshot(put); !ok) return ok;
    if (const p4::status ok = file->commit(); !ok) return ok;
    place.replaced();
    return {};
}

}  // namespace cli
