"""What the tests of output share: a folder to write to, a program that runs, devices."""
import os
import pathlib
import stat
import subprocess
import tempfile
import unittest

import program_testing
from program_testing import BUNDLED, ProgramTest


def start(*arguments, **how):
    return subprocess.Popen([program_testing.PROGRAM, *map(str, arguments)], stderr=subprocess.PIPE, encoding="utf-8", **how)


def make_device(path, minor):
    """A device node of our own: the real one could be replaced by a file. Null is 3, full is 7."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        open(path, "wb").close()
    except OSError as why:
        raise unittest.SkipTest(f"no device nodes can be made here: {why}")
    return path


class OutputTest(ProgramTest):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def names(self, folder=None):
        return sorted(path.name for path in (folder or self.folder).iterdir())

    def convert(self, output, *more):
        return ("convert", "--model", BUNDLED, "--output", output, "--type", "q8", "--threads", 1, *more)

    def plain(self):
        """The bytes that convert should give."""
        path = self.folder / "plain.gguf"
        self.good(*self.convert(path))
        content = path.read_bytes()
        path.unlink()
        return content
