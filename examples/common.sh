# Sourced by the scripts of the examples.
#   root       this checkout
#   bundled    the bundled model
#   model      the model to ask: PHI4FLASH_MODEL, or the bundled one
#   made       a folder for what is made: PHI4FLASH_EXAMPLES_BUILD, or build/examples
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bundled=$root/models/tiny-arithmetic
model=${PHI4FLASH_MODEL:-$bundled}
made=${PHI4FLASH_EXAMPLES_BUILD:-$root/build/examples}
mkdir -p "$made"
. "$root/tools/headers.sh"

# skip SENTENCE: the host is not here. CTest and meson know the code.
skip() {
    echo "skipped: $*" >&2
    exit 77
}
fail() {
    echo "failed: $*" >&2
    exit 1
}
# need PROGRAM PACKAGE...
need() { command -v "$1" > /dev/null 2>&1 || skip "there is no $1 here (Debian: apt install ${*:2})"; }

# find_headers: the folder $headers holds Highway and JSON alone, so that a compiler for another system may look there, too. They are links to those
# of the system, or to what tools/setup.sh unpacks where these are absent or too old.
find_headers() {
    local seen folder folders=()
    need c++ g++
    seen=$(see_headers) || { "$root/tools/setup.sh" --headers >&2 && seen=$(see_headers); } ||
        fail "no Highway 1.2 and JSON 3.11 to compile with (where they are new enough: apt install libhwy-dev nlohmann-json3-dev)"
    headers=$made/headers
    for folder in hwy nlohmann; do
        folders+=("$(sed -n "s,^# 1 \"\(.*/$folder\)/[^/]*\" 1.*,\1,p" <<< "$seen" | head -n 1)")
    done
    link_headers "$headers" "${folders[@]}"
}
# What the preprocessor says of them, with the paths of files.
see_headers() {
    c++ -std=c++20 -E -isystem "$root/build/deps/usr/include" -x c++ - 2> /dev/null << 'end'
#include <hwy/base.h>
#include <nlohmann/json.hpp>
#if !defined(HWY_VERSION_GE) || (NLOHMANN_JSON_VERSION_MAJOR == 3 && NLOHMANN_JSON_VERSION_MINOR < 11)
#error too old
#endif
end
}

# is_fresh FILE SOURCE...: it was made since its sources were changed.
is_fresh() { [ -e "$1" ] && [ -z "$(find "${@:2}" -newer "$1" -type f | head -n 1)" ]; }
