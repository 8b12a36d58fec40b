#!/usr/bin/env bash
# Builds the extension against the interface that this Godot has, and runs the scene without a window.
#   PHI4FLASH_GODOT     Godot 4.5 or newer (godot)
# and what c_library.sh reads. Exit code 77: no Godot here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../c_library.sh"
godot=${PHI4FLASH_GODOT:-godot}
need "$godot" "godot, or https://godotengine.org"
compile_c_library

project=$made/godot
rm -rf "$project"
mkdir -p "$project/.godot"
cp "$here"/*.godot "$here"/*.tscn "$here"/*.gd "$here"/*.gdextension "$project"
echo 'res://phi4flash.gdextension' > "$project/.godot/extension_list.cfg" # the editor writes it when it sees a project for the first time
(cd "$project" && "$godot" --headless --dump-gdextension-interface > interface.txt 2>&1) || fail "$(cat "$project/interface.txt")"
cc -std=c11 -O2 -Wall -Wextra -D_DEFAULT_SOURCE -fPIC -shared "-I$root/include" "-I$project" "$here/phi4flash_godot.c" \
    -o "$project/libphi4flash_godot.so" "$library" "-Wl,-rpath,$(cd "$(dirname "$library")" && pwd)"

code=0
PHI4FLASH_MODEL=$model timeout 120 "$godot" --headless --path "$project" > "$made/godot.txt" 2>&1 || code=$?
cat "$made/godot.txt"
[ "$code" = 0 ] || fail "godot ended with $code"
grep -q '^godot: all well' "$made/godot.txt" || fail "the scene did not come to its end"
! grep -E 'ERROR|leaked' "$made/godot.txt" || fail "Godot complains"
