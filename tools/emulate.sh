#!/usr/bin/env bash
# Runs the tests of kernels and layers for aarch64 (NEON) on a machine of another kind: cross-compiled, under qemu. About two minutes.
#
#   tools/emulate.sh [OPTIONS OF doctest ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$root/build/emulate
compiler=aarch64-linux-gnu-g++
emulator=qemu-aarch64-static

"$root/tools/setup.sh"
if ! command -v $compiler > /dev/null || ! command -v $emulator > /dev/null; then
    run=env
    [ "$(id -u)" = 0 ] || run=sudo
    $run apt-get update -q > /dev/null
    $run apt-get install -q -y --no-install-recommends g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static > /dev/null
fi

mkdir -p "$folder"
flags=(-std=c++20 -O2 -Wall -Wextra -DPHI4FLASH_SIMD_HIGHWAY=1 -DPHI4FLASH_COMPILE_ONCE=1 -I"$root/include" -I"$root/tests" -isystem "$root/build/deps/usr/include")
sources=("$root"/tests/kernels/*_test.cpp "$root"/tests/layers/*_test.cpp "$root/tests/kernels_implementation.cpp" "$root/tests/main.cpp")
objects=()
pids=()
for source in "${sources[@]}"; do
    object=$folder/$(basename "$(dirname "$source")")-$(basename "$source" .cpp).o
    objects+=("$object")
    echo "emulate: compiling ${source#"$root"/}"
    $compiler "${flags[@]}" -c "$source" -o "$object" &
    pids+=($!)
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || exit 1; done
done
for pid in "${pids[@]}"; do wait "$pid"; done
$compiler -static "${objects[@]}" -o "$folder/tests" -pthread
echo "emulate: running"
$emulator "$folder/tests" "$@"
