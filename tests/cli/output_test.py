#!/usr/bin/env python3
"""Checks what the program writes, and what it must not: full disks, readers that have gone, devices, links, modes, signals, weights
that are there already.

    tests/cli/output_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import stat
import struct
import shutil
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest

import cli_test
from cli_test import BUNDLED, DATA, GOLDEN, TINY_TOKENIZER, ProgramTest

NO_SPACE, BROKEN_PIPE, BAD_DESCRIPTOR = "No space left on device", "Broken pipe", "Bad file descriptor"
LINE = '{"text": "a", "ids": [1], "messages": []}\n'
GREEDY = ("--temperature", 0)


def start(*arguments, **how):
    return subprocess.Popen([cli_test.PROGRAM, *map(str, arguments)], stderr=subprocess.PIPE, encoding="utf-8", **how)


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


class StandardOutput(OutputTest):
    def commands(self):
        """Every command that writes to standard output, with what it reads there."""
        tokens = self.folder / "tokens"
        tokens.write_text("1,2,3,4\n")
        tokenizer = ("--tokenizer", TINY_TOKENIZER)
        ask = ("generate", "--model", BUNDLED, "--prompt", "1+1", *GREEDY)
        quick = ("--repetitions", 1, "--prompt-tokens", 2, "--generate-tokens", 2)
        quality = ("quality", "--reference", BUNDLED, "--model", BUNDLED, "--tokens", tokens)
        yield "", ("--help",)
        yield "", ("--version",)
        yield "", ("convert", "--help")
        yield "1+1\n", ("chat", "--model", BUNDLED)
        yield "/help\n/quit\n", ("chat", "--model", BUNDLED)
        yield "", ask
        yield "", (*ask, "--json")
        yield "", ("generate", "--model", GOLDEN / "f32-8l", "--tokens", "1,2", "--max-tokens", 3)
        yield "", ("info", "--model", BUNDLED)
        yield "", ("bench", "--model", BUNDLED, *quick)
        yield "", ("bench", "--model", BUNDLED, *quick, "--json")
        yield "", quality
        yield "", (*quality, "--json")
        yield LINE, ("tokenize", *tokenizer)
        yield LINE, ("detokenize", *tokenizer)
        yield LINE, ("render", *tokenizer)
        yield "", self.convert(self.folder / "x.gguf", "--force")

    def check(self, why, text, arguments, **how):
        running = start(*arguments, stdin=subprocess.PIPE, **how)
        _, errors = running.communicate(text, timeout=120)
        self.assertEqual(running.returncode, 1, (arguments, errors))
        self.assertEqual(errors, f"phi4flash: standard output cannot be written: {why}\n", arguments)

    def test_a_full_disk(self):
        full = make_device(self.folder / "full", 7)
        for text, arguments in self.commands():
            with open(full, "w") as out:
                self.check(NO_SPACE, text, arguments, stdout=out)

    def test_a_reader_that_has_gone(self):
        for text, arguments in self.commands():
            reader, writer = os.pipe()
            os.close(reader)
            self.check(BROKEN_PIPE, text, arguments, stdout=writer, restore_signals=False)  # SIGPIPE stays ignored, as in Python
            os.close(writer)

    def test_no_standard_output_at_all(self):
        for text, arguments in self.commands():
            self.check(BAD_DESCRIPTOR, text, arguments, preexec_fn=lambda: os.close(1))

    def test_what_is_meant_for_the_terminal_does_not_go_into_files(self):
        # The first files that are opened would get the numbers of the closed descriptors.
        want = self.plain()
        path = self.folder / "x.gguf"
        done = subprocess.run([cli_test.PROGRAM, *map(str, self.convert(path))], preexec_fn=lambda: os.closerange(0, 3), close_fds=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(path.read_bytes(), want)

    def test_nobody_reads_so_nothing_is_computed(self):
        endless = ("--ignore-eos", "--context", 1000000, "--max-tokens", 900000)
        for more in ((), ("--json",)):
            for ignored in (True, False):
                running = start("generate", "--model", BUNDLED, "--prompt", "1+1", *endless, *more, stdout=subprocess.PIPE,
                                restore_signals=not ignored)
                if not more:
                    running.stdout.read(10)
                running.stdout.close()
                errors = running.stderr.read()
                outcome = running.wait(timeout=60)  # hours otherwise
                running.stderr.close()
                if ignored or more:
                    self.assertEqual(outcome, 1)
                    self.assertIn(BROKEN_PIPE, errors)
                else:
                    self.assertEqual((outcome, errors), (-signal.SIGPIPE, ""))

    def test_a_pipe_that_does_not_block(self):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        lines = LINE * 20000
        running = start("tokenize", "--tokenizer", TINY_TOKENIZER, stdin=subprocess.PIPE, stdout=writer)
        os.close(writer)
        feed = threading.Thread(target=lambda: (running.stdin.write(lines), running.stdin.close()))
        feed.start()
        time.sleep(0.3)  # so that the pipe is full
        with open(reader) as out:
            self.assertEqual(out.read().count("\n"), 20000)
        feed.join()
        self.assertEqual((running.wait(timeout=60), running.stderr.read()), (0, ""))
        running.stderr.close()


class Targets(OutputTest):
    """What -o may name besides a new file."""

    def test_devices_stay_devices(self):
        null = make_device(self.folder / "null", 3)
        full = make_device(self.folder / "full", 7)
        self.good(*self.convert(null))
        self.refused(NO_SPACE, *self.convert(full))
        self.refused(NO_SPACE, "logits", "--model", BUNDLED, "--tokens", "1,2", "--output", full)
        self.assertTrue(null.is_char_device() and full.is_char_device())
        self.assertEqual(self.names(), ["full", "null"])

    def test_fifo(self):
        want = self.plain()
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        got = []
        reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
        reader.start()
        self.good(*self.convert(fifo))
        reader.join()
        self.assertEqual(got, [want])
        self.assertTrue(fifo.is_fifo())
        self.assertEqual(self.names(), ["fifo"])

    def test_waiting_for_a_reader_ends_with_the_signal(self):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        for which in (signal.SIGINT, signal.SIGTERM):
            running = start(*self.convert(fifo))
            time.sleep(1.0)
            running.send_signal(which)
            self.assertEqual(running.wait(timeout=20), -which)
            running.stderr.close()
        self.assertTrue(fifo.is_fifo())

    @unittest.skipUnless(os.path.exists("/dev/stdout"), "needs /dev/stdout")
    def test_dev_stdout(self):
        want = self.plain()
        through = subprocess.run([cli_test.PROGRAM, *map(str, self.convert("/dev/stdout"))], capture_output=True)
        self.assertEqual((through.returncode, through.stdout), (0, want))
        self.assertIn(b"/dev/stdout: ", through.stderr)
        with open(self.folder / "file", "wb+") as file:
            subprocess.run([cli_test.PROGRAM, *map(str, self.convert("/dev/stdout"))], stdout=file, stderr=subprocess.DEVNULL, check=True)
            file.seek(0)
            self.assertEqual(file.read(), want)

    @unittest.skipUnless(os.path.exists("/dev/stdout"), "needs /dev/stdout")
    def test_dev_stdout_goes_on_where_it_stands(self):
        want = self.plain()
        arguments = [cli_test.PROGRAM, *map(str, self.convert("/dev/stdout"))]
        path = self.folder / "all"
        path.write_bytes(b"first")
        for _ in range(2):  # >>: nothing is replaced, so nobody has to force it
            with open(path, "ab") as file:
                subprocess.run(arguments, stdout=file, stderr=subprocess.DEVNULL, check=True)
        self.assertEqual(path.read_bytes(), b"first" + want + want)
        with open(path, "wb", buffering=0) as file:  # { echo header; phi4flash ...; echo footer; } > all
            file.write(b"header")
            subprocess.run(arguments, stdout=file, stderr=subprocess.DEVNULL, check=True)
            file.write(b"footer")
        self.assertEqual(path.read_bytes(), b"header" + want + b"footer")
        ours, theirs = socket.socketpair()
        running = subprocess.Popen(arguments, stdout=theirs, stderr=subprocess.DEVNULL)
        theirs.close()
        with ours.makefile("rb") as file:
            self.assertEqual(file.read(), want)
        ours.close()
        self.assertEqual(running.wait(timeout=60), 0)

    def test_a_model_in_a_folder_too_deep_for_its_path(self):
        # The system opens it, but its absolute path is longer than paths may be.
        names = [str(i) + "n" * 240 for i in range(20)]

        def go_down():
            os.chdir(self.folder)
            for name in names:
                os.mkdir(name)
                os.chdir(name)
            os.symlink(BUNDLED, "model")

        path = self.folder / "x.gguf"
        done = subprocess.run([cli_test.PROGRAM, "convert", "--model", "model", "--output", str(path)], capture_output=True, encoding="utf-8",
                              preexec_fn=go_down)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(path.exists())

    def test_links_and_modes(self):
        want = self.plain()
        (self.folder / "far").mkdir()
        file, link = self.folder / "far" / "file.gguf", self.folder / "link.gguf"
        file.write_bytes(b"old")
        file.chmod(0o600)
        link.symlink_to("far/file.gguf")
        self.refused("--force", *self.convert(link))
        self.good(*self.convert(link, "--force"))
        self.assertTrue(link.is_symlink())
        self.assertEqual(file.read_bytes(), want)
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(self.names(), ["far", "link.gguf"])
        self.assertEqual(self.names(self.folder / "far"), ["file.gguf"])
        new = self.folder / "new.gguf"
        before = os.umask(0o027)
        try:
            self.good(*self.convert(new))
        finally:
            os.umask(before)
        self.assertEqual(stat.S_IMODE(new.stat().st_mode), 0o640)

    def test_names_of_others_are_left_alone(self):
        path = self.folder / "x.gguf"
        far = self.folder / "far"
        far.write_text("theirs")
        for make in (lambda part: part.write_text("theirs"), lambda part: part.symlink_to(far), lambda part: part.mkdir()):
            part = self.folder / "x.gguf.part"
            make(part)
            self.good(*self.convert(path, "--force"))
            self.assertEqual(far.read_text(), "theirs")
            self.assertTrue(part.is_dir() or part.read_text() == "theirs")
            part.rmdir() if part.is_dir() else part.unlink()
        self.assertEqual(self.names(), ["far", "x.gguf"])

    def test_two_at_once(self):
        path = self.folder / "x.gguf"
        wholes = []
        for kind in ("q8", "bf16"):
            self.good("convert", "--model", BUNDLED, "--output", path, "--type", kind, "--force")
            wholes.append(path.read_bytes())
        path.unlink()
        both = [start("convert", "--model", BUNDLED, "--output", path, "--type", kind, "--force", stdout=subprocess.DEVNULL)
                for kind in ("q8", "bf16")]
        for running in both:
            self.assertEqual(running.communicate(timeout=60)[1], "")
            self.assertEqual(running.returncode, 0)
        self.assertIn(path.read_bytes(), wholes)
        self.assertEqual(self.names(), ["x.gguf"])


class WhatIsThere(OutputTest):
    def synth(self, output, *more):
        return ("synth", "--config", GOLDEN / "f32-8l" / "config.json", "--output", output, *more)

    def test_convert_does_not_replace_models(self):
        path = self.folder / "x.gguf"
        self.good(*self.convert(path))
        before = path.read_bytes()
        other = ("convert", "--model", BUNDLED, "--output", path, "--type", "bf16")
        self.refused("--force", *other)
        self.assertEqual(path.read_bytes(), before)
        self.good(*other, "--force")
        self.assertNotEqual(path.read_bytes(), before)
        path.write_bytes(before[:100])  # a broken one may still be somebody's last
        self.refused("--force", *other)
        path.write_bytes(b"")
        self.good(*other)
        link = self.folder / "link"
        link.symlink_to(path)
        self.refused("--force", "convert", "--model", BUNDLED, "--output", link)
        # From a file to itself: the old one is read to its end.
        self.good("convert", "--model", path, "--output", path, "--type", "q8", "--force")
        self.assertEqual(path.stat().st_size, len(before))

    def test_logits_replace_logits_alone(self):
        path = self.folder / "l.safetensors"
        ask = ("logits", "--model", GOLDEN / "f32-8l", "--tokens", "1,2")
        for _ in range(2):
            self.good(*ask, "--output", path)
        weights = self.folder / "model.safetensors"
        weights.write_bytes((GOLDEN / "f32-8l" / "model.safetensors").read_bytes())
        before = weights.read_bytes()
        self.refused("--force", *ask, "--output", weights)
        notes = self.folder / "notes.txt"
        notes.write_text("mine")
        self.refused("--force", *ask, "--output", notes)
        self.refused("--force", "convert", "--model", BUNDLED, "--output", notes)
        self.assertEqual(notes.read_text(), "mine")
        self.assertEqual(weights.read_bytes(), before)
        self.good(*ask, "--output", weights, "--force")

    def test_the_model_that_is_read_is_never_replaced(self):
        model = self.folder / "model"
        shutil.copytree(BUNDLED, model)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            before = (model / name).read_bytes()
            for more in ((), ("--force",)):
                self.refused("model", "convert", "--model", model, "--output", model / name, *more)
                self.refused("model", "logits", "--model", model, "--tokens", "1", "--output", model / name, *more)
            self.assertEqual((model / name).read_bytes(), before)
        self.good("convert", "--model", model, "--output", model / "packed.gguf")
        self.good("convert", "--model", model, "--output", model / "packed.gguf", "--force")

    def test_synth_does_not_replace_models(self):
        model = self.folder / "model"
        self.good(*self.synth(model))
        before = {name: (model / name).read_bytes() for name in self.names(model)}
        for more in ((), ("--shard-size", "100KB")):
            self.refused("--force", *self.synth(model, "--seed", 5, *more))
        self.assertEqual({name: (model / name).read_bytes() for name in self.names(model)}, before)
        self.good(*self.synth(model, "--seed", 5, "--force"))
        self.assertNotEqual((model / "model.safetensors").read_bytes(), before["model.safetensors"])
        self.refused("hide", *self.synth(model, "--force", "--shard-size", "100KB"))
        for name in ("pytorch_model.bin", "model-00001-of-00002.safetensors", "q4.gguf", "config.json"):
            other = self.folder / ("with " + name)
            other.mkdir()
            (other / name).write_text("{}")
            self.refused(name, *self.synth(other))
            self.assertEqual(self.names(other), [name])

    def test_what_fails_leaves_nothing(self):
        (self.folder / "file").write_text("")
        self.refused("file", *self.synth(self.folder / "file"))
        self.refused("cannot be written", *self.synth(self.folder / "file" / "deep"))
        self.refused("no-such", *self.synth(self.folder / "a" / "b", "--tokenizer", "no-such"))
        self.refused("threads", *self.synth(self.folder / "a" / "b", "--threads", 100000))
        self.assertEqual(self.names(), ["file"])


@unittest.skipUnless(os.name == "posix", "needs signals")
class Signals(OutputTest):
    def interrupted(self, which, begun, *arguments):
        """Sends a signal once `begun()` says that writing has begun; the program must die of it."""
        running = start(*arguments, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not begun():
            self.assertIsNone(running.poll(), "ended too early")
            self.assertGreater(end, time.monotonic())
            time.sleep(0.01)
        running.send_signal(which)
        self.assertEqual(running.communicate(timeout=60)[1], "")
        self.assertEqual(running.returncode, -which)

    def large_config(self):
        config = json.loads((GOLDEN / "f32-8l" / "config.json").read_text())
        config.update(vocab_size=1 << 20)
        path = self.folder / "config.json"
        path.write_text(json.dumps(config))
        return path

    def test_half_a_checkpoint_is_removed(self):
        config = self.large_config()
        for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            out = self.folder / "up" / "out"
            make = ("synth", "--config", config, "--output", out, "--shard-size", "1MB", "--threads", 1)
            self.interrupted(which, out.exists, *make)
            self.assertEqual(self.names(), ["config.json"])

    def test_two_signals_end_the_program_at_once(self):
        config = self.large_config()
        for which in ((signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT), (signal.SIGHUP, signal.SIGINT)):
            out = self.folder / (which[0].name + which[1].name)
            running = start("synth", "--config", config, "--output", out, "--threads", 1, stdout=subprocess.DEVNULL)
            end = time.monotonic() + 60
            while not out.exists():
                self.assertGreater(end, time.monotonic())
                time.sleep(0.01)
            for number in (signal.SIGSTOP, *which, signal.SIGCONT):  # stopped, so that both have come before it can tidy up
                running.send_signal(number)
            self.assertEqual(running.communicate(timeout=60)[1], "")
            self.assertIn(running.returncode, [-number for number in which])
            self.assertTrue(out.exists())  # at once: one signal lets it remove the folder, see above

    def test_a_file_that_was_there_stays(self):
        config = self.large_config()
        out = self.folder / "out"
        out.mkdir()
        old = out / "model.safetensors"
        old.write_text("old")
        for which in (signal.SIGINT, signal.SIGKILL):
            def begun(when=time.monotonic() + 0.05):
                return time.monotonic() > when
            self.interrupted(which, begun, "synth", "--config", config, "--output", out, "--threads", 1, "--force", "--dtype", "f32")
            self.assertEqual(old.read_text(), "old")
            if which == signal.SIGINT or sys.platform == "linux":
                self.assertEqual(self.names(out), ["model.safetensors"])

    def test_ignored_signals_stay_ignored(self):
        tokens = ",".join(["1"] * 3000)
        path = self.folder / "l"
        running = start("logits", "--model", BUNDLED, "--tokens", tokens, "--output", path,
                        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        time.sleep(0.3)
        running.send_signal(signal.SIGHUP)
        self.assertEqual(running.communicate(timeout=60)[1], "")
        self.assertEqual(running.returncode, 0)
        self.assertTrue(path.exists())


class Progress(OutputTest):
    def on_a_terminal(self, columns, *arguments):
        """What the command says to a terminal so wide, as the lines that are drawn over each other."""
        master, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        running = subprocess.Popen([cli_test.PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=terminal)
        os.close(terminal)
        said = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # Linux: nobody holds the other end any more
                piece = b""
            if not piece:
                break
            said += piece
        os.close(master)
        self.assertEqual(running.wait(timeout=60), 0, said)
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", said.decode()) if line]

    def test_lines_fit_the_terminal(self):
        prompt = ",".join(["1"] * 2000)
        tokens = self.folder / "tokens"
        tokens.write_text(prompt)
        for columns in (80, 40, 20):
            for arguments in (
                ("synth", "--config", GOLDEN / "f32-8l" / "config.json", "--output", self.folder / "model", "--force"),
                self.convert(self.folder / "x.gguf", "--force"),
                ("logits", "--model", GOLDEN / "f32-8l", "--tokens", prompt, "--output", self.folder / "l"),
                ("quality", "--reference", GOLDEN / "f32-8l", "--model", GOLDEN / "f32-8l", "--tokens", tokens),
                ("generate", "--model", GOLDEN / "f32-8l", "--tokens", prompt, "--max-tokens", 1, "--context", 2001),
            ):
                lines = self.on_a_terminal(columns, *arguments)
                notes = [line for line in lines if line.startswith("phi4flash: note: ")]  # sentences, never drawn over
                self.assertEqual(len(notes), 1 if arguments[0] == "generate" else 0, notes)
                bars = [line for line in lines if line not in notes]
                self.assertTrue(bars, arguments)
                for line in bars:
                    self.assertLess(len(line.rstrip()), columns, line)
                    self.assertEqual("|" in line, columns == 80, line)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    cli_test.PROGRAM = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main()
