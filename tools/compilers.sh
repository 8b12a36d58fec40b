#!/usr/bin/env bash
# Compiles the single header with every g++ and clang that Debian offers, in each back end, and lets it answer a question.
#
#   tools/compilers.sh [--ends] [--cross] [--list] [--get] [--mirror URL] [COMPILER...]
#
#   --ends        only the oldest and the newest g++ and clang: what CI does
#   --cross       also 32-bit x86, armhf, aarch64 and mingw-w64, which are only compiled
#   --list        what there is, and nothing more
#   --get         only get them: build/compilers/bin/g++-15 and so on, for your own use
#   --mirror URL  a Debian mirror, where this machine's own package sources name none (Ubuntu)
#   COMPILER...   only these, such as g++-14 clang++-18
#
# Nothing is installed and no root is needed: packages of the machine's own mirror, checked by apt against the Debian archive's keys, are
# unpacked below build/compilers and run through their own loader. Needs tools/setup.sh first (Highway, xsimd, JSON), an x86-64 machine,
# 4 GB of disk (--ends: 2 GB) and, without what is unpacked already, the network.
# The default back end is compiled without optimization, linked and run on models/tiny-arithmetic; the others are parsed (-fsyntax-only),
# which makes every template and so finds what a compiler refuses. Warnings are errors.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=$root/build/compilers
oldest_gxx=11 oldest_clang=14
suites=(bookworm trixie sid) # a compiler comes from the first that has it
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
cross=(i686-linux-gnu arm-linux-gnueabihf aarch64-linux-gnu)
ends=0 want_cross=0 list=0 get=0 mirror='' named=()

while [ $# -gt 0 ]; do
    case $1 in
        --ends) ends=1 ;;
        --cross) want_cross=1 ;;
        --list) list=1 ;;
        --get) get=1 ;;
        --mirror) shift; mirror=${1:?--mirror wants a URL} ;;
        -h | --help) sed -n '2,20s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        g++-* | clang++-*) named+=("$1") ;;
        *) echo "compilers: unknown option '$1' (see --help)" >&2; exit 2 ;;
    esac
    shift
done

say() { echo "compilers: $*"; }
fail() { echo "compilers: $*" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || fail "the compilers are those of Debian for x86-64, this machine is $(uname -m)"
for tool in apt-get apt-cache dpkg-deb; do command -v $tool > /dev/null || fail "needs $tool, so Debian or one of its children"; done
mkdir -p "$home/bin"
exec 9> "$home/lock"
flock -n 9 || { say "another run is under way, waiting for it"; flock 9; }

# ---- packages -------------------------------------------------------------------------------------------------------

# The first mirror in the machine's own package sources that serves Debian's archive.
find_mirror() {
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2> /dev/null || true; } |
        sed -n 's/^\(deb\|[Uu][Rr][Ii][Ss]:\)[[:space:]].*\(https\{0,1\}:[^[:space:]]*\/debian\)\/\{0,1\}\([[:space:]].*\)\{0,1\}$/\2/p' | head -n 1
}

apt_of() { # apt_of SUITE COMMAND...: apt with a world of its own
    local suite=$1 work=$home/$1 command=$2
    shift 2
    "$command" -q -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State=$work/state" \
        -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache" -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o APT::Sandbox::User=root -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
        -o APT::Install-Recommends=false "$@"
}

open_suite() { # the list of a suite's packages, a day old at most
    local suite=$1 work=$home/$1
    [ -n "$(find "$work/fresh" -mmin -1440 2> /dev/null)" ] && return
    [ -f "$keyring" ] || fail "needs $keyring: install the package debian-archive-keyring"
    [ -n "$mirror" ] || mirror=$(find_mirror)
    [ -n "$mirror" ] || fail "this machine's package sources name no Debian mirror: give one with --mirror URL"
    mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/root/usr"
    touch "$work/status"
    echo "deb [signed-by=$keyring] $mirror $suite main" > "$work/sources.list"
    say "reading what $suite offers"
    if apt_of "$suite" apt-get update -o APT::Update::Error-Mode=any > "$work/log" 2>&1; then
        touch "$work/fresh"
    elif [ -z "$(ls "$work/state/lists" | grep Packages)" ]; then
        grep -E '^[EW]:' "$work/log" | head -n 3 | sed 's/^/    /' >&2
        fail "the archive cannot be read: is there a network? (whole log: $work/log)"
    else
        say "the archive cannot be read; going on with what is known of $suite"
    fi
}

