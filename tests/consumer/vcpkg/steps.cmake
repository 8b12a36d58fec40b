# vcpkg's port, with stand-ins for vcpkg's functions: what find_package of the package gives is what the features said. tools/packages.sh vcpkg
# does the same with vcpkg itself.
make_checkout()
foreach(name highway xsimd json)
    bring(${name} "${work}/dependencies/include")
endforeach()

# make_package(<port folder> <features, with commas>): ${work}/package, and ${work}/installed with the dependencies
macro(make_package port features)
    run("${CMAKE_COMMAND}" "-DPORT_DIR=${port}" "-DFEATURES=${features}" "-DPACKAGE=${work}/package" "-DDEPENDENCIES=${work}/dependencies"
        "-DARCHIVE=${work}/phi4flash.tar.gz" "-DINITIAL=${work}/nothing.cmake" "-DGENERATOR=${GENERATOR}" -P "${here}/vcpkg/functions.cmake")
    expect_warnings(0)
    file(REMOVE_RECURSE "${work}/installed")
    file(COPY "${work}/package/" "${work}/dependencies/" DESTINATION "${work}/installed")
endmacro()
set(configure "${CMAKE_COMMAND}" -C "${work}/nothing.cmake" -G "${GENERATOR}" -S "${here}/find_package" -B "${work}/build"
    "-DCMAKE_PREFIX_PATH=${work}/installed")
macro(gives simd json)
    file(REMOVE_RECURSE "${work}/build")
    run(${configure})
    expect_warnings(0)
    expect("consumer: ${simd}, JSON ${json}")
endmacro()

set(overlay "${work}/checkout/packaging/vcpkg/ports/phi4flash")
make_package("${overlay}" "core")
gives(scalar OFF)
make_package("${overlay}" "core,json")
gives(scalar ON)
if(XSIMD_DIR)
    make_package("${overlay}" "core,xsimd")
    gives(xsimd OFF)
endif()
make_package("${overlay}" "core,${BEST_SIMD},json")
gives(${BEST_SIMD} ON)

# As a registry has it, from the archive of a version.
if(PYTHON)
    execute_process(COMMAND "${CMAKE_COMMAND}" -E tar czf "${work}/phi4flash.tar.gz" checkout WORKING_DIRECTORY "${work}" COMMAND_ERROR_IS_FATAL ANY)
    run("${PYTHON}" "${work}/checkout/packaging/registry_forms.py" --repository someone/phi4flash --archive "${work}/phi4flash.tar.gz"
        --output "${work}/registry")
    file(READ "${work}/registry/ports/phi4flash/vcpkg.json" manifest)
    string(JSON homepage GET "${manifest}" homepage)
    string(JSON supports GET "${manifest}" supports)
    if(NOT homepage STREQUAL "https://github.com/someone/phi4flash" OR supports STREQUAL "")
        message(FATAL_ERROR "vcpkg.json of the registry: ${manifest}")
    endif()
    file(REMOVE_RECURSE "${work}/checkout")
    make_package("${work}/registry/ports/phi4flash" "core,${BEST_SIMD},json")
    run_failing("${PYTHON}" "${SOURCE_DIR}/packaging/registry_forms.py" --repository someone/phi4flash
        --archive "${work}/nothing.cmake" --output "${work}/none")
    expect("registry_forms: ${work}/nothing.cmake")
endif()
gives(${BEST_SIMD} ON)
build_and_run(${BEST_SIMD} 1)
