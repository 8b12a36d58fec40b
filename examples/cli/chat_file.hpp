#pragma once
/// A chat in a file, so that it goes on where it stopped: what was said, and the session's state.
#include "conversation.hpp"

#include <filesystem>

namespace cli {

/// Whether the chat could be saved there: a new file, an empty one, or a chat that was saved before. Errors: file_unwritable (also what is
/// no file), bad_magic (a file of another kind: it is never replaced).
p4::status check_chat_file(const std::filesystem::path& path);

/// The chat goes on from the file. False where there is none yet, or an empty one. Errors, all naming the file: bad_magic, unsupported_version,
/// file_incomplete, wrong_checksum, and those of restore_snapshot; the chat is as before.
p4::result<bool> load_chat(const std::filesystem::path& path, conversation& chat);

/// Replaces the file by this chat once that is whole; until then, and where it fails, the old one stays. Errors: file_unwritable.
p4::status save_chat(const std::filesystem::path& path, engine& runs, const conversation& chat);

}  // namespace cli
