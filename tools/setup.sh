#!/usr/bin/env bash
# Brings a Debian or Ubuntu machine to where `cmake --preset release && cmake --build --preset release` works.
# Idempotent, and quick when nothing is missing.
#
#   tools/setup.sh [--meson] [--clang] [--all] [--package=NAME ...]
#   tools/setup.sh --headers    the headers of Highway, xsimd and JSON alone, for projects that use the library: installs nothing, needs no root
#
# Tools come from the machine's own package archive. Headers that the archive has too old (Debian 12: Highway, xsimd,
# doctest) are taken from a newer suite of the same mirror and unpacked into build/deps, where CMakeLists.txt and
# meson.build look by themselves; nothing of the newer suite is installed and apt's own configuration is not changed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/build/deps
headers=$deps/usr/include
want_meson=0
want_clang=0
want_packages=()
want_tools=1

for option in "$@"; do
    case $option in
        --meson) want_meson=1 ;;
        --clang) want_clang=1 ;;
        --all) want_meson=1 want_clang=1 ;;
        --package=?*) want_packages+=("${option#*=}") ;; # one more of the archive's
        --headers) want_tools=0 ;;
        -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "setup: unknown option '$option' (known: --meson, --clang, --all, --package=NAME, --headers)" >&2; exit 2 ;;
    esac
done
[ "$want_tools" = 1 ] || want_meson=0 want_clang=0 # --headers installs nothing, whatever else is asked for

say() { echo "setup: $*"; }
warn() { echo "setup: $*" >&2; }
have() { command -v "$1" > /dev/null 2>&1; }
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; } # at_least HAVE WANT

# ---- tools ----------------------------------------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        warn "needs root for '$*'; install sudo, or run that command as root and start again"
        return 1
    fi
}

apt_updated=0
apt_update_once() {
    [ "$apt_updated" = 1 ] && return
    as_root apt-get update -q > /dev/null || warn "apt-get update failed; going on with the package lists that are there"
    apt_updated=1
}

install_packages() {
    [ $# = 0 ] && return
    [ "$want_tools" = 1 ] || return 1 # nor whatever is missing
    if ! have apt-get; then
        warn "this machine has no apt-get; install by hand: $*"
        return 1
    fi
    apt_update_once
    # As apt would ask before it goes on: "0 upgraded, 12 newly installed ...", "After this operation, 45 MB ...".
    say "installing $*: $(LC_ALL=C apt-get install --assume-no --no-install-recommends "$@" 2> /dev/null |
        sed -n 's/.* \([0-9]*\) newly installed.*/\1 packages/p; s/^After this operation, \(.* [kMG]\{0,1\}B\) of additional.*/\1/p' |
        paste -s -d, - | sed 's/,/, /')"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" > /dev/null \
        2> >(grep -v '^debconf: delaying package configuration' >&2)
}

compiler_version() { "$1" -dumpfullversion -dumpversion 2> /dev/null || echo 0; }
newest_installed() { # newest_installed clang++ 16 -> clang++-19
    local name=$1 oldest=$2 version
    for version in $(seq 40 -1 "$oldest"); do
        have "$name-$version" && echo "$name-$version" && return
    done
    return 0
}
newest_offered() { # newest_offered clang 16 -> clang-19: the newest that the machine's archive has
    apt-cache search --names-only "^$1-[0-9]+\$" | awk '{print $1}' | sort -V | awk -F- -v o="$2" '$NF >= o' | tail -n 1
}

missing=()
have cmake || missing+=(cmake)
have ninja || missing+=(ninja-build)
have python3 || missing+=(python3)
have g++ || missing+=(g++)
have dpkg-deb || missing+=(dpkg)
if [ "$want_meson" = 1 ] && ! have meson; then missing+=(meson); fi
if [ "$want_meson" = 1 ] && ! have pkg-config && ! have pkgconf; then missing+=(pkg-config); fi # a consumer test
missing+=("${want_packages[@]}")
[ "$want_tools" = 1 ] || missing=()
install_packages "${missing[@]}"

mkdir -p "$deps"
environment=$deps/environment.sh
: > "$environment.new"
if [ "$want_tools" = 1 ] && ! at_least "$(compiler_version g++)" 12; then
    gxx=$(newest_installed g++ 12)
    if [ -z "$gxx" ]; then
        apt_update_once
        package=$(newest_offered g++ 12)
        [ -n "$package" ] || { warn "needs g++ 12 or newer, this machine has $(compiler_version g++)"; exit 1; }
        install_packages "$package"
        gxx=$package
    fi
    say "the default g++ is older than 12: set CXX=$gxx before you run cmake"
    echo "export CXX=\${CXX:-$gxx}" >> "$environment.new"
