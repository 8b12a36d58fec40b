#!/usr/bin/env bash
# Sessions, scheduler, pool and C API under the thread sanitizer: the tests in which threads meet, compiled for it alone.
#
#   tools/tsan.sh [OPTIONS OF doctest ...]
#
# With CXX, or g++. About five minutes of a slow core; tools/setup.sh must have run before.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tests=(core/core core/thread_pool_memory model/threads model/reentry model/snapshot generate/generate generate/scheduler c_api/threads)
home=build/tsan
mkdir -p "$home"
flags=(-std=c++20 -Iinclude -Itests -isystem build/deps/usr/include -DPHI4FLASH_HAS_JSON=1 -DPHI4FLASH_SIMD_SCALAR=1 -DPHI4FLASH_COMPILE_ONCE=1
    "-DPHI4FLASH_TEST_DATA=\"$PWD/tests/data\"" "-DPHI4FLASH_TEST_MODELS=\"$PWD/models\"" -O1 -g1 -fsanitize=thread)
objects=()
for source in "${tests[@]/%/_test.cpp}" main.cpp ../src/kernels.cpp ../src/library.cpp ../src/c_api.cpp; do
    object=$home/${source//\//-}.o
    objects+=("$object")
    if [ -f "$object" ] && [ -z "$(find include src tests -name '*.[chi]*' -newer "$object" -print -quit)" ]; then continue; fi
    echo "tsan: compiling $source"
    "${CXX:-g++}" "${flags[@]}" -c "tests/$source" -o "$object"
done
"${CXX:-g++}" -fsanitize=thread "${objects[@]}" -o "$home/tests" -pthread
echo "tsan: running"
TSAN_OPTIONS="halt_on_error=1 allocator_may_return_null=1 second_deadlock_stack=1 ${TSAN_OPTIONS:-}" "$home/tests" --no-version "$@"
