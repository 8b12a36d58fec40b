#!/usr/bin/env bash
# Compiles tests for other processors and systems, and runs them where they are emulated.
#
#   tools/emulate.sh TARGET|all [--suite[=AREA,...]] [--get] [--installed] [-- OPTION OF doctest ...]
#
#   TARGET        aarch64, aarch64-sve, armhf, riscv64, ppc64le, i386, wasm, mingw, or s390x, which is big-endian and must be refused
#   --suite       the tests of core, text, io, kernels, layers, model and generate (wasm: without io), or of those named alone; without it the
#                 bundled model's greedy texts, which are the same everywhere
#   --get         only installs what the target takes
#   --installed   installs nothing: exit code 77 where compiler or emulator are absent
#
# PHI4FLASH_EMULATE_FLAGS are further flags of the compiler; PHI4FLASH_EMULATE_MACHINE, as cortex-a76 or vlen=128, leaves out the machines of a target
# whose command has no such text; PHI4FLASH_EMULATE_QEMU is a folder with newer emulators (qemu-riscv64 and so on) to run instead of Debian's: that
# of Debian 12 ends suites of riscv64 with an assertion of its own, 11.1 does not.
set -euo pipefail
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
. tools/headers.sh
all=(aarch64 aarch64-sve armhf riscv64 ppc64le i386 wasm mingw s390x)

# What a target takes: Debian's packages, the compiler with its flags, and each machine to run on.
describe() {
    packages=(qemu-user-static) flags=() link=(-static -pthread) machines=() after=: refused= areas=(core text io kernels layers model generate)
    case $1 in
        aarch64)
            packages+=(g++-aarch64-linux-gnu)
            compiler=aarch64-linux-gnu-g++
            machines=("qemu-aarch64-static -cpu cortex-a53" "qemu-aarch64-static -cpu cortex-a76")
            ;;
        aarch64-sve)
            packages+=(g++-aarch64-linux-gnu)
            compiler=aarch64-linux-gnu-g++
            flags=(-march=armv8.2-a+sve)
            machines=("qemu-aarch64-static -cpu max,sve128=on,sve-default-vector-length=16"
                "qemu-aarch64-static -cpu max,sve256=on,sve-default-vector-length=32"
                "qemu-aarch64-static -cpu max,sve512=on,sve-default-vector-length=64")
            ;;
        armhf)
            packages+=(g++-arm-linux-gnueabihf)
            compiler=arm-linux-gnueabihf-g++
            flags=(-march=armv7-a -mfpu=neon-vfpv4 -mfloat-abi=hard -Wno-psabi)
            machines=("qemu-arm-static -cpu max")
            ;;
        riscv64) # g++ knows vectors from its version 14 on
            packages+=(g++-riscv64-linux-gnu clang-19)
            compiler=clang++-19
            flags=(--target=riscv64-linux-gnu -march=rv64gcv -Wno-deprecated-declarations) # those of its library
            machines=("qemu-riscv64-static -cpu rv64,v=true,vext_spec=v1.0,vlen=128,rvv_ta_all_1s=true,rvv_ma_all_1s=true"
                "qemu-riscv64-static -cpu rv64,v=true,vext_spec=v1.0,vlen=256,rvv_ta_all_1s=true,rvv_ma_all_1s=true")
            ;;
        ppc64le)
            packages+=(g++-powerpc64le-linux-gnu)
            compiler=powerpc64le-linux-gnu-g++
            machines=("qemu-ppc64le-static -cpu power9")
            ;;
        i386)
            packages+=(g++-i686-linux-gnu)
            compiler=i686-linux-gnu-g++
            flags=(-msse2 -mfpmath=sse)
            machines=("qemu-i386-static -cpu max")
            if [ "$(uname -m)" = x86_64 ] && [ -e /proc/sys/abi/vsyscall32 ]; then # the kernel runs it
                packages=("${packages[@]:1}") machines=(env)
            fi
            ;;
        wasm)
            packages=(clang-19 lld-19 libclang-rt-19-dev-wasm32 libc++-19-dev-wasm32 libc++abi-19-dev-wasm32 wasi-libc nodejs)
            compiler=clang++-19
            flags=(--target=wasm32-wasi -msimd128 -fno-exceptions -fno-rtti -DPHI4FLASH_FILES=0 -DPHI4FLASH_THREADS=0 -D_WASI_EMULATED_SIGNAL
                -DDOCTEST_CONFIG_NO_EXCEPTIONS_BUT_WITH_ALL_ASSERTS -DDOCTEST_CONFIG_NO_POSIX_SIGNALS -DDOCTEST_CONFIG_NO_MULTITHREADING)
            areas=(core text kernels layers model generate)
            link=(-lwasi-emulated-signal -Wl,--stack-first,-z,stack-size=1048576)
            machines=("node --no-warnings tools/wasi.mjs")
            ;;
        mingw)
            packages=(g++-mingw-w64-x86-64-posix wine64)
            compiler=x86_64-w64-mingw32-g++-posix
            flags=(-Wa,-mbig-obj)
            machines=("env WINEDEBUG=-all WINEPREFIX=$root/build/emulate/wine /usr/lib/wine/wine64")
            after="env WINEPREFIX=$root/build/emulate/wine /usr/lib/wine/wineserver64 -k" # services that would stay
            ;;
        s390x)
            packages=(g++-s390x-linux-gnu)
            compiler=s390x-linux-gnu-g++
            refused="little-endian"
            ;;
        *) echo "emulate: there is no target '$1' (there are ${all[*]})" >&2; exit 2 ;;
    esac
}

