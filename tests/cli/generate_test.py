#!/usr/bin/env python3
"""Checks what generate writes: golden continuations on every target, texts, ids, drafts, and ends.

    tests/cli/generate_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import pathlib
import shutil
import tempfile

import program_testing
from program_testing import BUNDLED, GOLDEN, ProgramTest, golden_prompts, ids, run, targets


class Generate(ProgramTest):
    def test_golden_continuations_on_every_target(self):
        here = targets()
        self.assertTrue(here)
        for target in here:
            for name in ("f32-8l", "bf16-12l-sharded"):
                for prompt in golden_prompts(GOLDEN / name):
                    greedy = ("--temperature", 0, "--ignore-eos", "--kv", "f32", "--max-tokens", len(prompt["greedy"]), "--drafts", "auto")
                    said = self.generate(GOLDEN / name, "--tokens", ids(prompt["tokens"]), "--target", target, *greedy)
                    self.assertLessEqual(said.pop("accepted"), said.pop("drafted"))
                    self.assertEqual(said, {"tokens": prompt["greedy"], "text": "", "stop_reason": "max_tokens",
                                            "prompt_tokens": len(prompt["tokens"])})

    def test_same_seed_same_text_on_any_number_of_threads(self):
        def said(seed, threads):
            free = ("--temperature", 1, "--top-p", 1, "--ignore-eos", "--max-tokens", 50)
            return self.generate(GOLDEN / "f32-8l", "--tokens", "1,2,3", "--seed", seed, "--threads", threads, *free)["tokens"]

        self.assertEqual(said(5, 1), said(5, 2))
        self.assertEqual(len(said(5, 3)), 50)
        self.assertNotEqual(said(5, 1), said(6, 1))

    def test_drafts_change_nothing_but_the_counts(self):
        again = ",".join(["1,2,3,4,5,6,7,8"] * 3)
        asked = ("--tokens", again, "--ignore-eos", "--max-tokens", 60, "--kv", "f32", "--seed", 3)
        said = {how: self.generate(GOLDEN / "f32-8l", *asked, "--drafts", how) for how in ("off", "auto", "1", "15")}
        for how in said:
            self.assertEqual(said[how]["tokens"], said["off"]["tokens"])
        self.assertEqual((said["off"]["drafted"], said["off"]["accepted"]), (0, 0))
        self.assertGreater(said["15"]["drafted"], said["1"]["drafted"])
        for wrong in ("0", "-1", "on", "1000", "1.5"):
            self.refused("--drafts", "generate", "--model", GOLDEN / "f32-8l", "--tokens", "1", "--drafts", wrong)

    def test_context_full(self):
        said = self.generate(GOLDEN / "f32-8l", "--tokens", "1,2,3", "--context", 8, "--ignore-eos")
        self.assertEqual((said["stop_reason"], len(said["tokens"])), ("context_full", 6))

    def test_text(self):
        greedy = ("--prompt", "What is 347 + 285?", "--temperature", 0, "--drafts", "off")
        said = self.generate(BUNDLED, *greedy)
        self.assertEqual(said["stop_reason"], "stop_token")
        self.assertTrue(said["text"].endswith("\\boxed{632}"), said["text"])
        self.assertEqual(self.good("generate", "--model", BUNDLED, *greedy), said["text"] + "\n")
        cut = self.generate(BUNDLED, *greedy, "--stop", "never", "--stop", "boxed")
        self.assertEqual((cut["stop_reason"], cut["text"] + "boxed{632}"), ("stop_string", said["text"]))
        raw = self.generate(BUNDLED, "--raw", "--prompt", "<|user|>What is 347 + 285?<|end|><|assistant|>", "--temperature", 0, "--drafts", "off")
        self.assertEqual(raw, said)
        one = self.generate(BUNDLED, *greedy, "--max-tokens", 1)
        self.assertEqual((one["tokens"], one["stop_reason"]), (said["tokens"][:1], "max_tokens"))

    def test_ids_need_no_tokenizer(self):
        ids_alone = ("--tokens", "263,265", "--temperature", 0, "--max-tokens", 5, "--ignore-eos", "--drafts", "off")
        want = self.generate(BUNDLED, *ids_alone)
        self.assertTrue(want["text"])
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "model"
            shutil.copytree(BUNDLED, model)
            for content in ("", "{", '{"model": {"type": "Unigram", "vocab": []}}', None):
                path = model / "tokenizer.json"
                path.unlink()
                if content is not None:
                    path.write_text(content)
                done = run("generate", "--model", model, "--json", *ids_alone)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(json.loads(done.stdout), {**want, "text": ""})
                self.assertEqual(self.good("generate", "--model", model, *ids_alone), ids(want["tokens"]) + "\n")
                self.good("logits", "--model", model, "--tokens", "263,265", "--output", pathlib.Path(folder) / "logits.safetensors", "--force")
                self.good("bench", "--model", model, "-p", 1, "-n", 1, "-r", 1)
                self.refused("tokenizer", "generate", "--model", model, "--prompt", "x")
                if content is not None:
                    self.assertIn("note: ids are printed", done.stderr)
                    for command in (("generate", "--prompt", "x"), ("generate", *ids_alone, "--stop", "x"), ("chat",),
                                    ("convert", "--output", pathlib.Path(folder) / "never.gguf")):
                        self.refused("tokenizer.json", command[0], "--model", model, *command[1:])
                    self.assertFalse((pathlib.Path(folder) / "never.gguf").exists())
                    text = pathlib.Path(folder) / "text"
                    text.write_text("1,2,3")
                    self.good("quality", "--reference", model, "--model", model, "--tokens", text)
                    self.refused("tokenizer.json", "quality", "--reference", model, "--model", model, "--text", text)


if __name__ == "__main__":
    program_testing.main(__doc__)
