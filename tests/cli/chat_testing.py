"""What the tests of chat share: the program at a terminal of its own, and what it keeps there."""
import functools
import json
import os
import pathlib
import re
import select
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import program_testing
from program_testing import BUNDLED, DATA, TINY_TOKENIZER

SKIPPED = 77  # what CTest takes for "skipped"
SEQUENCES = rb"(\x1b\[[\d;?]*[a-zA-Z])*"
PROMPT = rb">" + SEQUENCES + rb" " + SEQUENCES + rb"$"


class Terminal:
    """The program at a terminal of its own."""

    def __init__(self, *arguments, state, kind="xterm", size=(24, 80), environment=(), shell=()):
        import fcntl
        import pty
        import termios

        self.master, self.slave = pty.openpty()  # the other end stays open here too: its modes can be looked at afterwards
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        variables = dict(os.environ, TERM=kind, XDG_STATE_HOME=str(state), LC_ALL="C.UTF-8", HOME=str(state))
        variables.update(environment)
        self.seen = b""
        self.all = b""
        self.child = subprocess.Popen([*shell, program_testing.PROGRAM, "chat", *map(str, arguments)], stdin=self.slave,
                                      stdout=self.slave, stderr=self.slave, env=variables, preexec_fn=self.take_terminal, close_fds=True)

    def take_terminal(self):
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def modes(self):
        import termios

        return termios.tcgetattr(self.slave)

    def echoes(self):
        import termios

        return bool(self.modes()[3] & termios.ECHO)

    def type(self, text):
        data = text.encode() if isinstance(text, str) else text
        while data:  # a terminal takes a few KiB at a time
            if select.select([], [self.master], [], 0.05)[1]:
                data = data[os.write(self.master, data[:512]):]
            self.read(0)

    def read(self, patience):
        if select.select([self.master], [], [], patience)[0]:
            some = os.read(self.master, 65536)
            self.seen += some
            self.all += some

    def wait_for(self, pattern, patience=30.0):
        """Drops everything up to the end of the match and returns it."""
        end = time.monotonic() + patience
        while not re.search(pattern, self.seen):
            if time.monotonic() > end or (self.child.poll() is not None and not select.select([self.master], [], [], 0)[0]):
                raise AssertionError(f"no {pattern!r} in {self.seen[-2000:]!r}")
            self.read(0.1)
        cut = re.search(pattern, self.seen).end()
        head, self.seen = self.seen[:cut], self.seen[cut:]
        return head

    def wait_until_taken(self):
        """Until the program has read what was typed, where that shows nothing."""
        import fcntl
        import termios

        end = time.monotonic() + 30
        while struct.unpack("i", fcntl.ioctl(self.slave, termios.FIONREAD, bytes(4)))[0] != 0:
            if time.monotonic() > end:
                raise AssertionError("what was typed is not read")
            time.sleep(0.01)
        time.sleep(0.1)

    def end(self):
        """Waits for the program's end and returns its exit code."""
        end = time.monotonic() + 60
        while self.child.poll() is None and time.monotonic() < end:
            self.read(0.1)
        self.read(0)
        return self.child.wait(timeout=1)

    def close(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self.master)
        os.close(self.slave)


@functools.cache
def has_editor():
    with tempfile.TemporaryDirectory() as state:
        t = Terminal("--model", BUNDLED, state=state)
        try:
            return b"Alt-Enter" in t.wait_for(PROMPT)
        finally:
            t.close()


class ChatTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.state = pathlib.Path(folder.name) / "state"
        self.history = self.state / "phi4flash" / "chat_history"

    def open(self, *arguments, **more):
        t = Terminal("--model", BUNDLED, "--temperature", "0", *arguments, state=self.state, **more)
        self.addCleanup(t.close)
        self.greeting = t.wait_for(PROMPT)
        return t

    def model_that_never_ends(self):
        """A model with random weights whose answers have no end."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        folder = pathlib.Path(holder.name)
        config = json.loads((DATA / "golden" / "f32-8l" / "config.json").read_text())
        config.update(vocab_size=512, eos_token_id=511, bos_token_id=511, pad_token_id=511)
        (folder / "config.json").write_text(json.dumps(config))
        model = folder / "model"
        subprocess.run([program_testing.PROGRAM, "synth", "--config", str(folder / "config.json"), "--output", str(model), "--tokenizer",
                        str(TINY_TOKENIZER)], check=True, capture_output=True)
        ends = {t["id"] for t in json.loads(TINY_TOKENIZER.read_text("utf-8"))["added_tokens"] if t["content"] in ("<|end|>", "<|endoftext|>")}
        with open(model / "model.safetensors", "r+b") as file:  # a row of zeros is a logit of 0: some other one is above that
            (length,) = struct.unpack("<Q", file.read(8))
            embedding = json.loads(file.read(length))["model.embed_tokens.weight"]
            row_bytes = 2 * embedding["shape"][1]
            for token in ends | {511}:
                file.seek(8 + length + embedding["data_offsets"][0] + token * row_bytes)
                file.write(bytes(row_bytes))
        return model

    def messages(self):
        return self.history.read_text("utf-8").splitlines()


class WithEditor(ChatTest):
    """Where the program has a line editor."""

    def setUp(self):
        super().setUp()
        if not has_editor():
            self.skipTest("this build has no line editor")


def main(usage):
    if os.name != "posix":
        sys.exit(SKIPPED)
    program_testing.main(usage)