case ${1:-} in
    -h | --help) usage; exit 0 ;;
    "") usage >&2; exit 2 ;;
    all) targets=("${all[@]}") ;;
    *) describe "$1"; targets=("$1") ;;
esac
shift
suite=0 named=() install=1 get=0 options=()
while [ $# != 0 ]; do
    case $1 in
        --suite) suite=1 ;;
        --suite=?*) suite=1; IFS=, read -r -a named <<< "${1#*=}" ;;
        --get) get=1 ;;
        --installed) install=0 ;;
        --) options=("${@:2}"); break ;;
        *) echo "emulate: there is no option '$1' (see --help; those of doctest come after --)" >&2; exit 2 ;;
    esac
    shift
done
for area in "${named[@]}"; do
    [ -d "tests/$area" ] || { echo "emulate: there are no tests of '$area'" >&2; exit 2; }
done

missing() { # of the target described
    local package
    for package in "${packages[@]}"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2> /dev/null | grep -qx installed || echo "$package"
    done
}

headers=$root/build/emulate/headers
find_headers() {
    local folder from
    for folder in hwy nlohmann doctest; do
        from=$(headers_of "$folder")
        link_headers "$headers" "$from/$folder"
    done
}

# Files of tests that are compiled together, as the preset `release` has them: most of the time goes into what all include.
unite() { # unite FILE...: prints what to compile instead
    local source unit n=0 area last=
    rm -f "$folder"/unit-*.new
    for source in "$@"; do
        case $source in */packed/pack_test.cpp) echo "$source"; continue ;; esac
        area=${source#tests/} area=${area%%/*}
        [ "$area" = "$last" ] || n=0
        last=$area unit=$folder/unit-$area-$((n / 8)).cpp n=$((n + 1))
        [ -e "$unit.new" ] || echo "$unit"
        echo "#include <${source#tests/}>" >> "$unit.new"
    done
    for unit in "$folder"/unit-*.new; do
        [ ! -e "$unit" ] || if cmp -s "$unit" "${unit%.new}"; then rm "$unit"; else mv "$unit" "${unit%.new}"; fi
    done
}

