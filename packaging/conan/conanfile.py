import os

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy


class Phi4flash(ConanFile):
    name = "phi4flash"
    version = "0.1.0"
    license = "MIT"
    description = "Microsoft's Phi-4-mini-flash-reasoning (SambaY) on CPUs, header-only C++20"
    topics = ("llm", "inference", "simd", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"simd": ["highway", "xsimd", "scalar"], "with_json": [True, False]}
    default_options = {"simd": "highway", "with_json": True}
    no_copy_source = True

    def export_sources(self):
        root = os.path.join(self.recipe_folder, "..", "..")
        copy(self, "include/*", src=root, dst=self.export_sources_folder)
        copy(self, "LICENSE", src=root, dst=self.export_sources_folder)

    def requirements(self):
        if self.options.simd == "highway":
            self.requires("highway/1.2.0")
        elif self.options.simd == "xsimd":
            self.requires("xsimd/13.0.0")
        if self.options.with_json:
            self.requires("nlohmann_json/3.11.3")

    def validate(self):
        check_min_cppstd(self, 20)

    def package(self):
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))
        copy(self, "*.hpp", src=os.path.join(self.source_folder, "include"), dst=os.path.join(self.package_folder, "include"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.defines = [f"PHI4FLASH_SIMD_{str(self.options.simd).upper()}=1", f"PHI4FLASH_HAS_JSON={int(bool(self.options.with_json))}"]
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread"]