unpack() { # unpack SUITE PACKAGE...: with all that they depend on
    local suite=$1 work=$home/$1 deb folder
    shift
    for folder in lib lib64 bin sbin; do # one /usr for all, as on an installed system
        mkdir -p "$work/root/usr/$folder"
        [ -e "$work/root/$folder" ] || ln -s "usr/$folder" "$work/root/$folder"
    done
    if ! apt_of "$suite" apt-get install -y --download-only "$@" > "$work/log" 2>&1; then
        grep -E '^[EW]:' "$work/log" | head -n 3 | sed 's/^/    /' >&2
        fail "$* ($suite) cannot be downloaded: is there a network? (whole log: $work/log)"
    fi
    for deb in "$work"/cache/archives/*.deb; do
        [ -e "$deb" ] || continue
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/root" --keep-directory-symlink --no-same-owner
        { dpkg-deb -f "$deb" && printf 'Status: install ok installed\n\n'; } >> "$work/status" # so that apt knows
        rm "$deb"
    done
}

# ---- compilers that run from where they lie -----------------------------------------------------------------------------

script() { # script FILE LINE...
    local file=$1
    shift
    printf '%s\n' '#!/bin/sh' "$@" > "$file.new"
    chmod +x "$file.new"
    mv "$file.new" "$file"
}

wrap_gxx() { # wrap_gxx SUITE NAME TARGET VERSION BINARY
    local r=$home/$1/root name=$2 target=$3 version=$4 binary=$5 tools=$home/$1/tools/$2 folder tool
    local run="$r/lib64/ld-linux-x86-64.so.2 --library-path $r/usr/lib/x86_64-linux-gnu"
    mkdir -p "$tools"
    for tool in as ld; do
        [ ! -e "$r/usr/bin/$target-$tool" ] || script "$tools/$tool" "exec $run $r/usr/bin/$target-$tool \"\$@\""
    done
    for folder in "$r"/usr/lib*/gcc*/"$target/$version"; do
        for tool in cc1plus collect2; do
            [ ! -e "$folder/$tool" ] || script "$tools/$tool" "exec $run $folder/$tool \"\$@\""
        done
    done
    local link=
    [ "$target" != x86_64-linux-gnu ] || link="-Wl,--dynamic-linker=$r/lib64/ld-linux-x86-64.so.2 -Wl,-rpath,$r/usr/lib/x86_64-linux-gnu"
    script "$home/bin/$name" "exec $run $r/usr/bin/$binary --sysroot=$r -B$tools \"\$@\" $link"
}

wrap_clang() { # wrap_clang SUITE VERSION. clang calls itself, by the name that it was called by
    local r=$home/$1/root version=$2 tools=$home/$1/tools/clang tool resources
    local libraries=$r/usr/lib/llvm-$version/lib:$r/usr/lib/x86_64-linux-gnu
    local loader=$r/lib64/ld-linux-x86-64.so.2
    mkdir -p "$tools"
    for tool in as ld; do script "$tools/$tool" "exec $loader --library-path $libraries $r/usr/bin/x86_64-linux-gnu-$tool \"\$@\""; done
    resources=$(dirname "$(ls -d "$r/usr/lib/llvm-$version/lib/clang"/*/include | head -n 1)")
    local options="--driver-mode=g++ -no-canonical-prefixes -resource-dir $resources --sysroot=$r -B$tools -Wno-unused-command-line-argument"
    script "$home/bin/clang++-$version" \
        "run=\"$loader --argv0 \$0 --library-path $libraries $r/usr/lib/llvm-$version/bin/clang\"" \
        "case \$1 in -cc1*) exec \$run \"\$@\" ;; esac" \
        "exec \$run $options \"\$@\" -Wl,--dynamic-linker=$loader -Wl,-rpath,$r/usr/lib/x86_64-linux-gnu"
}

# ---- what there is ------------------------------------------------------------------------------------------------------

declare -A suite_of
for suite in "${suites[@]}"; do
    open_suite "$suite"
    while read -r package; do
        version=${package##*-}
        case $package in
            g++-*) name=$package oldest=$oldest_gxx ;;
            *) name=clang++-$version oldest=$oldest_clang ;;
        esac
        [ "$version" -lt "$oldest" ] || [ -n "${suite_of[$name]:-}" ] || suite_of[$name]=$suite
    done < <(apt_of "$suite" apt-cache search --names-only '^(g[+][+]|clang)-[0-9]+$' | cut -d ' ' -f 1)
done
mapfile -t all_gxx < <(printf '%s\n' "${!suite_of[@]}" | grep '^g++' | sort -V)
mapfile -t all_clang < <(printf '%s\n' "${!suite_of[@]}" | grep '^clang' | sort -V)
[ "${#all_gxx[@]}" != 0 ] && [ "${#all_clang[@]}" != 0 ] || fail "found no compilers in ${suites[*]}"
chosen=("${all_gxx[@]}" "${all_clang[@]}")
[ "$ends" = 0 ] || chosen=("${all_gxx[0]}" "${all_gxx[-1]}" "${all_clang[0]}" "${all_clang[-1]}")
[ "${#named[@]}" = 0 ] || chosen=("${named[@]}")
for name in "${chosen[@]}"; do
    [ -n "${suite_of[$name]:-}" ] || fail "Debian (${suites[*]}) has no $name; it has ${all_gxx[*]} ${all_clang[*]}"
