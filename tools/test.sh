#!/usr/bin/env bash
# Sets the machine up, builds and runs the tests.
#
#   tools/test.sh          the suite: every back end, the rules of the house, consumers
#   tools/test.sh --all    and the suite again against the single header, and with clang, sanitizers, no exceptions, no RTTI
#
# PHI4FLASH_SHARED, if set, is a folder with bigger test data; tests that want it say so where it is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

presets=(release)
setup=(tools/setup.sh --meson)
case ${1:-} in
    "") ;;
    --all) presets=(single-header clang-asan release) setup=(tools/setup.sh --all) ;;
    *) echo "test: unknown option '$1' (known: --all)" >&2; exit 2 ;;
esac

"${setup[@]}"
. build/deps/environment.sh

failed=()
for preset in "${presets[@]}"; do
    started=$SECONDS
    echo "test: $preset"
    cmake --preset "$preset" > "build/$preset.configure.log" 2>&1 || { cat "build/$preset.configure.log"; failed+=("$preset"); continue; }
    if ! cmake --build --preset "$preset" > "build/$preset.build.log" 2>&1; then
        grep -B 1 -A 12 -E "error|FAILED" "build/$preset.build.log" | head -n 120
        echo "test: $preset does not build; the whole log is in build/$preset.build.log"
        failed+=("$preset")
        continue
    fi
    echo "test: $preset built in $((SECONDS - started)) s"
    ctest --preset "$preset" || failed+=("$preset")
done
if [ "${#failed[@]}" != 0 ]; then
    echo "test: failed: ${failed[*]}" >&2
    exit 1
fi
