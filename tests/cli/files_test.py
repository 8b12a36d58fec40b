#!/usr/bin/env python3
"""Checks what the program says of models that are damaged, misplaced or not there: one sentence each, and no text made of them.

    tests/cli/files_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import pathlib
import shutil
import struct
import tempfile

import program_testing
from program_testing import GOLDEN, ProgramTest

MODEL = GOLDEN / "f32-8l"
TOKENS = ("--tokens", "1,2,3", "-n", 4, "--temperature", 0)
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3850\n"


class FilesTest(ProgramTest):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.model = self.folder / "model"
        self.model.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(MODEL / name, self.model / name)
        self.weights = self.model / "model.safetensors"

    def write_number(self, tensor, index, value):
        with open(self.weights, "r+b") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            entry = json.loads(file.read(length))[tensor]
            self.assertEqual(entry["dtype"], "F32")
            file.seek(8 + length + entry["data_offsets"][0] + 4 * index)
            file.write(struct.pack("<f", value))

    def lengthen_header(self, spaces):
        data = (MODEL / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        self.weights.write_bytes(struct.pack("<Q", length + spaces) + data[8 : 8 + length] + b" " * spaces + data[8 + length :])

    def test_a_header_of_any_length(self):
        want = self.good("generate", "--model", MODEL, *TOKENS)
        for spaces in range(1, 8):
            self.lengthen_header(spaces)
            self.assertEqual(self.good("generate", "--model", self.model, *TOKENS), want)
        self.assertIn("copied weights", self.good("info", "--model", self.model))
        self.assertNotIn("copied weights", self.good("info", "--model", MODEL))

    def test_weights_that_are_no_numbers(self):
        self.assertIn("all are finite", self.good("info", "--check", "--model", self.model))
        name = "model.layers.1.mlp.fc2.weight"
        self.write_number(name, 130, float("nan"))
        done = self.refused("not finite", "generate", "--model", self.model, *TOKENS)
        self.assertIn("after 3 tokens", done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertIn(name, self.refused("[1, 2] is not finite", "info", "--check", "--model", self.model).stderr)
        out = self.folder / "out"
        for kind in ("q8", "q4", "q4_dense", "bf16", "f16", "f32"):
            done = self.refused(name, "convert", "--model", self.model, "--type", kind, "--output", out)
            self.assertIn(str(self.model), done.stderr)
        self.refused("not finite", "logits", "--model", self.model, "--tokens", "1,2", "--output", out)
        self.refused("not finite", "bench", "--model", self.model, "-p", 4, "-n", 2, "-r", 1)
        ids = self.folder / "ids"
        ids.write_text("1,2,3,4\n")
        self.refused("the reference", "quality", "--reference", self.model, "--tokens", ids, "--model", MODEL)
        done = self.refused("not finite", "quality", "--reference", MODEL, "--tokens", ids, "--model", self.model)
        self.assertIn(str(self.model), done.stderr)
        self.assertFalse(out.exists())

    def test_numbers_too_large_for_a_type(self):
        self.write_number("model.layers.1.mlp.fc2.weight", 130, 3e38)
        out = self.folder / "out"
        for kind in ("q8", "q4", "q4_dense", "f16"):
            self.refused("too large for " + kind.upper(), "convert", "--model", self.model, "--type", kind, "--output", out)
        self.good("convert", "--model", self.model, "--type", "bf16", "--output", out)

    def test_what_people_give_instead_of_a_model(self):
        def refused(want, path):
            self.assertIn(str(path)[-40:], self.refused(want, "generate", "--model", path, *TOKENS).stderr)

        refused("give the folder it is in", self.weights)
        refused("give the folder it is in", self.model / "config.json")
        whole = self.weights.read_bytes()
        self.weights.write_bytes(whole[: len(whole) // 2])
        refused("download that is not finished", self.model)
        self.weights.write_text(LFS_POINTER)
        refused("Git LFS pointer", self.model)
        self.weights.write_bytes(b"")
        refused("is empty", self.model)
        self.weights.unlink()
        refused("have neither", self.model)
        self.weights.symlink_to("../../blobs/abc")
        refused("a link to ../../blobs/abc", self.model)
        snapshot = self.folder / "models--a--b" / "snapshots" / "0123"
        shutil.copytree(MODEL, snapshot)
        refused("snapshots/0123", self.folder / "models--a--b")
        self.refused("hf download someone/something", "generate", "--model", "someone/something", *TOKENS)

    def test_the_path_is_in_sentences_about_tensors(self):
        data = (MODEL / "model.safetensors").read_bytes()
        self.weights.write_bytes(data.replace(b"final_layernorm.bias", b"final_layernorm.bros", 1))
        done = self.refused("model.final_layernorm.bias is missing", "generate", "--model", self.model, *TOKENS)
        self.assertIn(str(self.model), done.stderr)


if __name__ == "__main__":
    program_testing.main(__doc__)
