#!/usr/bin/env bash
# Builds the game and plays it: in a window where there are raylib and a screen; with --check 600 frames without a window, and what must come of them,
# then, where there are raylib and Xvfb, the window and a picture of it.
#   --strict    with --check: fails where a frame takes longer than 16.6 ms, or a thought twice its budget, for a machine that has nothing else to do
# and what c_library.sh reads.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../c_library.sh"
need c++ g++
compile_c_library
links=("$library" "-Wl,-rpath,$(cd "$(dirname "$library")" && pwd)")
build() { c++ -std=c++20 -O2 -Wall -Wextra "-I$root/include" "$here/$1.cpp" -o "$made/$1" "${links[@]}" -pthread "${@:2}"; }
have_raylib() { echo '#include <raylib.h>' | c++ -fsyntax-only -x c++ - 2> /dev/null; }

check=0
strict=()
for option in "$@"; do
    case $option in
        --check) check=1 ;;
        --strict) strict=(--strict) ;;
        *) fail "unknown option $option" ;;
    esac
done
if have_raylib; then build game -lraylib; fi
if [ $check = 0 ] && [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    have_raylib || skip "there is no raylib here (Debian: apt install libraylib-dev)"
    exec "$made/game" "$model" "$made/saved.game"
fi

build headless
"$made/headless" "$model" "$made/saved.game" "${strict[@]}"
if ! have_raylib; then
    echo "without raylib, so without the window" >&2
elif ! command -v xvfb-run > /dev/null; then
    echo "without Xvfb, so without the window" >&2
else
    rm -f "$made/game.png"
    (cd "$made" && xvfb-run -a ./game "$model" saved.game --picture) > "$made/game.txt" 2>&1 || fail "the window: $(cat "$made/game.txt")"
    cat "$made/game.txt"
    grep -q 'boxed{632}' "$made/game.txt" || fail "no answer 632"
    [ "$(wc -c < "$made/game.png")" -gt 4000 ] || fail "no picture, or an empty one: $made/game.png"
    echo "game: a picture in $made/game.png"
fi
