#!/usr/bin/env bash
# Compiles two plugins and a host, and lets it ask both: another version of the library, other kernels and flags in each.
# What common.sh reads. Exit code 77: no compiler, or no Highway and JSON, here. (--check changes nothing: it checks in any case.)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../common.sh"
made=$made/plugins
mkdir -p "$made"
need cc gcc
need nm binutils
find_headers
sources=("$here/plugin.cpp" "$here/plugin.h" "$here/run.sh")
links=(-fPIC -shared -pthread -Wl,--no-undefined)

# The single header under a name of its own, of another version, for any processor of its kind; hidden: nothing but get_plugin is seen from outside.
if ! is_fresh "$made/hidden.so" "$root/single_include" "$root/tests/builds/next_version.sed" "${sources[@]}"; then
    echo "compiling the hidden plugin ..." >&2
    sed -E -f "$root/tests/builds/next_version.sed" "$root/single_include/phi4flash/phi4flash.hpp" > "$made/brain.h"
    oldest=()
    case $(uname -m) in x86_64) oldest=(-march=x86-64) ;; esac
    c++ -std=c++20 -O1 -DNDEBUG "${oldest[@]}" -fvisibility=hidden "-Wl,--version-script=$here/exports.map" -fno-exceptions -fno-rtti "${links[@]}" \
        "-I$made" -isystem "$headers" -DPHI4FLASH_SIMD_SCALAR=1 -DPHI4FLASH_HAS_JSON=1 '-DPLUGIN_LIBRARY="brain.h"' \
        "$here/plugin.cpp" -o "$made/hidden.new"
    mv "$made/hidden.new" "$made/hidden.so"
fi

# The headers of this checkout for this very processor; everything is seen from outside. GCC would make some of it unique to the process, which
# keeps a plugin from being unloaded; clang would not, and does not know the flag.
if ! is_fresh "$made/seen.so" "$root/include" "${sources[@]}"; then
    echo "compiling the seen plugin ..." >&2
    not_unique=(-fno-gnu-unique)
    echo | c++ "${not_unique[@]}" -fsyntax-only -x c++ - 2> /dev/null || not_unique=()
    c++ -std=c++20 -O1 -DNDEBUG -march=native "${not_unique[@]}" "${links[@]}" "-I$root/include" -isystem "$headers" -DPHI4FLASH_SIMD_HIGHWAY=1 \
        -DPHI4FLASH_STATIC_DISPATCH=1 -DPHI4FLASH_HAS_JSON=1 '-DPLUGIN_LIBRARY=<phi4flash/phi4flash.hpp>' "$here/plugin.cpp" -o "$made/seen.new"
    mv "$made/seen.new" "$made/seen.so"
fi

# What is seen of each from outside.
seen() { nm -D --defined-only "$made/$1.so" | wc -l; }
[ "$(seen hidden)" = 1 ] || fail "hidden.so: want one name that is seen, have $(seen hidden)"
[ "$(seen seen)" -gt 100 ] || fail "seen.so: want more than 100 names that are seen, have $(seen seen)"
cc -std=c11 -O2 -Wall -Wextra "$here/host.c" -o "$made/host" -pthread -ldl
"$made/host" "$model" "$made/hidden.so" "$made/seen.so"
echo "plugins: all well"
