#!/usr/bin/env python3
"""Checks the program from outside: its command line, exit codes and one-sentence errors, and the files that it writes.

    tests/cli/cli_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import pathlib
import re
import tempfile

import program_testing
from program_testing import BUNDLED, GOLDEN, ProgramTest, golden_prompts, ids, read_safetensors, targets


class CommandLine(ProgramTest):
    def test_help_and_version(self):
        self.assertIn("generate", self.good("--help"))
        self.assertRegex(self.good("--version"), r"^phi4flash \d+\.\d+\.\d+\n$")
        for command in "chat generate tokenize detokenize render logits info synth bench convert quality".split():
            self.assertIn("Usage: phi4flash " + command, self.good(command, "--help"))

    def test_mistakes(self):
        model = ("--model", GOLDEN / "f32-8l")
        self.refused("subcommand")
        self.refused("'dance'", "dance")
        self.refused("--dance", "info", *model, "--dance")
        self.refused("--model", "generate", "--tokens", "1")
        self.refused("no such folder", "generate", "--model", "/nowhere/at/all", "--tokens", "1")
        self.refused("--tokens", "generate", *model)
        self.refused("--tokens", "generate", *model, "--tokens", "1", "--prompt", "x")
        self.refused("tokenizer.json", "generate", *model, "--prompt", "x")
        self.refused("have x", "generate", *model, "--tokens", "1,x")
        self.refused("token 256", "generate", *model, "--tokens", "256")
        self.refused("token -1", "generate", *model, "--tokens", "1,-1")
        self.refused("temperature", "generate", *model, "--tokens", "1", "--temperature", "-1")
        self.refused("top_p", "generate", *model, "--tokens", "1", "--top-p", "0")
        self.refused("f16", "generate", *model, "--tokens", "1", "--kv", "f16")
        self.refused("abacus", "generate", *model, "--tokens", "1", "--target", "abacus")
        self.refused("room for 2", "generate", *model, "--tokens", "1,2,3", "--context", "2")
        self.refused("no-such", "tokenize", "--tokenizer", "no-such.json")
        self.refused("no-such", "synth", "--config", "no-such.json", "--output", "x")
        self.refused("cannot be written", "logits", *model, "--tokens", "1", "--output", "/nowhere/at/all")

    def test_an_empty_text_is_no_path_and_no_name(self):
        model = ("--model", BUNDLED)
        for option, what, *others in (
                ("--model", "a file or a folder", "chat"), ("--model", "a file or a folder", "info"),
                ("--model", "a file or a folder", "generate", "--tokens", "1"), ("--model", "a file or a folder", "bench"),
                ("--model", "a folder", "convert", "--output", "never"), ("--output", "a file", "convert", *model),
                ("--output", "a file", "logits", *model, "--tokens", "1"),
                ("--model", "a file or a folder", "logits", "--tokens", "1", "--output", "never"),
                ("--config", "a file", "synth", "--output", "never"), ("--output", "a folder", "synth", "--config", BUNDLED / "config.json"),
                ("--tokenizer", "a file or a folder", "synth", "--config", BUNDLED / "config.json", "--output", "never"),
                ("--tokenizer", "a file or a folder", "tokenize"), ("--tokenizer", "a file or a folder", "render"),
                ("--text-file", "a file", "tokenize", *model), ("--prompt-file", "a file", "generate", *model),
                ("--stop", "at least one character", "generate", *model, "--tokens", "1"),
                ("--system-file", "a file", "chat"), ("--session", "a file", "chat"),
                ("--replay", "a file", "bench", *model), ("--replay-prompt", "a file", "bench", *model, "--replay", BUNDLED / "config.json"),
                ("--reference", "a file or a folder", "quality", *model, "--tokens", "x"),
                ("--model", "a file or a folder", "quality", "--reference", BUNDLED),
                ("--text", "a file", "quality", *model, "--reference", BUNDLED), ("--tokens", "a file", "quality", *model, "--reference", BUNDLED)):
            self.refused(f"want {what}, have an empty text", *others, option, "")
        self.good("info", *model, "--target", "")  # no name is the best, as in the library

    def test_numbers_are_decimal_and_ids_are_a_list(self):
        model = ("--model", GOLDEN / "f32-8l", "--temperature", 0, "--ignore-eos")

        def said(*more):
            return self.generate(*model[1:], *more)

        ten = said("--tokens", "10", "--max-tokens", "10")
        self.assertEqual(len(ten["tokens"]), 10)
        for tokens, count in (("010", "010"), (" 10 ", " 10"), ("10", "0010")):
            self.assertEqual(said("--tokens", tokens, "-n", count), ten)
        for tokens in ("1,2", "1, 2", "1 2", " 1 ,2 ", "1\n2"):
            self.assertEqual(said("--tokens", tokens, "-n", "2"), said("--tokens", "1,2", "-n", "2"), tokens)
        for tokens in ("", " ", ",", "1,,2", "1,", ",1", "1,2,", "0x1", "+1", "1.5", "1;2", "99999999999", "-99999999999", "1_0", "[1]"):
            self.refused("want ids such as 1,2,3", "generate", *model, "--tokens", tokens)
            self.refused("want ids such as 1,2,3", "logits", "--model", GOLDEN / "f32-8l", "--tokens", tokens, "--output", "never")
        for count in ("", " ", "0x10", "0b1", "0o7", "1_000", "1'000", "+2", "-1", "1e3", "2.5", "ten", "1 2"):
            self.refused("want a whole number", "generate", *model, "--tokens", "1", "--max-tokens", count)
        self.refused("too large", "generate", *model, "--tokens", "1", "--max-tokens", "9" * 30)
        for option in ("--context", "--threads", "--top-k", "--seed"):
            self.refused(option, "generate", *model, "--tokens", "1", option, "0x1")
        for value in ("", "nan", "inf", "0x1p-1", "0,5", "+1", "1e", "."):
            self.refused("want a decimal number", "generate", *model, "--tokens", "1", "--top-p", value)
        for value in ("1", ".5", "5e-1", "0.50"):
            said("--tokens", "1", "--max-tokens", "1", "--top-p", value)
        for command, option in (("bench", "--depth"), ("bench", "--repetitions"), ("chat", "--max-tokens"), ("info", "--context"),
                                ("convert", "--threads"), ("quality", "--context"), ("synth", "--seed"),
                                ("synth", "--shard-size"), ("logits", "--chunk")):
            self.refused(option, command, option, "0x10")


class Files(ProgramTest):
    def test_logits_are_golden(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("f32-8l", "bf16-12l-sharded"):
                prompt = next(golden_prompts(GOLDEN / name))
                for chunk in (1, 5, 64):
                    path = pathlib.Path(folder) / "logits.safetensors"
                    how = ("--kv", "f32", "--chunk", chunk, "--output", path)
                    self.good("logits", "--model", GOLDEN / name, "--tokens", ids(prompt["tokens"]), *how)
                    shape, values = read_safetensors(path)["logits"]
                    self.assertEqual(shape, [len(prompt["tokens"]), len(values) // len(prompt["tokens"])])
                    self.assertEqual(len(values), len(prompt["logits"]))
                    self.assertLess(max(abs(a - b) for a, b in zip(values, prompt["logits"])), 5e-4)

    def test_info(self):
        text = self.good("info", "--model", GOLDEN / "bf16-12l-sharded", "--context", 100, "--kv", "f32")
        for want in ("parameters", "BF16", "F32", "session", "workspace", "100 tokens", "K/V in f32", *targets()):
            self.assertIn(want, text)

    def test_info_plans_memory(self):
        def plan(*more):
            text = self.good("info", "--model", GOLDEN / "bf16-12l-sharded", "--context", 100, *more)
            names = "mapped weights|parameters|workspace|session|generation|drafter|prefix cache|all|saved session"
            return {name: int(n) for name, n in re.findall(rf"^ *({names}) +([0-9]+) bytes", text, re.M)}

        one = plan()
        shared = one["mapped weights"] + one["parameters"] + one["workspace"]
        each = one["session"] + one["generation"] + one["drafter"]
        self.assertEqual(one["all"], shared + each)
        self.assertNotIn("prefix cache", one)
        cached = plan("--cached-texts", 2)
        self.assertEqual(cached["all"] - one["all"], cached["prefix cache"])
        self.assertNotIn("drafter", plan("--drafts", "off"))
        self.assertEqual(plan("--sessions", 7)["all"], shared + 7 * each)
        undoing = plan("--undo", 3)
        self.assertGreater(undoing["session"], one["session"])
        self.assertGreater(undoing["saved session"], one["saved session"])
        self.assertLess(plan("--chunk", 16)["workspace"], one["workspace"])
        self.refused("undo", "info", "--model", GOLDEN / "bf16-12l-sharded", "--context", 10, "--undo", 11)

    def test_synth(self):
        with tempfile.TemporaryDirectory() as folder:
            def made(name, *more):
                path = pathlib.Path(folder) / name
                self.good("synth", "--config", GOLDEN / "f32-8l" / "config.json", "--output", path, *more)
                return path

            def said(model):
                return self.generate(model, "--tokens", "1,2,3", "--max-tokens", 5, "--temperature", 0, "--ignore-eos")["tokens"]

            one = made("one", "--seed", 1, "--threads", 1)
            again = made("again", "--seed", 1, "--threads", 2)
            other = made("other", "--seed", 2)
            weights = [(path / "model.safetensors").read_bytes() for path in (one, again, other)]
            self.assertEqual(weights[0], weights[1])
            self.assertNotEqual(weights[0], weights[2])
            shards = made("shards", "--seed", 1, "--shard-size", "100KB")
            self.assertGreater(len(list(shards.glob("model-*-of-*.safetensors"))), 3)
            self.assertEqual(len(said(one)), 5)
            self.assertEqual(said(shards), said(one))
            for dtype in ("f16", "f32"):
                self.assertIn(dtype.upper(), self.good("info", "--model", made(dtype, "--dtype", dtype)))

    def test_convert(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            questions = ["--prompt", "What is 347 + 285?", "--temperature", "0"]
            for name in ("bf16", "q8", "q4", "q4_dense"):
                file = folder / f"{name}.gguf"
                self.good("convert", "--model", BUNDLED, "--output", file, "--type", name)
                self.assertIn("632", self.generate(file, *questions)["text"])
            self.assertEqual([f.name for f in folder.iterdir() if f.suffix == ".part"], [])
            # Unrounded weights: the very same text, and the tokenizer is inside.
            self.assertEqual(self.generate(folder / "bf16.gguf", *questions), self.generate(BUNDLED, *questions))
            line = json.dumps({"text": "What is 12 + 30?<|end|>"}) + "\n"
            self.assertEqual(self.good("tokenize", "--tokenizer", folder / "q8.gguf", text=line),
                             self.good("tokenize", "--tokenizer", BUNDLED, text=line))
            self.refused("there is no such folder or file", "convert", "--model", folder / "absent", "--output", folder / "x.gguf")
            self.refused("cannot be written", "convert", "--model", BUNDLED, "--output", folder / "no" / "x.gguf")
            (folder / "cut.gguf").write_bytes((folder / "q8.gguf").read_bytes()[:-4096])
            self.refused("cut.gguf", "info", "--model", folder / "cut.gguf")

    def test_bench(self):
        bench = ("bench", "--model", GOLDEN / "f32-8l")
        asked = {"prompt_tokens": 20, "generate_tokens": 5, "depth": 7, "repetitions": 2, "threads": 2}
        options = [part for key, value in asked.items() for part in ("--" + key.replace("_", "-"), value)]
        found = json.loads(self.good(*bench, *options, "--json"))
        self.assertEqual({key: found[key] for key in asked}, asked)
        for key in ("prefill_tokens_per_second", "decode_tokens_per_second", "read_bytes_per_second", "weights_read_bytes_per_second"):
            self.assertLessEqual(0 < found[key]["min"] and found[key]["min"], found[key]["median"])
            self.assertLessEqual(found[key]["median"], found[key]["max"])
        self.assertGreater(found["bytes_per_token"], 1e5)
        self.assertAlmostEqual(found["ratio"], found["decode_bytes_per_second"] / found["read_bytes_per_second"]["median"])
        for key in ("read_in_huge_pages", "weights_in_huge_pages"):
            self.assertTrue(0 <= found[key] <= 1, found[key])
        short = (*bench, "--repetitions", 1, "--prompt-tokens", 5, "--generate-tokens", 2)
        for pages in ("huge", "reread", "copy", "small"):
            table = self.good(*short, "--pages", pages)
            for words in ("tokens/s", "this machine can read", "the weights as they lie", "in huge pages"):
                self.assertIn(words, table)
        self.refused("--pages", *short, "--pages", "large")

    def test_replay(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "text"
            file.write_text("What is 347 + 285? " * 12)
            bench = ("bench", "--model", BUNDLED, "--replay", file)
            measured = lambda *more: json.loads(self.good(*more, "--json"))["texts"]
            fixed, = measured(*bench, "--drafts", 8)
            self.assertEqual(fixed["tokens"], fixed["passes"] + fixed["accepted"])
            self.assertGreater(fixed["accepted"], fixed["tokens"] / 2)
            self.assertGreater(fixed["ratio"], 0)
            off, = measured(*bench, "--drafts", "off")
            self.assertEqual((off["drafted"], off["accepted"], off["passes"]), (0, 0, fixed["tokens"]))
            cut, = measured(*bench, "--generate-tokens", 20, "--replay-prompt", file)
            self.assertEqual(cut["tokens"], 19)
            self.assertGreater(cut["prompt_tokens"], 20)
            self.assertIn("drafts accepted", self.good(*bench))
            # The second time it is known: only its first token cannot be guessed from what the drafter remembers.
            new = pathlib.Path(folder) / "new"
            new.write_text(" ".join(str(n * n * 7919 % 10007) for n in range(60)))
            both = json.loads(self.good("bench", "--model", BUNDLED, "--replay", new, new, "--drafts", 8, "--json"))
            self.assertGreater(both["texts"][1]["accepted"], 2 * both["texts"][0]["accepted"])
            self.assertEqual(both["least_ratio"], min(t["ratio"] for t in both["texts"]))
            self.assertIn("median", self.good("bench", "--model", BUNDLED, "--replay", new, new))
            self.refused("want a file for each of 2 texts, have 1", "bench", "--model", BUNDLED, "--replay", new, new, "--replay-prompt", file)
            self.refused("--replay", "bench", "--model", BUNDLED, "--drafts", "off")
            self.refused("--pass excludes --replay", "bench", "--model", BUNDLED, "--replay", new, "--pass", 1)
            self.refused("want a text, have nothing", "bench", "--model", BUNDLED, "--replay", "/dev/null")


if __name__ == "__main__":
    program_testing.main(__doc__)
