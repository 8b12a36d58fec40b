#!/usr/bin/env python3
"""The scripts of tools/ in a checkout of their own, with stand-ins for the programs that they call.

    scripts_test.py
"""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest
import unittest.mock

SOURCE = pathlib.Path(__file__).resolve().parents[2]
# What setup.sh calls to look around, and no cmake, ninja or compiler.
PLAIN_TOOLS = "awk bash cat cmp cp dirname env find grep head id mkdir mv paste rm sed seq sort tail".split()
HEADERS = {
    "hwy/base.h": "#define HWY_MAJOR 1\n#define HWY_MINOR 2\n#define HWY_PATCH 0\n",
    "xsimd/config/xsimd_config.hpp":
        "#define XSIMD_VERSION_MAJOR 13\n#define XSIMD_VERSION_MINOR 0\n#define XSIMD_VERSION_PATCH 0\n",
    "nlohmann/detail/abi_macros.hpp":
        "#define NLOHMANN_JSON_VERSION_MAJOR 3\n#define NLOHMANN_JSON_VERSION_MINOR 11\n#define NLOHMANN_JSON_VERSION_PATCH 2\n",
}


class Checkout(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="p4_scripts_"))
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, text, executable=False):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if executable:
            path.chmod(0o755)
        return path

    def bring(self, name):
        (self.folder / "tools").mkdir(exist_ok=True)
        shutil.copy2(SOURCE / "tools" / name, self.folder / "tools" / name)

    def run_script(self, name, *options, path=None):
        environment = dict(os.environ, **({"PATH": str(path)} if path else {}))
        return subprocess.run([shutil.which("bash"), str(self.folder / "tools" / name), *options], env=environment, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


class Setup(Checkout):
    """setup.sh --headers installs nothing and needs no root, whatever the machine lacks: here cmake, ninja and a compiler."""

    def setUp(self):
        super().setUp()
        self.bring("setup.sh")
        for tool in PLAIN_TOOLS:
            (self.folder / "bin").mkdir(exist_ok=True)
            self.assertTrue(shutil.which(tool), tool)
            self.write(f"bin/{tool}", f'#!/bin/sh\nexec {shutil.which(tool)} "$@"\n', executable=True)
        self.calls = self.folder / "calls"
        for tool in ("apt-get", "sudo", "dpkg-deb", "python3"):
            self.write(f"bin/{tool}", f'#!/bin/sh\necho "{tool} $*" >> {self.calls}\nexit 1\n', executable=True)

    def run_setup(self, *options):
        done = self.run_script("setup.sh", *options, path=self.folder / "bin")
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        return done, calls

    def bring_headers(self):
        for name, text in HEADERS.items():
            self.write(f"build/deps/usr/include/{name}", text)

    def test_headers_that_are_there(self):
        self.bring_headers()
        for options in (["--headers"], ["--headers", "--all", "--package=qemu-user-static"]):
            done, calls = self.run_setup(*options)
            self.assertEqual((done.returncode, calls), (0, []), done.stdout + done.stderr)
            self.assertIn("setup: ready", done.stdout)

    def test_headers_that_are_missing(self):
        done, calls = self.run_setup("--headers")
        for call in calls:  # apt-get as it is used for unpacking, in a folder of its own
            self.assertTrue(call.startswith("apt-get -q -o Dir::Etc::SourceList="), call)
        if calls:
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            self.assertIn("no new enough version of:", done.stderr)

    def test_without_the_option_it_installs(self):
        self.bring_headers()
        done, calls = self.run_setup()
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(any("install" in call or "update" in call for call in calls), calls)


class Exactness(Checkout):
    """exactness.sh: a table of all programs, and no table where one of them has no lines."""

    def setUp(self):
        super().setUp()
        self.bring("exactness.sh")
        for name in ("tools/setup.sh", "tools/build.sh"):
            self.write(name, "#!/bin/sh\n", executable=True)

    def program(self, suffix, text, code=0):
        self.write(f"build/release/bin/test_model{suffix}", f"#!/bin/sh\ncat << 'END'\n{text}\nEND\nexit {code}\n", executable=True)

    def line(self, target, worst):
        return f"golden_test.cpp:1: MESSAGE: f32-8l on {target}: worst logit difference {worst}"

    def test_the_worst_of_each_target(self):
        self.program("", self.line("avx2", "2e-06") + "\n" + self.line("avx2", "3e-06") + "\n" + self.line("sse2", "1e-06"))
        self.program(".scalar", self.line("scalar", "4e-06"))
        done = self.run_script("exactness.sh")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([line.split() for line in sorted(done.stdout.splitlines())],
                         [["avx2", "3.0e-06"], ["scalar", "4.0e-06"], ["sse2", "1.0e-06"], ["target", "f32-8l"], ["worst:", "4.0e-06"]])

    def test_a_program_without_lines(self):
        self.program("", self.line("avx2", "2e-06"))
        self.program(".scalar", "test cases: 0 | 0 passed")
        done = self.run_script("exactness.sh")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("test_model.scalar printed no logit difference", done.stderr)

    def test_a_program_that_fails(self):
        self.program("", self.line("avx2", "2e-06"), code=1)
        self.program(".scalar", self.line("scalar", "4e-06"))
        done = self.run_script("exactness.sh")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("test_model failed", done.stderr)


class Emulate(Checkout):
    """emulate.sh: what it is asked for, and what goes to doctest; compiler and emulator are stand-ins."""

    def setUp(self):
        super().setUp()
        self.bring("emulate.sh")
        self.bring("headers.sh")
        self.write("tools/setup.sh", "#!/bin/sh\n", executable=True)
        self.calls = self.folder / "calls"
        for name in ("hwy/base.h", "nlohmann/json.hpp", "doctest/doctest.h"):
            self.write(f"build/deps/usr/include/{name}", "")
        self.write("bin/arm-linux-gnueabihf-g++", '#!/bin/sh\nfor last; do :; done\n: > "$last"\n', executable=True)
        self.write("bin/qemu-arm-static", f'#!/bin/sh\necho "$*" >> {self.calls}\n', executable=True)

    def emulate(self, *options):
        return self.run_script("emulate.sh", *options, path=f"{self.folder / 'bin'}:{os.environ['PATH']}")

    def test_options_of_doctest_come_after_two_dashes(self):
        done = self.emulate("armhf", "--", "--success", "--suite=x")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.calls.read_text(), "-cpu max build/emulate/armhf/greedy --no-version --success --suite=x\n")

    def test_a_machine_that_is_not_there(self):
        os.environ["PHI4FLASH_EMULATE_MACHINE"] = "cortex-none"
        self.addCleanup(os.environ.pop, "PHI4FLASH_EMULATE_MACHINE")
        done = self.emulate("armhf")
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing was run", done.stderr)
        self.assertFalse(self.calls.exists())

    def test_headers(self):
        self.emulate("armhf")
        links = self.folder / "build" / "emulate" / "headers"
        self.assertEqual({link.name: link.resolve() for link in links.iterdir()},
                         {name: (self.folder / "build/deps/usr/include" / name).resolve() for name in ("hwy", "nlohmann", "doctest")})
        if not any(pathlib.Path(place, "doctest").exists() for place in ("/usr/include", "/usr/local/include")):
            shutil.rmtree(self.folder / "build/deps/usr/include/doctest")
            done = self.emulate("armhf")
            self.assertEqual((done.returncode, done.stderr), (1, "emulate: no headers of doctest: run tools/setup.sh\n"))

    def test_others_are_refused(self):
        for option in ("--success", "--suites", "--suite=", "--instaled", "core", ""):
            done = self.emulate("armhf", option)
            self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
            self.assertIn(f"emulate: there is no option '{option}'", done.stderr)
        self.assertFalse(self.calls.exists())


