#!/usr/bin/env bash
# Compiles the page and shows where it is; with --check it asks in node and in a browser without a window, takes a picture of it, and fails where an
# answer is wrong.
#   PHI4FLASH_WASM_CXX        a clang++ with WASI's library: clang++-19, else the newest there is
#   PHI4FLASH_CHROMIUM        chromium
#   PHI4FLASH_CHROMIUM_ARGS   more options for it
# and PHI4FLASH_EXAMPLES_BUILD. Exit code 77: no compiler for WebAssembly here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../common.sh"
made=$made/page

compiler=${PHI4FLASH_WASM_CXX:-}
for version in "" -19 -18 -17 -16 -15; do
    [ -n "$compiler" ] || ! command -v "clang++$version" > /dev/null || compiler=clang++$version
done
flags=(--target=wasm32-wasi -msimd128 -std=c++20 -O2 -DNDEBUG -fno-exceptions -fno-rtti)
[ -n "$compiler" ] && echo '#include <vector>' | "$compiler" "${flags[@]}" -fsyntax-only -x c++ - 2> /dev/null ||
    skip "no clang++ for WebAssembly here (Debian: apt install clang-19 lld-19 libclang-rt-19-dev-wasm32 libc++-19-dev-wasm32" \
        "libc++abi-19-dev-wasm32 wasi-libc)"

mkdir -p "$made/model"
cp "$here"/*.html "$here"/*.js "$here"/*.mjs "$made"
for file in config.json generation_config.json tokenizer.json model.safetensors; do cp "$bundled/$file" "$made/model"; done
if ! is_fresh "$made/answer.wasm" "$root/include" "$here/answer.cpp"; then
    find_headers
    echo "compiling the module ..." >&2
    "$compiler" "${flags[@]}" "-I$root/include" -isystem "$headers" -DPHI4FLASH_FILES=0 -DPHI4FLASH_THREADS=0 \
        -DPHI4FLASH_HAS_JSON=1 -DPHI4FLASH_SIMD_HIGHWAY=1 -DPHI4FLASH_STATIC_DISPATCH=1 "$here/answer.cpp" \
        -mexec-model=reactor -Wl,--stack-first,-z,stack-size=524288 -s -o "$made/answer.new"
    mv "$made/answer.new" "$made/answer.wasm"
fi
echo "answer.wasm: $(wc -c < "$made/answer.wasm") bytes, $(gzip -9 < "$made/answer.wasm" | wc -c) compressed"

if [ "${1:-}" != --check ]; then
    echo "serve it:  python3 -m http.server --directory '$made' 8000   and open http://localhost:8000"
    exit 0
fi

asked=0
if command -v node > /dev/null; then
    asked=1
    node "$made/node.mjs" "$made" | tee "$made/node.txt"
    grep -q 'boxed{632}' "$made/node.txt" || fail "no answer 632 in node"
else
    echo "without node" >&2
fi

chromium=${PHI4FLASH_CHROMIUM:-chromium}
if command -v "$chromium" > /dev/null && command -v python3 > /dev/null; then
    asked=1
    python3 "$here/browser.py" "$chromium" "$made" ${PHI4FLASH_CHROMIUM_ARGS:-} || fail "the browser"
else
    echo "without chromium" >&2
fi
[ $asked = 1 ] || skip "neither node nor chromium here (Debian: apt install nodejs chromium)"
echo "page: all well"