fi
if [ "$want_clang" = 1 ]; then
    clangxx=$(newest_installed clang++ 16)
    if [ -z "$clangxx" ] || ! ls "$("$clangxx" -print-resource-dir)"/lib/*/libclang_rt.asan* > /dev/null 2>&1; then
        apt_update_once
        package=$(newest_offered clang 16)
        if [ -n "$package" ]; then
            install_packages "$package" "libclang-rt-${package#clang-}-dev"
        else
            warn "the archive of this machine has no clang 16 or newer; the clang presets will not work"
        fi
    fi
fi
cmp -s "$environment.new" "$environment" && rm "$environment.new" || mv "$environment.new" "$environment"

# ---- headers --------------------------------------------------------------------------------------------------------

version_from() { # version_from FILE MACRO... -> 1.2.0
    local file=$1 macro part version=
    shift
    for macro in "$@"; do
        part=$(sed -n "s/^[[:space:]]*#[[:space:]]*define[[:space:]]\{1,\}$macro[[:space:]]\{1,\}\"\{0,1\}\([0-9.]*\).*/\1/p" "$file" | head -n 1)
        version=$version${version:+.}${part:-0}
    done
    echo "$version"
}

header_ok() { # header_ok FILE WANT MACRO...: is the header in build/deps or the system's include folders, new enough?
    local file=$1 want=$2 folder
    shift 2
    for folder in "$headers" /usr/local/include /usr/include; do
        if [ -f "$folder/$file" ] && at_least "$(version_from "$folder/$file" "$@")" "$want"; then return 0; fi
    done
    return 1
}

highway_ok() { header_ok hwy/base.h 1.2.0 HWY_MAJOR HWY_MINOR HWY_PATCH; }
xsimd_ok() { header_ok xsimd/config/xsimd_config.hpp 13.0.0 XSIMD_VERSION_MAJOR XSIMD_VERSION_MINOR XSIMD_VERSION_PATCH; }
doctest_ok() { header_ok doctest/doctest.h 2.4.11 DOCTEST_VERSION_MAJOR DOCTEST_VERSION_MINOR DOCTEST_VERSION_PATCH; }
json_ok() {
    header_ok nlohmann/detail/abi_macros.hpp 3.11.0 \
        NLOHMANN_JSON_VERSION_MAJOR NLOHMANN_JSON_VERSION_MINOR NLOHMANN_JSON_VERSION_PATCH
}
cli11_ok() { header_ok CLI/Version.hpp 2.3.0 CLI11_VERSION || header_ok CLI/CLI.hpp 2.3.0 CLI11_VERSION; }
barkeep_ok() { header_ok barkeep/barkeep.h 0.1.0 BARKEEP_VERSION; }

needed() { # the Debian packages whose headers are missing or too old
    highway_ok || echo libhwy-dev
    xsimd_ok || echo libxsimd-dev
    json_ok || echo nlohmann-json3-dev
    [ "$want_tools" = 0 ] || doctest_ok || echo doctest-dev
    [ "$want_tools" = 0 ] || cli11_ok || echo libcli11-dev
}

# The mirror that serves this machine's own release, from deb822 files first, then one-line lists.
mirror_of() {
    local codename=$1 file
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        awk -v suite="$codename" '
            function done_stanza() { if (uri != "" && suites ~ ("(^| )" suite "( |$)") && !off) { print uri; found = 1 } uri = suites = ""; off = 0 }
            /^[[:space:]]*$/ { done_stanza(); next }
            tolower($1) == "uris:" { uri = $2 }
            tolower($1) == "suites:" { $1 = ""; suites = $0 }
            tolower($1) == "enabled:" && tolower($2) == "no" { off = 1 }
            END { done_stanza() }' "$file"
    done | head -n 1
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2> /dev/null |
        sed -n "s/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]\{1,\}\)[[:space:]]\{1,\}$codename\/\{0,1\}[[:space:]].*/\2/p" |
        head -n 1
}

