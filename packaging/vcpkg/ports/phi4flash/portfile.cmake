# An overlay port of this checkout:
#   vcpkg install phi4flash --overlay-ports=<checkout>/packaging/vcpkg/ports
# For a registry, replace SOURCE_PATH by vcpkg_from_github(OUT_SOURCE_PATH SOURCE_PATH REPO ... REF "v${VERSION}" SHA512 ...).
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)

if("highway" IN_LIST FEATURES)
    set(simd highway)
elseif("xsimd" IN_LIST FEATURES)
    set(simd xsimd)
else()
    set(simd scalar)
endif()
vcpkg_check_features(OUT_FEATURE_OPTIONS options FEATURES
    json PHI4FLASH_WITH_JSON
    tool PHI4FLASH_BUILD_EXAMPLES)

vcpkg_cmake_configure(
    SOURCE_PATH "${SOURCE_PATH}"
    OPTIONS
        -DPHI4FLASH_SIMD=${simd}
        ${options}
        -DPHI4FLASH_BUILD_TESTS=OFF
        -DPHI4FLASH_BUILD_BENCHMARKS=OFF
        -DPHI4FLASH_INSTALL=ON
        -DPHI4FLASH_INSTALL_DEPENDENCIES=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/phi4flash)
vcpkg_fixup_pkgconfig()
if("tool" IN_LIST FEATURES)
    vcpkg_copy_tools(TOOL_NAMES phi4flash AUTO_CLEAN)
endif()

file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug" "${CURRENT_PACKAGES_DIR}/lib" "${CURRENT_PACKAGES_DIR}/share/licenses")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
