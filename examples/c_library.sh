# Sourced by the scripts of the examples that stand on the C API: what common.sh has, and
#   library    libphi4flash-c.so: PHI4FLASH_C_LIBRARY, or compiled here (some minutes, once) by a C++20 compiler and nothing else
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
library=${PHI4FLASH_C_LIBRARY:-$made/libphi4flash-c.so}

compile_c_library() {
    [ -z "${PHI4FLASH_C_LIBRARY:-}" ] || return 0
    ! is_fresh "$library" "$root/include" "$root/src" || return 0
    find_headers
    echo "compiling the C library ..." >&2
    c++ -std=c++20 -O2 -DNDEBUG -fPIC -shared -fvisibility=hidden -pthread "-Wl,--version-script=$root/src/c_api/exports.map" "-I$root/include" \
        -isystem "$headers" -DPHI4FLASH_HAS_JSON=1 "$root/src/c_api.cpp" -Wl,-soname,libphi4flash-c.so.0 -o "$library.new"
    mv "$library.new" "$library"
    ln -sf "$(basename "$library")" "$library.0"
}
