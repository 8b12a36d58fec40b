"""The recipe of this checkout, for conan 2: `conan create packaging/conan`. Headers only, so one package serves every profile.

Conan Center's header-only recipes refuse a profile whose compiler.cppstd is lower than what the headers need, and a freshly detected one is
(gnu17 for g++ 12). Here the target itself asks for C++20, as with CMake's own find_package, so such a profile works; what has no CMake
target is told by the header's first lines. A compiler that has no C++20 is refused.
"""
import os
import re

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import valid_min_cppstd
from conan.tools.files import copy, load
from conan.tools.layout import basic_layout
from conan.tools.scm import Version

required_conan_version = ">=2.0"


class Phi4flash(ConanFile):
    name = "phi4flash"
    license = "MIT"
    description = "Microsoft's Phi-4-mini-flash-reasoning (SambaY) on CPUs, header-only C++20"
    topics = ("llm", "inference", "simd", "mamba", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"simd": ["highway", "xsimd", "scalar"], "with_json": [True, False]}
    default_options = {"simd": "highway", "with_json": True}
    exports_sources = "phi4flash-standard.cmake"
    no_copy_source = True

    @property
    def _checkout(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        header = load(self, os.path.join(self._checkout, "include", "phi4flash", "config", "version.hpp"))
        self.version = self.version or re.search(r'VERSION_STRING "([^"]+)"', header).group(1)

    def export_sources(self):
        copy(self, "include/*", src=self._checkout, dst=self.export_sources_folder)
        copy(self, "LICENSE", src=self._checkout, dst=self.export_sources_folder)

    def layout(self):
        basic_layout(self)

    def requirements(self):
        # Of Highway headers are used and nothing is linked.
        if self.options.simd == "highway":
            self.requires("highway/[>=1.2.0 <2]", libs=False)
        elif self.options.simd == "xsimd":
            self.requires("xsimd/[>=13.0.0 <15]")
        if self.options.with_json:
            self.requires("nlohmann_json/[>=3.11.0 <4]")

    def validate(self):
        oldest = {"gcc": "11", "clang": "14"}.get(str(self.settings.compiler))
        if oldest and Version(self.settings.compiler.version) < oldest:
            raise ConanInvalidConfiguration(
                f"phi4flash needs C++20: {self.settings.compiler} {oldest} or newer, this profile has {self.settings.compiler.version}")
        if not valid_min_cppstd(self, 20):
            self.output.info("compiler.cppstd of this profile is less than 20: CMake's target phi4flash::phi4flash asks for C++20 by "
                             "itself, for other build systems add -s compiler.cppstd=20")

    def package(self):
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))
        copy(self, "*.hpp", src=os.path.join(self.source_folder, "include"), dst=os.path.join(self.package_folder, "include"))
        copy(self, "phi4flash-standard.cmake", src=self.source_folder, dst=os.path.join(self.package_folder, "share", "phi4flash"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.defines = [f"PHI4FLASH_SIMD_{str(self.options.simd).upper()}=1", f"PHI4FLASH_HAS_JSON={int(bool(self.options.with_json))}"]
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread"]
        self.cpp_info.set_property("cmake_file_name", "phi4flash")
        self.cpp_info.set_property("cmake_target_name", "phi4flash::phi4flash")
        self.cpp_info.set_property("cmake_build_modules", [os.path.join("share", "phi4flash", "phi4flash-standard.cmake")])
        self.cpp_info.set_property("pkg_config_name", "phi4flash")
