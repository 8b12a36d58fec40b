#!/usr/bin/env bash
# Compiles the firmware, says what it takes, and runs it in qemu; fails where the answer is wrong or the code is larger than 200 KiB.
#   PHI4FLASH_PROGRAM         the program that packs the model: build/release/bin/phi4flash
# and PHI4FLASH_EXAMPLES_BUILD. Exit code 77: no compiler for Arm, or no qemu, here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../common.sh"
made=$made/firmware
cxx=arm-none-eabi-g++
need $cxx gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib
need qemu-system-arm qemu-system-arm
program=${PHI4FLASH_PROGRAM:-$root/build/release/bin/phi4flash}
[ -x "$program" ] || skip "there is no $program, which packs the model (tools/demo.sh builds it)"

mkdir -p "$made"
cd "$made"
"$program" convert --model "$bundled" --output model.gguf --type q8 --force > /dev/null
machine=(-mcpu=cortex-m7 -mthumb -mfpu=fpv5-d16 -mfloat-abi=hard)
flags=("${machine[@]}" -std=gnu++20 -Os -DNDEBUG -Wall -Wextra -fno-exceptions -fno-rtti -fno-threadsafe-statics -Wno-psabi
    -ffunction-sections -fdata-sections "-I$root/include" -DPHI4FLASH_SIMD_SCALAR=1 -DPHI4FLASH_FILES=0 -DPHI4FLASH_THREADS=0)
# The model has none of these.
for type in HAS_WEIGHTS_F32 HAS_WEIGHTS_F16 HAS_WEIGHTS_Q4 HAS_WEIGHTS_Q4_DENSE HAS_KV_F32 HAS_KV_INT8; do flags+=("-DPHI4FLASH_$type=0"); done
echo "compiling the firmware ..." >&2
$cxx "${flags[@]}" -c "$here/main.cpp" -o main.o
$cxx "${flags[@]}" -c "$here/board.cpp" -o board.o
$cxx "${machine[@]}" -nostartfiles -Wl,--gc-sections -Wl,-Map=firmware.map -T "$here/mps2-an500.ld" main.o board.o -o firmware.elf

section() { arm-none-eabi-size -A firmware.elf | awk -v name="$1" '$1 == name { print $2 }'; }
# Numbers that the compiler laid out are symbols of their own; what is left are instructions and words.
tables=$(arm-none-eabi-nm -S firmware.elf | awk '$3 ~ /^[rRV]$/ { print $2 }' | while read -r hex; do echo $((16#$hex)); done |
    awk -v model="$(section .model)" '$1 < model / 2 { sum += $1 } END { print sum }')
code=$(($(section .code) + $(section .ARM.exidx || echo 0) + $(section .data) - tables))
echo "flash: $((code / 1024)) KiB of code, $((tables / 1024)) KiB of tables, $(($(section .model) / 1024)) KiB of model"
echo "RAM: $((($(section .data) + $(section .bss) + $(section .stack)) / 1024)) KiB, all of it static"

timeout 300 qemu-system-arm -M mps2-an500 -kernel firmware.elf -display none -monitor none -serial file:answer.txt \
    -semihosting-config enable=on,target=native ||
    fail "the firmware ended with $?: $(cat answer.txt)"
cat answer.txt
grep -q 'boxed{632}' answer.txt || fail "no answer 632"
[ $code -le 204800 ] || fail "want at most 200 KiB of code, have $code bytes"
echo "firmware: all well"
