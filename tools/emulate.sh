#!/usr/bin/env bash
# Runs the tests of kernels and layers for aarch64 (NEON) on a machine of another kind: cross-compiled, under qemu. About two minutes.
#
#   tools/emulate.sh [OPTIONS OF doctest ...]
set -euo pipefail
case ${1:-} in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/tools/setup.sh" --aarch64

cd "$root"
folder=build/emulate
mkdir -p $folder
rm -f $folder/*.o
compile() {
    echo "emulate: compiling $1"
    aarch64-linux-gnu-g++ -std=c++20 -O2 -Wall -Wextra -DPHI4FLASH_SIMD_HIGHWAY=1 -DPHI4FLASH_COMPILE_ONCE=1 -Iinclude -Itests \
        -isystem build/deps/usr/include -c "$1" -o "$folder/$(echo "$1" | tr / -).o"
}
export -f compile
export folder
printf '%s\n' tests/kernels/*_test.cpp tests/layers/*_test.cpp src/kernels.cpp src/library.cpp tests/main.cpp |
    xargs -P "$(nproc)" -I{} bash -c 'compile {}'
aarch64-linux-gnu-g++ -static $folder/*.o -o $folder/tests -pthread
echo "emulate: running"
qemu-aarch64-static $folder/tests "$@"
