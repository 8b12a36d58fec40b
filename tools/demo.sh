#!/usr/bin/env bash
# Sets the machine up, builds the example program and lets the bundled model answer.
#
#   tools/demo.sh                    a sample question
#   tools/demo.sh "What is 3 + 4?"   yours
#   tools/demo.sh --chat             a conversation
set -euo pipefail
case ${1:-} in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --chat | "") ;;
    -*) echo "demo: unknown option '$1' (known: --chat, --help)" >&2; exit 2 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

program=build/release/bin/phi4flash
[ -x $program ] || echo "demo: the first time this installs what the machine lacks and builds the program: two minutes on two cores"
tools/setup.sh
tools/build.sh release phi4flash_cli

model=models/tiny-arithmetic
if [ "${1:-}" = --chat ]; then
    exec $program chat --model "$model"
fi
question=${1:-What is 347 + 285?}
echo "demo: $question"
printf '%s\n' "$question" | $program chat --model "$model"