compile() { # compile SOURCE, unless nothing was changed
    local object=$folder/$(echo "${1%.cpp}" | tr / -).o command
    case $1 in # as CMake has it: tests quickly compiled, but for one that wants products fused with sums
        */packed/pack_test.cpp | src/*) command="$compile -O2" ;;
        *) command="$compile -O1" ;;
    esac
    command+=" ${PHI4FLASH_EMULATE_FLAGS:-} -MMD -MF $object.needs -c $1 -o $object"
    # What it was made of is all there, and older.
    if [ -e "$object" ] && [ "$(cat "$object.command" 2> /dev/null)" = "$command" ] &&
        [ -z "$(find $(sed 's/^[^:]*://; s/\\$//' "$object.needs") -newer "$object" 2>&1 | head -n 1)" ]; then return; fi
    rm -f "$object.command"
    $command || { echo "emulate: $1 does not compile" >&2; return 1; }
    echo "$command" > "$object.command"
}
export -f compile

run_target() {
    local name=$1 level=greedy without=() sources=(src/kernels.cpp src/library.cpp tests/main.cpp) program machine failed=0 ran=0 started=$SECONDS
    describe "$name"
    folder=build/emulate/$name
    mkdir -p "$folder"
    if [ "$suite" = 1 ]; then
        level=suite
        [ "${#named[@]}" = 0 ] || areas=("${named[@]}")
        # qemu heeds no limit of address space, and moves no pages.
        case ${machines[0]:-} in qemu*) without=("--test-case-exclude=*a thread that the system refuses*,*pages that are there already*") ;; esac
        mapfile -t -O 3 sources < <(unite $(find "${areas[@]/#/tests/}" -name '*_test.cpp' | sort))
    else
        sources+=(tests/bundled/greedy_text_test.cpp)
    fi
    compile="$compiler -std=c++20 -Wall -Wextra ${flags[*]} -DPHI4FLASH_SIMD_HIGHWAY=1 -DPHI4FLASH_HAS_JSON=1 -DPHI4FLASH_COMPILE_ONCE=1
        -DPHI4FLASH_TEST_DATA=\"tests/data\" -DPHI4FLASH_TEST_MODELS=\"models\" -Iinclude -Itests -isystem $headers"
    export folder compile
    if [ -n "$refused" ]; then
        if (compile src/library.cpp) > "$folder/log" 2>&1; then
            echo "emulate: $name: compiled, and should have been refused" >&2
            return 1
        fi
        grep -m 1 "phi4flash: .*$refused" "$folder/log" || { head -n 20 "$folder/log"; return 1; }
        echo "emulate: $name: refused, as it should be"
        return
    fi
    printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -I{} bash -c 'compile {}' || return 1
    program=$folder/$level
    [ "$name" != mingw ] || program+=.exe
    $compiler "${flags[@]}" $(for source in "${sources[@]}"; do echo "$folder/$(echo "${source%.cpp}" | tr / -).o"; done) "${link[@]}" \
        -o "$program" || return 1
    echo "emulate: $name: compiled in $((SECONDS - started)) s"
    for machine in "${machines[@]}"; do
        [[ $machine = *"${PHI4FLASH_EMULATE_MACHINE:-}"* ]] || continue
        started=$SECONDS ran=1
        case $machine in qemu-*) [ -z "${PHI4FLASH_EMULATE_QEMU:-}" ] || machine=$PHI4FLASH_EMULATE_QEMU/${machine/-static / } ;; esac
        TIMEFORMAT="emulate: $name: %U s of processor time"
        if time $machine "$program" --no-version "${without[@]}" "${options[@]}"; then
            echo "emulate: $name: well on '$machine' in $((SECONDS - started)) s"
        else
            echo "emulate: $name: FAILED on '$machine' after $((SECONDS - started)) s" >&2
            failed=1
        fi
    done
    $after || true
    [ $ran = 1 ] || { echo "emulate: $name: no machine has '$PHI4FLASH_EMULATE_MACHINE' in its command: nothing was run" >&2; return 1; }
    return $failed
}

wanted=()
for name in "${targets[@]}"; do
    describe "$name"
    mapfile -t -O "${#wanted[@]}" wanted < <(missing)
done
if [ "${#wanted[@]}" != 0 ] && [ $install = 0 ]; then
    echo "emulate: skipped, there is no ${wanted[*]} here" >&2
    exit 77
fi
[ $install = 0 ] || tools/setup.sh "${wanted[@]/#/--package=}"
[ $get = 0 ] || exit 0
find_headers

failed=()
for name in "${targets[@]}"; do run_target "$name" || failed+=("$name"); done
if [ "${#failed[@]}" != 0 ]; then
    echo "emulate: failed: ${failed[*]}" >&2
    exit 1
fi
