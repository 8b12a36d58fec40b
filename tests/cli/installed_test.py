#!/usr/bin/env python3
"""Checks the program as packages install it: it finds the bundled model from where it is, wherever that has been moved, and says so where
it does not; the manual knows its commands.

    tests/cli/installed_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import pathlib
import re
import shutil
import subprocess
import tempfile

import program_testing
from program_testing import BUNDLED, ROOT, ProgramTest


class InstalledTest(ProgramTest):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="p4 installed ")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name).resolve()
        self.empty = self.folder / "empty"
        self.empty.mkdir()

    def install(self, place, model=None):
        program = self.folder / place
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(program_testing.PROGRAM, program)
        if model:
            shutil.copytree(BUNDLED, self.folder / model)
        return program

    def call(self, program, *arguments, text=None, folder=None):
        return subprocess.run([program, *arguments], input=text or "", capture_output=True, encoding="utf-8", cwd=folder or self.empty, timeout=600)

    def model_of(self, program, folder=None):
        done = self.call(program, "info", folder=folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return re.search(r"^ *folder +(\S.*)$", done.stdout, re.M).group(1)

    def test_beside_bin(self):
        program = self.install("prefix/bin/phi4flash", "prefix/share/phi4flash/models/tiny-arithmetic")
        place = self.folder / "prefix/share/phi4flash/models/tiny-arithmetic"
        self.assertEqual(self.model_of(program), str(place))
        done = self.call(program, "chat", text="What is 347 + 285?\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("632", done.stdout)

        link = self.folder / "linked"  # as alternatives and brew link programs
        link.symlink_to(program)
        self.assertEqual(self.model_of(link), str(place))

        (self.folder / "prefix").rename(self.folder / "moved")
        self.assertEqual(self.model_of(self.folder / "moved/bin/phi4flash"), str(self.folder / "moved/share/phi4flash/models/tiny-arithmetic"))

    def test_beside_a_folder_of_tools(self):
        program = self.install("prefix/tools/phi4flash/phi4flash", "prefix/share/phi4flash/models/tiny-arithmetic")
        self.assertEqual(self.model_of(program), str(self.folder / "prefix/share/phi4flash/models/tiny-arithmetic"))

    def test_beside_the_program(self):
        program = self.install("phi4flash", "models/tiny-arithmetic")
        self.assertEqual(self.model_of(program), str(self.folder / "models/tiny-arithmetic"))

    def test_the_current_folder_comes_first(self):
        program = self.install("prefix/bin/phi4flash", "prefix/share/phi4flash/models/tiny-arithmetic")
        shutil.copytree(BUNDLED, self.empty / "models/tiny-arithmetic")
        self.assertEqual(self.model_of(program), "models/tiny-arithmetic")

    def test_nowhere(self):
        program = self.install("prefix/bin/phi4flash")
        for command in ("info", "chat"):
            done = self.call(program, command)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, r"^phi4flash: no model is named, and the bundled one is neither models/tiny-arithmetic of this folder "
                                          r"nor in share/phi4flash/models/tiny-arithmetic of a folder above the program, "
                                          r".*/prefix/bin/phi4flash: say --model PATH\n$")

    def test_the_manual_knows_every_command(self):
        manual = (ROOT / "packaging/phi4flash.1").read_text(encoding="utf-8")
        commands = self.call(program_testing.PROGRAM, "--help").stdout.split("ommands", 1)[1]
        names = re.findall(r"^  ([a-z]+) ", commands, re.M)
        self.assertGreater(len(names), 8)
        for name in names:
            self.assertRegex(manual, rf"\n\.B [a-z, ]*\b{name}\b")


if __name__ == "__main__":
    program_testing.main(__doc__)
