#!/usr/bin/env bash
# Sets the machine up, builds the example program and lets the bundled model answer.
#
#   tools/demo.sh                    a sample question
#   tools/demo.sh "What is 3 + 4?"   yours
#   tools/demo.sh --chat             a conversation
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/setup.sh
. build/deps/environment.sh
log=build/release.build.log
echo "demo: building build/release/bin/phi4flash"
if ! { cmake --preset release &&
    cmake --build --preset release --target phi4flash_cli; } > "$log" 2>&1; then
    tail -n 40 "$log"
    echo "demo: the build failed; the whole log is in $log" >&2
    exit 1
fi

model=models/tiny-arithmetic
if [ "${1:-}" = --chat ]; then
    exec build/release/bin/phi4flash chat --model "$model"
fi
question=${1:-What is 347 + 285?}
echo "demo: $question"
printf '%s\n' "$question" | build/release/bin/phi4flash chat --model "$model"
