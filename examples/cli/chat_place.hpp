#pragma once
/// The file of a chat, and the right to write it: of two chats at once on one file the second is told so, and neither loses what it has said.
#include "library.hpp"

#include <cstdint>
#include <filesystem>

namespace cli {

/// Held by a lock on the file itself (flock), which ends with the program however that ends, and which a file that replaces it has before it gets
/// the name. A file that is not there yet is made, empty, and taken away again if nothing was saved. Where the system or the file system has no such
/// locks, a file that somebody else has replaced is still noticed before it is replaced in turn.
class chat_place {
public:
    /// Errors: in_use (another chat has the file), file_unwritable.
    static p4::result<chat_place> take(const std::filesystem::path& path);

    chat_place(chat_place&& other) noexcept;
    chat_place& operator=(chat_place&&) = delete;
    ~chat_place();

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    /// Whether that path leads to this file.
    [[nodiscard]] bool is(const std::filesystem::path& path) const;

    /// What is written to replace the file (file_writer) is locked as well; then, once it has the name, it is the file. Errors: in_use (somebody else
    /// has replaced or changed the file meanwhile).
    p4::status prepare(const p4::file_writer& next);
    void replaced();

private:
    struct identity {
        std::uint64_t device = 0, inode = 0, bytes = 0;
        std::int64_t seconds = 0, nanoseconds = 0;  ///< when it was written
        bool there = false;
        friend bool operator==(const identity&, const identity&) = default;
    };
    static identity look_at(const std::filesystem::path& path);

    explicit chat_place(std::filesystem::path path) : path_(std::move(path)) {}

    std::filesystem::path path_;
    identity seen_;
    int lock_ = -1;
    int next_ = -1;        // of what will replace it
    bool made_ = false;    // here, and nothing is in it
};

}  // namespace cli
