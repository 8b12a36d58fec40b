#!/usr/bin/env python3
"""Checks, from outside, models as people have them: configurations that other programs wrote, and where a chat ends.

    tests/cli/config_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUNDLED = pathlib.Path(__file__).resolve().parent.parent.parent / "models" / "tiny-arithmetic"
QUESTION = "What is 347 + 285?"
PROGRAM = ""


def run(*arguments, text=None):
    command = [PROGRAM, *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, encoding="utf-8", timeout=600)


class ConfigTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name) / "model"
        shutil.copytree(BUNDLED, self.folder)

    def good(self, *arguments, **more):
        done = run(*arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def refused(self, *arguments):
        done = run(*arguments)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done.stderr

    def change(self, name, **keys):
        path = self.folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    def generate(self, *more, model=None):
        return self.good("generate", "--model", model or self.folder, "--prompt", QUESTION, "--temperature", 0, "--drafts", "off", "--json", *more)

    def answer(self, *more, model=None):
        return json.loads(self.generate(*more, model=model).stdout)

    def test_unknown_keys_are_refused_with_a_way_to_go_on(self):
        self.change("config.json", hidden_sizes=3)
        for command in (["info"], ["generate", "--tokens", "1"], ["convert", "-o", self.folder / "x.gguf"]):
            wrong = self.refused(command[0], "--model", self.folder, *command[1:])
            self.assertIn("hidden_sizes", wrong)
            self.assertIn("--ignore-unknown-keys", wrong)
            self.assertIn(str(self.folder / "config.json"), wrong)
            self.good(command[0], "--model", self.folder, *command[1:], "--ignore-unknown-keys", "--threads", 1)

    def test_what_cannot_change_the_model_changes_nothing(self):
        before = self.answer()
        self.change("config.json", rope_theta=10000.0, rope_scaling=None, rope_parameters={"rope_type": "default"},
                    unsloth_fixed=True, unsloth_version="2025.7.8", pretraining_tp=1, head_dim=None,
                    layer_types=["mamba", "attention"] * 4)
        self.change("generation_config.json", pad_token_id=-1, top_k=-1, bos_token_id=[368])
        self.assertEqual(self.answer(), before)

    def test_a_chat_ends_at_the_template_s_own_end(self):
        before = self.answer()
        said = self.good("chat", "--model", self.folder, text=QUESTION + "\n").stdout
        self.assertEqual(before["stop_reason"], "stop_token")
        for content in ({"eos_token_id": 368, "do_sample": False}, {"eos_token_id": [], "do_sample": False}, None):
            path = self.folder / "generation_config.json"
            path.unlink() if content is None else path.write_text(json.dumps(content))
            self.assertEqual(self.answer(), before)
            again = self.good("chat", "--model", self.folder, "--temperature", 0, text=QUESTION + "\n").stdout
            self.assertEqual(again.split("[")[0], said.split("[")[0])
        self.assertEqual(self.answer("--ignore-eos", "-n", 60)["stop_reason"], "max_tokens")

    def test_a_stop_string_that_is_a_special_token(self):
        cut = self.answer("--ignore-eos", "--stop", "<|end|>", "-n", 200)
        self.assertEqual(cut["stop_reason"], "stop_string")
        self.assertEqual(cut["text"], self.answer()["text"])

    def test_stop_strings_of_the_model_are_honoured_and_survive_conversion(self):
        whole = self.answer()["text"]
        stop = whole[len(whole) // 2 :][:4]
        self.change("generation_config.json", stop_strings=stop)
        packed = self.folder / "packed.gguf"
        self.good("convert", "--model", self.folder, "--output", packed, "--type", "bf16")
        for model in (self.folder, packed):
            cut = self.answer(model=model)
            self.assertEqual((cut["stop_reason"], cut["text"]), ("stop_string", whole[: whole.index(stop)]))
            self.assertEqual(self.answer("--ignore-eos", "-n", 60, model=model)["stop_reason"], "max_tokens")

    def test_what_is_not_supported_is_told_once(self):
        self.assertEqual(self.generate().stderr, "")
        self.change("generation_config.json", num_beams=4, no_repeat_ngram_size=3, penalty_alpha=0.6, typical_p=1.0)
        packed = self.folder / "packed.gguf"
        self.good("convert", "--model", self.folder, "--output", packed, "--type", "bf16")
        for model in (self.folder, packed):
            told = self.generate(model=model).stderr
            self.assertEqual(told.count("\n"), 1, told)
            for key in ("num_beams", "no_repeat_ngram_size", "penalty_alpha"):
                self.assertIn(key, told)
            self.assertNotIn("typical_p", told)

    def test_packed_files_have_as_many_parameters(self):
        def count(model):
            return re.search(r"parameters +[0-9.]+ ?[a-z]* \((\d+)\)", self.good("info", "--model", model).stdout).group(1)

        packed = self.folder / "packed.gguf"
        self.good("convert", "--model", self.folder, "--output", packed, "--type", "q4")
        self.assertEqual(count(packed), count(self.folder))

    def test_quantized_folders_and_mistakes_name_the_file(self):
        self.change("config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
        wrong = self.refused("info", "--model", self.folder, "--ignore-unknown-keys")
        for word in (str(self.folder / "config.json"), "quantization_config", "bitsandbytes", "convert"):
            self.assertIn(word, wrong)
        self.change("config.json", quantization_config=None, num_hidden_layers=12)
        self.assertIn(str(self.folder), self.refused("generate", "--model", self.folder, "--tokens", "1"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PROGRAM = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main()
