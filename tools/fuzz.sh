#!/usr/bin/env bash
# Searches for inputs that break the library: the entries of fuzz/ with libFuzzer and the address and undefined-behaviour sanitizers.
#
#   tools/fuzz.sh [ENTRY|all] [SECONDS]      one entry, or all one after the other, for 60 seconds of processor time each
#
# Builds with the newest clang (tools/setup.sh --clang gets one), each entry once: a minute or two on a slow core. Inputs that reach something new
# are kept in build/fuzz/corpus/ENTRY, so that the next run begins there; what fails is in build/fuzz/failed/ENTRY-*. Once it is mended, put it
# into fuzz/seeds/ENTRY under a name that says what it was: CTest runs it from then on (ctest -L fuzz).
# An input may take 25 seconds of processor time and, beside what its entry allows (fuzz::memory_limit), 512 MB in one piece. A row of a table
# is printed for each: processor time, inputs, edges reached, inputs kept, what was found.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mapfile -t known < <(sed -n 's/^PHI4FLASH_FUZZ_ENTRY(\(.*\))$/\1/p' fuzz/entries.inc)
wanted=${1:-all} seconds=${2:-60}
entries=("$wanted")
[ "$wanted" != all ] || entries=("${known[@]}")
for entry in "${entries[@]}"; do
    [ -f "fuzz/$entry.cpp" ] && [[ " ${known[*]} " = *" $entry "* ]] || { echo "fuzz: no entry '$entry'; there are: ${known[*]}" >&2; exit 2; }
done
[[ $seconds =~ ^[0-9]+$ ]] || { echo "fuzz: want seconds, have '$seconds'" >&2; exit 2; }

clang=
for version in $(seq 40 -1 16); do
    command -v "clang++-$version" > /dev/null && clang=clang++-$version && break
done
[ -n "$clang" ] || { echo "fuzz: needs clang 16 or newer with its run-time libraries: run tools/setup.sh --clang" >&2; exit 1; }

home=build/fuzz
mkdir -p "$home/objects" "$home/failed"
flags=(-std=c++20 -Iinclude -Itests -isystem build/deps/usr/include -DPHI4FLASH_HAS_JSON=1 -O1 -gline-tables-only -fno-omit-frame-pointer
    -Wno-deprecated-declarations) # of libstdc++ 12 against itself
scalar=(-DPHI4FLASH_SIMD_SCALAR=1 -DPHI4FLASH_COMPILE_ONCE=1)
# Kernels are many vectors inlined into one another, which takes minutes with all checks: what they read and write of others is checked.
light=(-fsanitize=address -mllvm -asan-stack=0)
sanitized=(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)

compile() { # compile OBJECT SOURCE FLAG...: if it or a header is newer
    local object=$home/objects/$1.o source=$2
    shift 2
    if [ "$object" -nt "$source" ] && [ -z "$(find include src fuzz tests/support -name '*.[hi]*' -newer "$object" -print -quit)" ]; then return; fi
    echo "fuzz: compiling $source" >&2
    "$clang" "${flags[@]}" "$@" -c "$source" -o "$object"
}

build() {
    local entry=$1 objects=(memory seconds scalar_kernels scalar_library "$1") extra=() unit
    [ "$entry" != differential ] || extra=(-DPHI4FLASH_FUZZ_HAS_HIGHWAY=1)
    compile memory fuzz/memory.cpp "${scalar[@]}" "${sanitized[@]}"
    compile seconds fuzz/seconds.cpp
    compile scalar_kernels src/kernels.cpp "${scalar[@]}" "${light[@]}"
    compile scalar_library src/library.cpp "${scalar[@]}" "${sanitized[@]}"
    compile "$entry" "fuzz/$entry.cpp" "${scalar[@]}" "${sanitized[@]}" "${extra[@]}"
    if [ "$entry" = c_api ]; then
        compile library src/c_api.cpp "${scalar[@]}" "${sanitized[@]}"
        objects+=(library)
    elif [ "$entry" = differential ]; then # the vector kernels without sanitizers, which make them crawl
        unit=-DPHI4FLASH_FUZZ_UNIT=phi4flash_fuzz
        compile scalar_unit fuzz/differential_unit.cpp "${scalar[@]}" "${sanitized[@]}" "${unit}_scalar"
        compile highway_unit fuzz/differential_unit.cpp -DPHI4FLASH_SIMD_HIGHWAY=1 -DPHI4FLASH_COMPILE_ONCE=1 "${unit}_highway"
        compile highway_kernels src/kernels.cpp -DPHI4FLASH_SIMD_HIGHWAY=1 -DPHI4FLASH_COMPILE_ONCE=1
        compile highway_library src/library.cpp -DPHI4FLASH_SIMD_HIGHWAY=1 -DPHI4FLASH_COMPILE_ONCE=1
        objects+=(scalar_unit highway_unit highway_kernels highway_library)
    fi
    objects=("${objects[@]/#/$home/objects/}")
    "$clang" -fsanitize=fuzzer,address,undefined -Wl,--wrap=LLVMFuzzerTestOneInput "${objects[@]/%/.o}" -o "$home/$entry" -pthread
}

last() { sed -n "s/$1/\\1/p" "$2" | tail -n 1; } # last PATTERN FILE

run() {
    local entry=$1 log=$home/$1.log code=0 largest=8192 spent=0 now
    case $entry in
        gguf) largest=49152 ;;
        tokenizer_json) largest=16384 ;;
        text) largest=600 ;;
        differential) largest=64 ;;
    esac
    mkdir -p "$home/corpus/$entry"
    ASAN_OPTIONS=detect_leaks=1 "$home/$entry" -max_len=$largest -timeout=3600 -rss_limit_mb=2048 -malloc_limit_mb=512 -print_final_stats=1 \
        -artifact_prefix="$home/failed/$entry-" "$home/corpus/$entry" "fuzz/seeds/$entry" > "$log" 2>&1 &
    while sleep 1 && now=$(ps -o cputimes= -p $!); do
        spent=$((now))
        [ "$spent" -lt "$seconds" ] || kill -TERM $! # it tells its figures
    done
    wait $! || code=$?
    [ $code != 72 ] || code=0 # libFuzzer's, of a run that was ended
    local found=none
    [ $code = 0 ] || found="FAILED, see $log"
    printf '| `%s` | %s s | %s | %s | %s | %s |\n' "$entry" "$spent" "$(last '^stat::number_of_executed_units: *\(.*\)' "$log")" \
        "$(last '.* cov: \([0-9]*\) .*' "$log")" "$(last '.* corp: \([0-9]*\)\/.*' "$log")" "$found"
    return $code
}

failed=0
for entry in "${entries[@]}"; do
    build "$entry"
    run "$entry" || failed=1
done
exit $failed