unpack_from_suite() { # unpack_from_suite MIRROR SUITE COMPONENTS KEYRING PACKAGE...
    local mirror=$1 suite=$2 components=$3 keyring=$4 work=$deps/apt deb folder
    shift 4
    rm -rf "$work"
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs"
    echo "deb [signed-by=$keyring] $mirror $suite $components" > "$work/sources.list"
    local private=(-q -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false -o APT::Get::List-Cleanup=false)
    if ! apt-get "${private[@]}" update -o APT::Update::Error-Mode=any > "$work/log" 2>&1 ||
        ! (cd "$work/debs" && apt-get "${private[@]}" download "$@") >> "$work/log" 2>&1; then
        sed 's/^/    /' "$work/log" | tail -n 5 >&2
        return 1
    fi
    for deb in "$work"/debs/*.deb; do
        folder=$work/unpacked
        rm -rf "$folder"
        dpkg-deb -x "$deb" "$folder"
        # Headers and licences only: libraries built for another release must never be linked.
        mkdir -p "$deps/usr/include" "$deps/usr/share"
        cp -R "$folder/usr/include/." "$deps/usr/include/"
        (cd "$folder/usr/share" && find . -name copyright -type f | cpio_copy "$deps/usr/share")
    done
    rm -rf "$work"
}
cpio_copy() { # copies the files named on standard input, with their folders
    local file
    while read -r file; do
        mkdir -p "$1/$(dirname "$file")"
        cp "$file" "$1/$file"
    done
}

fetch_headers() {
    local packages suites keyring components codename id mirror suite
    mapfile -t packages < <(needed)
    [ "${#packages[@]}" = 0 ] && return
    id=$(. /etc/os-release && echo "${ID:-unknown}")
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    case $id in
        debian) suites=(trixie) keyring=/usr/share/keyrings/debian-archive-keyring.gpg components=main ;;
        ubuntu) suites=("$codename" resolute questing plucky) keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg components="main universe" ;;
        *) warn "knows Debian and Ubuntu, this is '$id'; install these by hand: ${packages[*]}"; return 1 ;;
    esac
    mirror=$(mirror_of "$codename" | head -n 1)
    [ -n "$mirror" ] || { warn "found no archive for '$codename' in /etc/apt/sources.list.d or /etc/apt/sources.list"; return 1; }
    for suite in "${suites[@]}"; do
        say "unpacking the headers of ${packages[*]} ($suite) into build/deps"
        unpack_from_suite "$mirror" "$suite" "$components" "$keyring" "${packages[@]}" || continue
        mapfile -t packages < <(needed)
        [ "${#packages[@]}" = 0 ] && return
    done
    warn "no new enough version of: ${packages[*]}"
    return 1
}

if ! fetch_headers; then
    [ "$want_tools" = 1 ] || exit 1
    warn "going on without them: the scalar back end needs none, and cmake can fetch the rest with -DPHI4FLASH_FETCH_DEPENDENCIES=ON"
fi

# ---- progress bar of the example program ----------------------------------------------------------------------------

# barkeep is one header. No Debian package has it; its Python source package does. pip wants to prepare the metadata of
# what it downloads by running the package's build; a stand-in for the build back end lets it keep the archive as it is.
fetch_barkeep() {
    local work=$deps/barkeep
    python3 -m pip --version > /dev/null 2>&1 || install_packages python3-pip || return 1
    rm -rf "$work"
    mkdir -p "$work/stand_in"
    cat > "$work/stand_in/mesonpy.py" << 'PYTHON'
import pathlib


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory) / "barkeep-0.1.6.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: barkeep\nVersion: 0.1.6\n")
    return folder.name
PYTHON
    echo "barkeep==0.1.6 --hash=sha256:2d742d1608861a39040ebddf645fcc7c948f8429651e850b31942ac54b9f1eb7" > "$work/requirements.txt"
    PYTHONPATH=$work/stand_in python3 -m pip download -q --disable-pip-version-check --no-deps --no-build-isolation \
        --no-binary barkeep --require-hashes -r "$work/requirements.txt" -d "$work" || return 1
    tar -xzf "$work"/barkeep-0.1.6.tar.gz -C "$work"
    mkdir -p "$headers/barkeep" "$deps/usr/share/doc/barkeep"
    cp "$work/barkeep-0.1.6/barkeep/barkeep.h" "$headers/barkeep/"
    cp "$work/barkeep-0.1.6/LICENSE" "$deps/usr/share/doc/barkeep/copyright"
    rm -rf "$work"
}

if [ "$want_tools" = 0 ]; then
    say "ready"
    exit
fi
if ! barkeep_ok; then
    say "unpacking barkeep into build/deps"
    fetch_barkeep || warn "barkeep could not be had: the example program prints plain percentages instead of a bar"
fi

# ---- line editor of chat --------------------------------------------------------------------------------------------

# libedit is linked, so it is the machine's own, as the compiler is.
if [ ! -f /usr/include/histedit.h ] && [ ! -f /usr/local/include/histedit.h ]; then
    install_packages libedit-dev || warn "libedit could not be had: chat reads plain lines, without editing and history"
fi
say "ready"
