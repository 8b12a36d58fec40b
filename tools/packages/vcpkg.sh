# vcpkg: the overlay port of the checkout with its features, the registry's form, and consumers by vcpkg.json and the preset vcpkg.

[ -x "${VCPKG_ROOT:-}/vcpkg" ] || fail "vcpkg needs VCPKG_ROOT: a folder with vcpkg's scripts and the program vcpkg"
export VCPKG_ROOT VCPKG_DISABLE_METRICS=1 VCPKG_FORCE_SYSTEM_BINARIES=1
export VCPKG_DEFAULT_BINARY_CACHE=$work/cache VCPKG_DOWNLOADS=$work/downloads
mkdir -p "$VCPKG_DEFAULT_BINARY_CACHE" "$VCPKG_DOWNLOADS"

stand_in() { # stand_in NAME VERSION FOLDER: a port with these headers
    local port=$work/stand_ins/$1
    mkdir -p "$port"
    printf '{ "name": "%s", "version": "%s" }\n' "$1" "$2" > "$port/vcpkg.json"
    cat > "$port/portfile.cmake" << CMAKE
set(VCPKG_BUILD_TYPE release)
file(COPY "$(headers_of "$3")/$3" DESTINATION "\${CURRENT_PACKAGES_DIR}/include")
file(WRITE "\${CURRENT_PACKAGES_DIR}/share/$1/copyright" "a stand-in\n")
CMAKE
}
stand_in highway "$(highway_version)" hwy
stand_in nlohmann-json "$(json_version)" nlohmann
stand_in xsimd 13.0.0 xsimd
stand_in cli11 2.4.1 CLI
stand_in barkeep 0.1.6 barkeep

# install_port PORTS FEATURES [OPTION...]: into an empty tree; vcpkg's own review of the package must have no complaint.
install_port() {
    local ports=$1 features=$2
    shift 2
    rm -rf "$work/installed"
    run "$VCPKG_ROOT/vcpkg" install --classic "phi4flash[$features]" "--overlay-ports=$ports" "--overlay-ports=$work/stand_ins" \
        "--x-install-root=$work/installed" "$@"
    [[ $output != *"warning:"* ]] || { printf '%s\n' "$output" | grep -A 8 "warning:" >&2; fail "vcpkg complains of phi4flash[$features]"; }
    installed=$(dirname "$(find "$work/installed" -path "*/share/phi4flash/phi4flash-config.cmake")")
}
# gives FEATURES BACK_END JSON: what find_package of that package gives, as CMake reads it.
gives() {
    install_port "$overlay" "$1"
    mkdir -p "$work/ask"
    cat > "$work/ask/CMakeLists.txt" << CMAKE
cmake_minimum_required(VERSION 3.20)
project(ask CXX)
find_package(phi4flash CONFIG REQUIRED)
get_target_property(simd phi4flash::phi4flash PHI4FLASH_SIMD)
get_target_property(json phi4flash::phi4flash PHI4FLASH_WITH_JSON)
message(STATUS "gives \${simd} \${json}")
CMAKE
    rm -rf "$work/ask/build"
    run cmake -S "$work/ask" -B "$work/ask/build" -DCMAKE_BUILD_TYPE=Release "-DCMAKE_PREFIX_PATH=$(dirname "$(dirname "$installed")")"
    expect "gives $2 $3"
    [[ $output != *Warning* ]] || fail "find_package of phi4flash[$1] warns (see $log)"
    say "  phi4flash[$1]: $2, JSON $3"
}

overlay=$work/source/packaging/vcpkg/ports
run "$VCPKG_ROOT/vcpkg" format-manifest "$overlay/phi4flash/vcpkg.json" "$work/source/vcpkg.json" "$work/source/examples/consumer/vcpkg.json"
for manifest in packaging/vcpkg/ports/phi4flash/vcpkg.json vcpkg.json examples/consumer/vcpkg.json; do
    cmp "$work/source/$manifest" "$root/$manifest" || fail "$manifest is not as vcpkg format-manifest writes it"
done
gives core scalar OFF
gives core,json scalar ON
gives core,xsimd xsimd OFF
gives core,highway,xsimd,json highway ON
gives core,highway,tool highway ON
run env -C / "$(dirname "$(dirname "$installed")")/tools/phi4flash/phi4flash" info
expect "$installed/models/tiny-arithmetic"

# As the registry has it: the archive of a tag, here laid where vcpkg would have downloaded it.
tar -C "$work" --transform "s,^source,phi4flash-$version," -czf "$VCPKG_DOWNLOADS/someone-phi4flash-v$version.tar.gz" source
run python3 "$work/source/packaging/registry_forms.py" --repository someone/phi4flash \
    --archive "$VCPKG_DOWNLOADS/someone-phi4flash-v$version.tar.gz" --output "$work/registry"
install_port "$work/registry/ports" core,highway,json --no-binarycaching
say "  the registry's form installs"

new_consumer
export VCPKG_OVERLAY_PORTS=$work/registry/ports:$work/stand_ins
rm -rf "$work/source"
in_app cmake --preset vcpkg
in_app cmake --build --preset vcpkg
check_consumer build/vcpkg/consumer
unset VCPKG_OVERLAY_PORTS
