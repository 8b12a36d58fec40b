#pragma once
/// Where the bundled model is, for whoever names none.
#include "library.hpp"

#include <string>

namespace cli {

/// models/tiny-arithmetic in the current folder; else, in a folder up to four above the program, so that checkouts, installed trees and
/// packages that were unpacked anywhere have it: models/, or share/phi4flash/models/ (PHI4FLASH_CLI_DATA_FOLDER is its share).
/// Errors: file_not_found, with what was looked at and what to do.
p4::result<std::string> bundled_model();

/// To be called by main, before anything else: what the program was started as.
void remember_program(const char* argv0);

}  // namespace cli
