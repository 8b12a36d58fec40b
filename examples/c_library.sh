# Sourced by the scripts of the examples that stand on the C API.
#   root       this checkout
#   model      the model to ask: PHI4FLASH_MODEL, or the bundled one
#   library    libphi4flash-c.so: PHI4FLASH_C_LIBRARY, or compiled here (some minutes, once) by a C++20 compiler and nothing else
#   made       a folder for what is made, PHI4FLASH_EXAMPLES_BUILD or build/examples
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
model=${PHI4FLASH_MODEL:-$root/models/tiny-arithmetic}
made=${PHI4FLASH_EXAMPLES_BUILD:-$root/build/examples}
library=${PHI4FLASH_C_LIBRARY:-$made/libphi4flash-c.so}
mkdir -p "$made"

# skip SENTENCE: the host is not here. CTest and meson know the code.
skip() {
    echo "skipped: $*" >&2
    exit 77
}
fail() {
    echo "failed: $*" >&2
    exit 1
}
# need PROGRAM PACKAGE
need() { command -v "$1" > /dev/null 2>&1 || skip "there is no $1 here (Debian: apt install $2)"; }

# Highway and JSON: those of the system, or what tools/setup.sh unpacks.
find_headers() {
    [ -d "$root/build/deps/usr/include/hwy" ] && return
    printf '#include <hwy/highway.h>\n#include <nlohmann/json.hpp>\n' | c++ -std=c++20 -fsyntax-only -x c++ - 2> /dev/null && return
    "$root/tools/setup.sh" --headers || fail "no Highway and JSON to compile with (where they are new enough: apt install libhwy-dev nlohmann-json3-dev)"
}

compile_c_library() {
    [ -n "${PHI4FLASH_C_LIBRARY:-}" ] && return
    [ -e "$library" ] && [ -z "$(find "$root/include" "$root/src" -newer "$library" -type f | head -n 1)" ] && return
    need c++ g++
    find_headers
    echo "compiling the C library ..." >&2
    c++ -std=c++20 -O2 -DNDEBUG -fPIC -shared -fvisibility=hidden -pthread "-Wl,--version-script=$root/src/c_api/exports.map" "-I$root/include" \
        -isystem "$root/build/deps/usr/include" -DPHI4FLASH_HAS_JSON=1 "$root/src/c_api.cpp" -Wl,-soname,libphi4flash-c.so.0 -o "$library.new"
    mv "$library.new" "$library"
    ln -sf "$(basename "$library")" "$library.0"
}
