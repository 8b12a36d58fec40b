#!/usr/bin/env bash
# Runs the game: in a window where there is a screen, else, and with --check, under Xvfb, where it answers, is interrupted, and takes a screenshot.
#   PHI4FLASH_LOVE     LÖVE (love)
# and what c_library.sh reads. Exit code 77: no LÖVE, or nothing to draw on.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../c_library.sh"
love=${PHI4FLASH_LOVE:-love}
need "$love" love
compile_c_library

lines=$(grep -c . "$here/phi4flash.lua")
[ "$lines" -le 60 ] || fail "phi4flash.lua has $lines lines that are not empty, want at most 60"
export PHI4FLASH_C_LIBRARY=$library PHI4FLASH_HEADER=$root/include/phi4flash/phi4flash.h PHI4FLASH_MODEL=$model
if [ "${1:-}" != --check ] && [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then exec "$love" "$here"; fi

need xvfb-run "xvfb xauth"
export PHI4FLASH_CHECK=1 XDG_DATA_HOME=$made/love
rm -rf "$XDG_DATA_HOME"
mkdir -p "$XDG_DATA_HOME"
code=0
timeout 300 xvfb-run -a "$love" "$here" > "$made/love.txt" 2>&1 || code=$?
cat "$made/love.txt"
[ "$code" = 0 ] || fail "love ended with $code"
grep -q '^.boxed{632}' "$made/love.txt" || fail "no answer 632"
grep -q '^interrupted: ' "$made/love.txt" || fail "no interrupt"
picture=$XDG_DATA_HOME/love/phi4flash/answer.png
[ "$(wc -c < "$picture")" -gt 4000 ] || fail "no picture, or an empty one: $picture"
echo "love: all well"
