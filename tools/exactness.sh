#!/usr/bin/env bash
# Prints how far logits are from those of an independent implementation in float64: for every back end, every target that this CPU
# runs and every test checkpoint, the worst over all prompts, step by step and in chunks of 1 to 320 tokens.
#
#   tools/exactness.sh
#
# Builds the preset `release` if it is not there yet. PHI4FLASH_SHARED, if set, is a folder with bigger checkpoints.
set -euo pipefail
case ${1:-} in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    "") ;;
    *) echo "exactness: unknown option '$1' (known: --help)" >&2; exit 2 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/setup.sh
tools/build.sh release test_model test_model.scalar test_model.xsimd

# The tests print "<checkpoint> on <target>: worst logit difference <d>", once for each kind of extents. They are asked for by their title:
# a program that prints no such line has lost it, and a table without its rows would not show that.
differences=
for program in build/release/bin/test_model build/release/bin/test_model.*; do
    lines=$("$program" --test-case='logits and greedy text*' --no-version |
        sed -n 's/.*MESSAGE: \(.*\) on \(.*\): worst logit difference \(.*\)/\1 \2 \3/p') ||
        { echo "exactness: $program failed; run it to see where" >&2; exit 1; }
    [ -n "$lines" ] || { echo "exactness: $program printed no logit difference; has its test another title?" >&2; exit 1; }
    differences+=$lines$'\n'
done
printf '%s' "$differences" | awk '
    { if (!(($1, $2) in worst) || $3 > worst[$1, $2]) worst[$1, $2] = $3; models[$1]; targets[$2]; if ($3 > all) all = $3 }
    END {
        printf "%-14s", "target"; for (m in models) printf "  %16s", m; print ""
        for (t in targets) { printf "%-14s", t; for (m in models) printf "  %16.1e", worst[m, t]; print "" }
        printf "worst: %.1e\n", all
    }'
