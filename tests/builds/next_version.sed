# Makes of the library's headers, or of the single one, the next version, which has another layout of `error`: for tests/builds and examples/plugins.
s/(define PHI4FLASH_VERSION_PATCH) [0-9]+/\1 999/
s/(define PHI4FLASH_VERSION_STRING "[0-9]+\.[0-9]+\.)[0-9]+/\1999/
s/\[384\]/[512]/
