#!/usr/bin/env bash
# Sets the machine up, builds and runs the tests: about a quarter of an hour on two cores.
#
#   tools/test.sh          the suite: every back end, the rules of the house, consumers
#   tools/test.sh --all    and the suite again against the single header, and with clang, sanitizers, no exceptions, no RTTI: an hour
#
# PHI4FLASH_SHARED, if set, is a folder with bigger test data; tests that want it say so where it is missing.
set -euo pipefail

presets=(release)
setup=(tools/setup.sh --meson)
case ${1:-} in
    "") ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --all) presets=(single-header clang-asan release) setup=(tools/setup.sh --all) ;;
    *) echo "test: unknown option '$1' (known: --all, --help)" >&2; exit 2 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "test: this installs what the machine lacks, builds everything and runs the tests: a quarter of an hour on two cores"
"${setup[@]}"
[ "${1:-}" != --all ] || tools/emulate.sh aarch64 --get # else its test is skipped
. build/deps/environment.sh

failed=()
for preset in "${presets[@]}"; do
    tools/build.sh "$preset" || { failed+=("$preset"); continue; }
    ctest --preset "$preset" || failed+=("$preset")
done
if [ "${#failed[@]}" != 0 ]; then
    echo "test: failed: ${failed[*]}" >&2
    exit 1
fi
