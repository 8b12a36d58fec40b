#!/usr/bin/env python3
"""Checks the program from outside: exit codes, one-sentence errors, JSON, golden continuations and logits.

    tests/cli/cli_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import array
import json
import os
import pathlib
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data"
GOLDEN = DATA / "golden"
TINY_TOKENIZER = DATA / "text" / "tiny_tokenizer.json"
BUNDLED = ROOT / "models" / "tiny-arithmetic"
PROGRAM = ""


def run(*arguments, text=None, folder=None):
    command = [PROGRAM, *map(str, arguments)]
    given = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
    return subprocess.run(command, **given, capture_output=True, encoding="utf-8", cwd=folder, timeout=600)


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        values = array.array({"F32": "f", "I64": "q"}[entry["dtype"]])
        values.frombytes(data[8 + length + begin : 8 + length + end])
        tensors[name] = (entry["shape"], list(values))
    return tensors


def golden_prompts(folder):
    tensors = read_safetensors(folder / "golden.safetensors")
    for j in range(100):
        if f"{j}.tokens" not in tensors:
            return
        yield {key: tensors[f"{j}.{key}"][1] for key in ("tokens", "logits", "greedy")}


def ids(numbers):
    return ",".join(map(str, numbers))


def targets():
    """The SIMD targets that the program can use here, as its own error sentence lists them."""
    refused = run("generate", "--model", GOLDEN / "f32-8l", "--tokens", "1", "--target", "none such")
    return refused.stderr.split("want one of", 1)[1].split()


class ProgramTest(unittest.TestCase):
    def good(self, *arguments, **more):
        done = run(*arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refused(self, want, *arguments, **more):
        done = run(*arguments, **more)
        self.assertEqual(done.returncode, 1, arguments)
        self.assertTrue(done.stderr.startswith("phi4flash: "), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn(want, done.stderr)
        return done

    def generate(self, model, *arguments):
        """Without drafts unless they are asked for: how many there are depends on time."""
        if "--drafts" not in arguments:
            arguments += ("--drafts", "off")
        return json.loads(self.good("generate", "--model", model, "--json", *arguments))


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
                ("--target", "a name", "info", *model), ("--stop", "at least one character", "generate", *model, "--tokens", "1"),
                ("--system-file", "a file", "chat"), ("--session", "a file", "chat"),
                ("--replay", "a file", "bench", *model), ("--replay-prompt", "a file", "bench", *model, "--replay", BUNDLED / "config.json"),
                ("--reference", "a file or a folder", "quality", *model, "--tokens", "x"),
                ("--model", "a file or a folder", "quality", "--reference", BUNDLED),
                ("--text", "a file", "quality", *model, "--reference", BUNDLED), ("--tokens", "a file", "quality", *model, "--reference", BUNDLED)):
            self.refused(f"want {what}, have an empty text", *others, option, "")

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


class Text(ProgramTest):
    def lines(self, values, *arguments):
        out = self.good(*arguments, text="".join(json.dumps(v) + "\n" for v in values))
        return [json.loads(line) for line in out.splitlines()]

    def test_round_trip(self):
        cases = [json.loads(line) for line in (DATA / "text" / "tiny_dev.jsonl").read_text("utf-8").split("\n") if line]
        encoded = self.lines([{"text": c["text"]} for c in cases], "tokenize", "--tokenizer", TINY_TOKENIZER)
        self.assertEqual(encoded, [{"ids": c["ids"]} for c in cases])
        decoded = self.lines(encoded, "detokenize", "--tokenizer", TINY_TOKENIZER)
        self.assertEqual(decoded, [{"text": c["decoded"]} for c in cases])

    def test_markers(self):
        marked = [{"text": "a<|end|>b"}]
        (parsed,) = self.lines(marked, "tokenize", "--tokenizer", TINY_TOKENIZER)
        (plain,) = self.lines(marked, "tokenize", "--tokenizer", TINY_TOKENIZER, "--no-special")
        self.assertEqual(len(parsed["ids"]), 3)
        self.assertGreater(len(plain["ids"]), 3)
        back = ("detokenize", "--tokenizer", TINY_TOKENIZER)
        self.assertEqual(self.lines([parsed, plain], *back), marked * 2)
        self.assertEqual(self.lines([parsed, plain], *back, "--skip-special"), [{"text": "ab"}, marked[0]])

    def test_render(self):
        messages = [{"role": "system", "content": "s", "tools": "[]"}, {"role": "user", "content": "What?"}]
        both = [{"messages": messages, "add_generation_prompt": yes} for yes in (True, False)]
        ask, tell = self.lines(both, "render", "--tokenizer", TINY_TOKENIZER)
        self.assertEqual(ask["prompt"], "<|system|>s<|tool|>[]<|/tool|><|end|><|user|>What?<|end|><|assistant|>")
        self.assertEqual(tell["prompt"], "<|system|>s<|tool|>[]<|/tool|><|end|><|user|>What?<|end|><|endoftext|>")
        encoded = self.lines([{"text": ask["prompt"]}], "tokenize", "--tokenizer", TINY_TOKENIZER)
        self.assertEqual(encoded, [{"ids": ask["ids"]}])

    def test_render_as_the_template_does_or_says_why_not(self):
        user = {"role": "user", "content": "What?"}
        ask = ("render", "--tokenizer", TINY_TOKENIZER)
        plain, same = self.lines([{"messages": [user]}, {"messages": [user], "template": None, "add_generation_prompt": None, "tools": []}], *ask)
        self.assertEqual((plain["prompt"], same), ("<|user|>What?<|end|><|assistant|>", plain))
        # What the template does not look at.
        ignored = {"role": "user", "content": "What?", "name": "x", "tools": [1], "tool_calls": []}
        self.assertEqual(self.lines([{"messages": [ignored], "documents": []}], *ask), [plain])
        (none,) = self.lines([{"messages": [{"role": "system", "content": "s", "tools": None}]}], *ask)
        self.assertEqual(none["prompt"], "<|system|>s<|end|><|assistant|>")

        def refused(want, line):
            self.refused("line 1: ", *ask, text=json.dumps(line) + "\n")
            self.refused(want, *ask, text=json.dumps(line) + "\n")

        parts = [{"type": "text", "text": "What?"}]
        refused('message 1: \'content\': want a string, have null: give ""', {"messages": [user, {"role": "assistant", "content": None}]})
        refused("join their texts", {"messages": [{"role": "user", "content": parts}]})
        refused("message 0: no key 'content'", {"messages": [{"role": "user"}]})
        refused("message 0: no key 'role'", {"messages": [{"content": "x"}]})
        refused("message 0: 'role': want a string", {"messages": [{"role": 5, "content": "x"}]})
        refused("message 0: 'tools': want a string", {"messages": [{"role": "system", "content": "s", "tools": [{"name": "f"}]}]})
        refused("under 'tools' of a system message", {"messages": [user], "tools": [{"type": "function"}]})
        for form in (1, ["flash"], {"default": "flash"}, "tulip", "{% for message in messages %}"):
            refused("want flash or mini_reasoning", {"messages": [user], "template": form})
        refused("want true or false", {"messages": [user], "add_generation_prompt": "yes"})

    def test_lines_are_answered_at_once(self):
        for command, line, answer in (("tokenize", {"text": "a"}, "ids"), ("detokenize", {"ids": [1]}, "text"),
                                      ("render", {"messages": []}, "prompt")):
            with subprocess.Popen([PROGRAM, command, "--tokenizer", str(TINY_TOKENIZER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
                for _ in range(3):
                    program.stdin.write(json.dumps(line).encode() + b"\n")
                    program.stdin.flush()
                    self.assertTrue(select.select([program.stdout], [], [], 60)[0], command)
                    self.assertIn(answer, json.loads(os.read(program.stdout.fileno(), 65536)))
                program.stdin.close()
                self.assertEqual(program.wait(60), 0)
        with tempfile.TemporaryFile() as file:  # in one piece where nobody waits
            file.write(b'{"text": "a"}\n' * 1000)
            file.seek(0)
            done = subprocess.run([PROGRAM, "tokenize", "--tokenizer", str(TINY_TOKENIZER)], stdin=file, capture_output=True, timeout=60)
            self.assertEqual((done.returncode, done.stdout.count(b"\n")), (0, 1000))

    def test_bad_lines_are_named(self):
        for line in ("", "{", "[]", "7", "{}", '{"text": 7}', '{"text": "a"} x'):
            done = self.refused("line 2: ", "tokenize", "--tokenizer", TINY_TOKENIZER, text='{"text": "a"}\n' + line + "\n")
            self.assertEqual(done.stdout.count("\n"), 1, line)
        for line in ('{"ids": 1}', '{"ids": [-1]}', '{"ids": [1.5]}', '{"ids": ["1"]}', '{"ids": [99999999999]}'):
            self.refused("line 1: ", "detokenize", "--tokenizer", TINY_TOKENIZER, text=line + "\n")
        for line in ('{"messages": 1}', '{"messages": [1]}', '{"messages": [{"role": "user"}]}',
                     '{"messages": [{"role": "<|end|>", "content": ""}]}', '{"messages": [], "add_generation_prompt": 1}'):
            self.refused("line 1: ", "render", "--tokenizer", TINY_TOKENIZER, text=line + "\n")


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
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PROGRAM = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main()
