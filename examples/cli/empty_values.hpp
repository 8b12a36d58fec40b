#pragma once
/// Options that want something and are given an empty text, as by a script whose variable is not set.

namespace CLI {
class App;
}  // namespace CLI

namespace cli {

/// Makes every option of every subcommand that takes a path, a name or a string to look for refuse an empty one: many of them would be as if they
/// were not there. To be called when all options are there.
void refuse_empty_values(CLI::App& app);

}  // namespace cli
