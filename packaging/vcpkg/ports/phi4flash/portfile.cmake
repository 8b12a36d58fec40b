# This checkout:
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)

if("highway" IN_LIST FEATURES)
    set(simd highway)
elseif("xsimd" IN_LIST FEATURES)
    set(simd xsimd)
else()
    set(simd scalar)
endif()
vcpkg_check_features(OUT_FEATURE_OPTIONS FEATURE_OPTIONS
    FEATURES
        json PHI4FLASH_WITH_JSON
        tool PHI4FLASH_BUILD_EXAMPLES
)

vcpkg_cmake_configure(
    SOURCE_PATH "${SOURCE_PATH}"
    OPTIONS
        ${FEATURE_OPTIONS}
        -DPHI4FLASH_SIMD=${simd}
        -DPHI4FLASH_BUILD_TESTS=OFF
        -DPHI4FLASH_BUILD_BENCHMARKS=OFF
        -DPHI4FLASH_BUILD_C_API=OFF
        -DPHI4FLASH_INSTALL=ON
        -DPHI4FLASH_INSTALL_DEPENDENCIES=OFF
        -DPHI4FLASH_INSTALL_PKGCONFIGDIR=lib/pkgconfig
        -DPHI4FLASH_WITH_LIBEDIT=OFF
    OPTIONS_DEBUG
        -DPHI4FLASH_BUILD_EXAMPLES=OFF
)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/phi4flash)
vcpkg_fixup_pkgconfig()
if("tool" IN_LIST FEATURES)
    vcpkg_copy_tools(TOOL_NAMES phi4flash AUTO_CLEAN)
endif()

file(REMOVE_RECURSE
    "${CURRENT_PACKAGES_DIR}/debug/include"
    "${CURRENT_PACKAGES_DIR}/debug/share"
    "${CURRENT_PACKAGES_DIR}/share/licenses"
    "${CURRENT_PACKAGES_DIR}/share/man"
)
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
