#!/usr/bin/env python3
"""Checks quality: what types lose, that chunks and threads do not matter, and its errors.

    tests/cli/quality_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import pathlib
import re
import tempfile

import program_testing
from program_testing import BUNDLED, DATA, GOLDEN, ProgramTest


class Quality(ProgramTest):
    HELD_OUT = DATA / "arithmetic_held_out.jsonl"

    def converted(self, folder, name, *how):
        path = pathlib.Path(folder) / (name + ".gguf")
        self.good("convert", "--model", BUNDLED, "--output", path, *how)
        return path

    def judged(self, reference, models, *more):
        named = [part for model in models for part in ("--model", model)]
        return self.good("quality", "--reference", reference, *named, *more)

    def test_types_lose_what_their_bits_allow(self):
        with tempfile.TemporaryDirectory() as folder:
            files = [self.converted(folder, t, "--type", t) for t in ("bf16", "q8", "q4_dense", "q4")]
            text = ("--text", self.HELD_OUT, "--max-tokens", 3000)
            found = json.loads(self.judged(BUNDLED, files, *text, "--json", "--tensors"))
            plain, q8, dense, q4 = found["models"]
            self.assertEqual([m["activations"] for m in found["models"]], ["f32", "int8", "int8", "int8"])
            for key, value in {"mean_kl": 0, "kl_99": 0, "weight_error": 0, "same_top": 1, "perplexity_ratio": 1}.items():
                self.assertEqual(plain[key], value, key)
            self.assertEqual(plain["perplexity"], found["reference"]["perplexity"])
            self.assertTrue(0 < 8 * q8["mean_kl"] < dense["mean_kl"] < 0.05, found)
            self.assertTrue(0 < 8 * q8["kl_99"] < dense["kl_99"], found)
            self.assertTrue(0.003 < q8["weight_error"] < 0.007 < dense["weight_error"] < q4["weight_error"] < 0.1, found)
            self.assertTrue(dense["same_top"] < q8["same_top"] < 1, found)
            self.assertTrue(4.5 < dense["bits_per_weight"] == q4["bits_per_weight"] < q8["bits_per_weight"] < 16, found)
            names = [t["name"] for t in dense["tensors"]]
            self.assertIn("model.embed_tokens.weight", names)
            self.assertEqual(len(set(names)), len(names))
            self.assertEqual({t["error"] for t in plain["tensors"]}, {0})
            worst = max(t["error"] for t in dense["tensors"])
            self.assertTrue(dense["weight_error"] < worst < 0.2)

            table = self.judged(BUNDLED, files, *text, "--activations", "both", "--tensors")
            for want in ("3000 predictions", "q4_dense.gguf", "99 % KL", "model.layers.0.mlp.fc1.weight", "100.00 %"):
                self.assertIn(want.replace("3000", str(found["predictions"])), table)
            self.assertEqual(len(re.findall(r"^  q8\.gguf +(?:int8|f32) ", table, re.MULTILINE)), 2)
            self.assertEqual(len(re.findall(r"^  bf16\.gguf ", table, re.MULTILINE)), 1)

            # The rounding of activations alone: the reference never rounds them. Far less than what 4 bits cost.
            (exact,) = json.loads(self.judged(files[2], files[2:3], *text, "--activations", "f32", "--json"))["models"]
            (alone,) = json.loads(self.judged(files[2], files[2:3], *text, "--json"))["models"]
            self.assertEqual((exact["mean_kl"], exact["weight_error"]), (0, 0))
            self.assertTrue(0 < alone["mean_kl"] < dense["mean_kl"] / 8, alone)

    def test_chunks_and_threads_do_not_matter_and_windows_do(self):
        with tempfile.TemporaryDirectory() as folder:
            file = self.converted(folder, "q8", "--type", "q8")
            tokens = pathlib.Path(folder) / "ids"
            tokens.write_text("263 265 220,17,10\r\n\n" + ",".join(str(i * 7 % 360) for i in range(100)) + "\n5\n")

            def found(*more):
                return json.loads(self.judged(BUNDLED, [file], "--tokens", tokens, "--json", *more))

            # One token at a time and many are different kernels for plain weights: equal but for rounding. From 16 tokens on, q8 may be read as
            # two bytes (docs/simd.md), which 8-bit activations notice: their chunks stay below that.
            for activations, largest in (("f32", 64), ("int8", 15)):
                def judged(chunk, threads):
                    return found("--chunk", chunk, "--threads", threads, "--activations", activations)

                whole = judged(largest, 1)
                self.assertEqual((whole["texts"], whole["predictions"]), (2, 4 + 99))
                for chunk, threads in ((7, 1), (largest, 3), (1, 1)):
                    self.assertAlmostEqual(judged(chunk, threads)["models"][0]["mean_kl"], whole["models"][0]["mean_kl"], delta=1e-6)
            self.assertAlmostEqual(found("--threads", 3)["models"][0]["mean_kl"], found("--threads", 1)["models"][0]["mean_kl"], delta=1e-6)
            whole = found()
            pieces = found("--context", 30)
            self.assertEqual((pieces["texts"], pieces["predictions"]), (5, 4 + 3 * 29 + 9))
            self.assertNotEqual(pieces["reference"]["perplexity"], whole["reference"]["perplexity"])
            self.assertEqual(found("--max-tokens", 8)["predictions"], 4 + 2)

    def test_mistakes(self):
        ask = ("quality", "--reference", BUNDLED, "--model", BUNDLED)
        with tempfile.TemporaryDirectory() as folder:
            def file(name, text):
                path = pathlib.Path(folder) / name
                path.write_text(text)
                return path

            good = file("good", "1,2,3")
            self.refused("--reference", "quality", "--model", BUNDLED, "--tokens", good)
            self.refused("--model", "quality", "--reference", BUNDLED, "--tokens", good)
            self.refused("text", *ask)
            self.refused("--tokens", *ask, "--tokens", good, "--text", good)
            self.refused("no such folder", *ask, "--model", "/nowhere/at/all", "--tokens", good)
            self.refused("shape", *ask, "--model", GOLDEN / "f32-8l", "--tokens", good)
            self.refused("no tokenizer", "quality", "--reference", GOLDEN / "f32-8l", "--model", GOLDEN / "f32-8l", "--text", good)
            self.refused("absent", *ask, "--tokens", pathlib.Path(folder) / "absent")
            self.refused("at least 2 tokens", *ask, "--tokens", file("short", "1\n2\n"))
            for option in ("--text", "--tokens"):
                self.refused("want a text of at least 2 tokens, the file is empty", *ask, option, file("empty", ""))
                self.refused("folder", *ask, option, folder)
            self.refused("line 2: want ids such as 1,2,3, have x", *ask, "--tokens", file("letters", "1,2\n3,x\n"))
            self.refused("have 99999999999", *ask, "--tokens", file("large", "1,99999999999"))
            self.refused("have 1.5", *ask, "--tokens", file("fraction", "1,1.5"))
            self.refused("token 384", *ask, "--tokens", file("unknown", "1,384"))
            self.refused("token -1", *ask, "--tokens", file("negative", "1,-1"))
            self.refused("line 1: ", *ask, "--text", file("bad.jsonl", "{"))
            self.refused("line 2: no key 'text'", *ask, "--text", file("keys.jsonl", '{"text": "1+1"}\n{"words": 1}\n'))
            self.refused("f64", *ask, "--tokens", good, "--activations", "f64")


if __name__ == "__main__":
    program_testing.main(__doc__)
