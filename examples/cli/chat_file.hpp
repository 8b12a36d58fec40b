#pragma once
/// A chat in a file, so that it goes on where it stopped: what was said, and the session's state.
#include "chat_place.hpp"
#include "conversation.hpp"

#include <filesystem>

namespace cli {

/// Whether the chat could be saved there: a new file, an empty one, or a chat that was saved before. Errors: file_unwritable (also what is
/// no file), bad_magic (a file of another kind: it is never replaced).
p4::status check_chat_file(const std::filesystem::path& path);

/// The chat goes on from the file. False where there is none yet, or an empty one. Errors, all naming the file: bad_magic, unsupported_version,
/// file_incomplete, wrong_checksum, and those of restore_snapshot; the chat is as before.
p4::result<bool> load_chat(const std::filesystem::path& path, conversation& chat);

/// Replaces the file by this chat once that is whole; until then, and where it fails, the old one stays. What the session holds is saved, and the
/// states before the last question where the prefix cache has them, so that this question can be taken back after a restart without reading the text
/// again. Errors: file_unwritable, bad_magic; in_use (somebody else has changed the file).
p4::status save_chat(chat_place& place, engine& runs, const conversation& chat);

}  // namespace cli
