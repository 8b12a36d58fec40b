#!/usr/bin/env bash
# Proves the packages: each is made from a clean copy of the files under version control; then the copy is deleted, this checkout is hidden,
# and examples/consumer, copied into an empty folder, is built with the package and run. It must print Highway's best target, and answer.
#
#   tools/packages.sh [conan|vcpkg|meson|deb|all]...     all, unless said otherwise: half an hour on two cores
#
#   conan   conan 2 (from PyPI, if it is not on the PATH), a freshly detected profile, the recipe with its test_package
#   vcpkg   the port as overlay and in the registry's form, with the features; needs VCPKG_ROOT, a vcpkg (left out of `all` without)
#   meson   subprojects/phi4flash.wrap over an archive
#   deb     cpack's Debian packages, installed by dpkg, and its .tar.gz, unpacked: find_package, pkg-config, the program and its model
#
# No network but for conan itself: packages of Highway and nlohmann/json, which a user's package manager would download, are stand-ins made
# on the spot from the headers that tools/setup.sh unpacked. Works in PHI4FLASH_PACKAGES_DIR (/tmp/phi4flash_packages), where logs stay.
# Hiding and dpkg need root, as in a container or CI; without, that is said and the checkout stays visible.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/tools/packages/common.sh"

wanted=()
for word in "$@"; do
    case $word in
        conan | vcpkg | meson | deb) wanted+=("$word") ;;
        all) wanted=() ;;
        -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "packages: unknown word '$word' (known: conan, vcpkg, meson, deb, all)" >&2; exit 2 ;;
    esac
done
if [ "${#wanted[@]}" = 0 ]; then
    wanted=(conan meson deb)
    if [ -n "${VCPKG_ROOT:-}" ]; then
        wanted+=(vcpkg)
    else
        echo "packages: vcpkg is left out, as VCPKG_ROOT names none (ctest -R consumer/vcpkg tries the port with stand-ins for vcpkg's functions)"
    fi
fi
prove() { # prove NAME
    local name=$1
    say "$name"
    prepare "$name"
    "$root/tools/setup.sh" --headers > /dev/null
    . "$root/tools/packages/$name.sh"
    rm -rf "$work"
    say "$name: done"
}
for word in "${wanted[@]}"; do prove "$word"; done