done
if [ "$list" = 1 ]; then
    for name in "${chosen[@]}"; do echo "$name (${suite_of[$name]})"; done
    exit 0
fi

for suite in "${suites[@]}"; do
    packages=()
    for name in "${chosen[@]}"; do
        [ "${suite_of[$name]}" = "$suite" ] || continue
        [ -x "$home/bin/$name" ] || packages+=("${name/clang++/clang}")
    done
    [ "${#packages[@]}" = 0 ] || { say "getting ${packages[*]} ($suite)"; unpack "$suite" "${packages[@]}"; }
done
for name in "${chosen[@]}"; do
    case $name in
        g++-*) wrap_gxx "${suite_of[$name]}" "$name" x86_64-linux-gnu "${name#g++-}" "x86_64-linux-gnu-$name" ;;
        *) wrap_clang "${suite_of[$name]}" "${name#clang++-}" ;;
    esac
done
crossed=()
if [ "$want_cross" = 1 ]; then
    packages=(g++-mingw-w64-x86-64-posix)
    for target in "${cross[@]}"; do packages+=("g++-14-$target"); done
    [ -x "$home/bin/x86_64-w64-mingw32-g++" ] || { say "getting ${packages[*]} (sid)"; unpack sid "${packages[@]}"; }
    for target in "${cross[@]}"; do
        wrap_gxx sid "$target-g++" "$target" 14 "$target-g++-14"
        crossed+=("$target-g++")
    done
    mingw=$(basename "$(ls -d "$home"/sid/root/usr/lib/gcc/x86_64-w64-mingw32/*-posix | head -n 1)")
    wrap_gxx sid x86_64-w64-mingw32-g++ x86_64-w64-mingw32 "$mingw" x86_64-w64-mingw32-g++-posix
    crossed+=(x86_64-w64-mingw32-g++)
fi
[ "$get" = 0 ] || { say "ready: $(cd "$home/bin" && echo "${chosen[@]}" "${crossed[@]}") in build/compilers/bin"; exit 0; }

# ---- the matrix ---------------------------------------------------------------------------------------------------------

deps=$root/build/deps/usr/include
for header in hwy/highway.h xsimd/xsimd.hpp nlohmann/json.hpp; do
    [ -f "$deps/$header" ] || [ -f "/usr/include/$header" ] || fail "no $header: run tools/setup.sh first"
done
[ -d "$deps" ] || fail "no build/deps: run tools/setup.sh first"
mkdir -p "$home/single" "$home/run"
python3 "$root/tools/amalgamate.py" --output "$home/single/phi4flash/phi4flash.hpp" > /dev/null
flags=(-std=c++20 -Wall -Wextra -Wpedantic -Wshadow -Wundef -Werror -DPHI4FLASH_HAS_JSON=1 -I "$home/single" -isystem "$deps")

parse() { "$home/bin/$1" "${flags[@]}" "-DPHI4FLASH_SIMD_$2=1" -fsyntax-only "$root/examples/minimal.cpp"; }
answer() { # compiles, links, asks
    "$home/bin/$1" "${flags[@]}" "-DPHI4FLASH_SIMD_$2=1" -O0 -pthread "$root/examples/minimal.cpp" -o "$home/run/$1-$2" &&
        "$home/run/$1-$2" "$root/models/tiny-arithmetic" "What is 347 + 285?" > "$home/run/$1-$2.answer" &&
        grep -qF '\boxed{632}' "$home/run/$1-$2.answer"
}
one() { # one ACTION COMPILER BACK_END: a line of the table
    local start=$SECONDS outcome=ok
    "$1" "$2" "$3" > "$home/run/$2-$3.log" 2>&1 || outcome=FAILED
    printf '%-24s %-8s %-7s %-7s %4d s\n' "$2" "$3" "$1" "$outcome" $((SECONDS - start))
    [ "$outcome" = ok ] || { head -n 12 "$home/run/$2-$3.log" | cut -c 1-200 | sed 's/^/    /'; return 1; }
}
export -f parse answer one
export home root deps
jobs=()
for name in "${chosen[@]}"; do jobs+=("answer $name HIGHWAY" "parse $name XSIMD" "parse $name SCALAR"); done
for name in "${crossed[@]}"; do jobs+=("parse $name HIGHWAY" "parse $name SCALAR"); done
say "${#jobs[@]} compilations, half a minute each at most on a quiet core"
# Arrays cannot be exported.
run_all() { printf '%s\n' "${jobs[@]}" | xargs -P "$(nproc)" -L 1 bash -c "flags=($(printf '%q ' "${flags[@]}")); one \"\$@\"" one; }
run_all || fail "some failed; logs are in build/compilers/run"
say "all ${#jobs[@]} are well"
