#!/usr/bin/env python3
"""Checks what -o may name: devices, pipes, links, modes, names of others, and models that are there already.

    tests/cli/output_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
import unittest

import program_testing
from output_testing import OutputTest, make_device, start
from program_testing import BUNDLED, GOLDEN

NO_SPACE, BROKEN_PIPE, BAD_DESCRIPTOR = "No space left on device", "Broken pipe", "Bad file descriptor"


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
        through = subprocess.run([program_testing.PROGRAM, *map(str, self.convert("/dev/stdout"))], capture_output=True)
        self.assertEqual((through.returncode, through.stdout), (0, want))
        self.assertIn(b"/dev/stdout: ", through.stderr)
        with open(self.folder / "file", "wb+") as file:
            subprocess.run([program_testing.PROGRAM, *map(str, self.convert("/dev/stdout"))], stdout=file, stderr=subprocess.DEVNULL, check=True)
            file.seek(0)
            self.assertEqual(file.read(), want)

    @unittest.skipUnless(os.path.exists("/dev/stdout"), "needs /dev/stdout")
    def test_dev_stdout_goes_on_where_it_stands(self):
        want = self.plain()
        arguments = [program_testing.PROGRAM, *map(str, self.convert("/dev/stdout"))]
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
        done = subprocess.run([program_testing.PROGRAM, "convert", "--model", "model", "--output", str(path)], capture_output=True, encoding="utf-8",
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


if __name__ == "__main__":
    program_testing.main(__doc__)
