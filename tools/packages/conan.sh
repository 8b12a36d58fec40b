# conan 2: a freshly detected profile, the recipe and its test_package, a consumer by conanfile.txt and the preset conan.

if conan --version 2> /dev/null | grep -q "version 2"; then
    conan=conan
else
    conan=$packages_dir/conan_venv/bin/conan
    [ -x "$conan" ] || { run python3 -m venv "$packages_dir/conan_venv"; run "$packages_dir/conan_venv/bin/pip" install -q "conan>=2,<3"; }
fi
export CONAN_HOME=$work/conan_home
run "$conan" profile detect
say "  detected: $(sed -n '/^compiler.cppstd/p' "$CONAN_HOME/profiles/default")"

# stand_in NAME VERSION FOLDER TYPE LIBRARIES: a recipe with these headers, which says of itself what Conan Center's says. Its library does
# not exist, so whoever linked it would fail.
stand_in() {
    mkdir -p "$work/stand_in/$1"
    cat > "$work/stand_in/$1/conanfile.py" << PYTHON
import os
from conan import ConanFile
from conan.tools.files import copy


class StandIn(ConanFile):
    name, version, package_type = "$1", "$2", "$4"
    settings = "os", "arch", "compiler", "build_type"

    def package(self):
        copy(self, "$3/*", src="$(headers_of "$3")", dst=os.path.join(self.package_folder, "include"))

    def package_info(self):
        self.cpp_info.libs = [$5]
PYTHON
    run "$conan" create "$work/stand_in/$1" --no-remote
}
stand_in highway "$(highway_version)" hwy static-library '"hwy"'
stand_in nlohmann_json "$(json_version)" nlohmann header-library ''

recipe=$work/source/packaging/conan
run "$conan" create "$recipe" --no-remote
expect "back end highway, target " "json 1"
say "  test_package: $(printf '%s\n' "$output" | grep '^phi4flash .*back end')"
run "$conan" create "$recipe" --no-remote -o "phi4flash/*:simd=scalar" -o "phi4flash/*:with_json=False" -c "tools.cmake.cmakedeps:new=will_break_next"
expect "back end scalar, target scalar, json 0"
run_failing "$conan" create "$recipe" --no-remote -s compiler=gcc -s compiler.version=10
expect "phi4flash needs C++20: gcc 11 or newer, this profile has 10"

new_consumer
rm -rf "$work/source"
in_app "$conan" install . --output-folder=build/conan --build=missing --no-remote
in_app cmake --preset conan
in_app cmake --build --preset conan
check_consumer build/conan/consumer
