#pragma once
/// What an output would destroy: files that are there are replaced only where --force says so.
#include "command.hpp"

namespace CLI {
class App;
}  // namespace CLI

namespace cli {

/// Errors: file_unwritable where `path` is a file that is not empty, and not `force`. Logits of ours may be replaced.
p4::status check_output_file(const std::filesystem::path& path, bool force);

/// Errors: file_unwritable where `path` is a file in the folder of the model that is being read, a GGUF file of it excepted.
p4::status check_not_of_model(const std::filesystem::path& path, const std::filesystem::path& model);

/// Errors: file_unwritable where the folder holds weights, or one of `names`, and not `force`.
p4::status check_output_folder(const std::filesystem::path& folder, std::span<const char* const> names, bool force);

/// --force.
void add_force_option(CLI::App& command, bool& force);

/// What a command has made so far: removed again unless `keep` is called, so that half a model is not taken for one. Files that
/// were there before are not touched.
class new_files {
public:
    new_files() = default;
    new_files(const new_files&) = delete;
    new_files& operator=(const new_files&) = delete;
    ~new_files();

    /// Makes the folder and those above it. Errors: file_unwritable.
    p4::status make_folder(const std::filesystem::path& folder);
    /// To be called before a file is written.
    void will_write(const std::filesystem::path& path);
    void keep() { made_.clear(); }

private:
    std::vector<std::filesystem::path> made_;
};

}  // namespace cli