class Packages(Checkout):
    """packages.sh: what it is asked for, and a folder that is not its own is left alone."""

    def setUp(self):
        super().setUp()
        self.bring("packages.sh")
        self.bring("headers.sh")
        self.bring("print_version.py")
        shutil.copytree(SOURCE / "tools" / "packages", self.folder / "tools" / "packages")
        self.write("include/phi4flash/config/version.hpp", '#define PHI4FLASH_VERSION_STRING "1.2.3"\n')

    def refused(self, code, sentence, *words, **environment):
        with unittest.mock.patch.dict(os.environ, environment):
            done = self.run_script("packages.sh", *words)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertIn(sentence, done.stderr)

    def test_words(self):
        self.refused(2, "packages: unknown word 'rpm' (known: conan, vcpkg, meson, deb, all)", "deb", "rpm")
        self.assertIn("tools/packages.sh [conan|vcpkg|meson|deb|all]", self.run_script("packages.sh", "--help").stdout)

    def test_folders_that_are_not_its_own(self):
        mine = self.write("elsewhere/meson/mine", "")
        for place, sentence in ((self.folder / "build", "must be outside of the checkout"), ("relative", "must begin with a slash")):
            self.refused(1, sentence, "meson", PHI4FLASH_PACKAGES_DIR=str(place))
        with tempfile.TemporaryDirectory(prefix="p4_packages_") as outside:
            kept = pathlib.Path(outside) / "meson"
            shutil.copytree(mine.parent, kept)
            self.refused(1, "has files that are not of this script", "meson", PHI4FLASH_PACKAGES_DIR=outside)
            self.assertTrue((kept / "mine").exists())


if __name__ == "__main__":
    unittest.main()
