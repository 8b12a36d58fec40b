#!/usr/bin/env python3
"""Checks where generate takes its prompt from, what it says of a text that was cut, and that every --help fits 80 columns.

    tests/cli/input_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUNDLED = ROOT / "models" / "tiny-arithmetic"
GOLDEN = ROOT / "tests" / "data" / "golden" / "f32-8l"
COMMANDS = "chat generate tokenize detokenize render logits info synth bench convert quality".split()
PROGRAM = ""


def run(*arguments, stdin=None):
    """`stdin`: bytes for a pipe; without them nothing is there."""
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, timeout=600, **given)


class Prompt(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def file(self, content):
        path = self.folder / "prompt.txt"
        path.write_bytes(content)
        return path

    def said(self, *arguments, **more):
        done = run("generate", "--model", BUNDLED, "--temperature", 0, "--json", "-n", 4, *arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, b"")  # --json says why a text ended, so nobody else does
        return json.loads(done.stdout)

    def refused(self, want, *arguments, **more):
        done = run("generate", "--model", BUNDLED, *arguments, **more)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
        self.assertIn(want, done.stderr.decode())

    def test_every_way_is_the_same_prompt(self):
        question = "What is 347 + 285?"
        asked = self.said("--prompt", question)
        for content in (question, question + "\n", question + "\r\n", "\ufeff" + question + "\n"):
            self.assertEqual(self.said("--prompt-file", self.file(content.encode())), asked, content)
            self.assertEqual(self.said("--prompt-file", "-", stdin=content.encode()), asked)
            self.assertEqual(self.said(stdin=content.encode()), asked)

    def test_one_line_end_is_dropped_and_no_more(self):
        for raw in ((), ("--raw",)):
            tokens = [self.said("--prompt-file", self.file(b"1+1" + b"\n" * n), *raw)["prompt_tokens"] for n in range(4)]
            self.assertEqual(tokens[0], tokens[1], raw)
            self.assertLess(tokens[1], tokens[2], raw)
            self.assertEqual(self.said("--prompt", "1+1\n", *raw)["prompt_tokens"], tokens[2])

    def test_redirection(self):
        with open(self.file(b"1+1\n"), "rb") as file:
            done = subprocess.run([PROGRAM, "generate", "--model", str(BUNDLED), "--json", "--temperature", "0", "-n", "4"], stdin=file,
                                  capture_output=True, timeout=600)
        self.assertEqual(json.loads(done.stdout), self.said("--prompt", "1+1"))

    def test_more_than_a_command_line_holds(self):
        text = b"1+1=2\n" * 23000  # 138,000 bytes
        self.assertRaises(OSError, run, "generate", "--prompt", text.decode())
        asked = ("generate", "--model", BUNDLED, "--context", 64)
        done = run(*asked, "--prompt-file", self.file(text))
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"more do not fit", done.stderr)  # all of it was read: the context is what is too small
        self.assertEqual(run(*asked, stdin=text).stderr, done.stderr)

    def test_what_is_refused(self):
        self.refused("which prompt? Say --prompt TEXT, --prompt-file FILE or --tokens 1,2,3")
        self.refused("--prompt", "--prompt", "x", "--prompt-file", "y")
        self.refused("absent: cannot be opened: No such file", "--prompt-file", self.folder / "absent")
        self.refused("want a text file, have a folder", "--prompt-file", self.folder)
        self.refused("want a text, have nothing", "--prompt-file", self.file(b"\n"))
        self.refused("standard input: want a text, have nothing", stdin=b"")
        self.refused("prompt.txt, line 2: want UTF-8, have the byte 0xE9", "--prompt-file", self.file(b"a\ncaf\xe9\n"))
        self.refused("UTF-16", "--prompt-file", self.file("1+1\n".encode("utf-16")))
        self.refused("standard input, line 1: want UTF-8", stdin=b"\xff")
        not_utf8 = b"caf\xe9".decode("utf-8", "surrogateescape")
        self.refused("--prompt, line 1: want UTF-8, have the byte 0xE9", "--prompt", not_utf8)
        self.refused("--stop, line 1: want UTF-8, have the byte 0xE9", "--prompt", "x", "--stop", not_utf8)
        if os.path.exists("/dev/zero"):
            self.refused("want at most 256 MiB", "--prompt-file", "/dev/zero")


class Tokenize(unittest.TestCase):
    def test_a_text_file(self):
        line = json.dumps({"text": "What is\n2+2?<|end|>"}).encode()
        want = run("tokenize", "--tokenizer", BUNDLED, stdin=line).stdout
        self.assertEqual(want.count(b"\n"), 1)
        with tempfile.NamedTemporaryFile(suffix=".txt") as file:
            file.write(b"What is\n2+2?<|end|>\n")
            file.flush()
            self.assertEqual(run("tokenize", "--tokenizer", BUNDLED, "--text-file", file.name).stdout, want)
        self.assertEqual(run("tokenize", "--tokenizer", BUNDLED, "--text-file", "-", stdin=b"What is\n2+2?<|end|>").stdout, want)
        done = run("tokenize", "--tokenizer", BUNDLED, "--text-file", "-", stdin=b"\xff")
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"want UTF-8", done.stderr)


class LongPrompts(unittest.TestCase):
    def test_a_prompt_longer_than_the_model_is_refused_unless_asked_for(self):
        text = "1234 5678 " * 420  # some 4,200 tokens; the bundled model was made for 4,096
        ask = [PROGRAM, "generate", "--model", BUNDLED, "--prompt-file", "-", "-n", "20", "--ignore-eos"]
        run = subprocess.run([str(a) for a in ask], input=text, capture_output=True, text=True, check=False, timeout=120)
        self.assertEqual((run.returncode, run.stdout), (1, ""))
        self.assertRegex(run.stderr, "made for 4096 .*--context")
        run = subprocess.run([*map(str, ask), "--context", "6000", "--json"], input=text, capture_output=True, text=True, check=False, timeout=120)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(len(json.loads(run.stdout)["tokens"]), 20)


class CutTexts(unittest.TestCase):
    def generate(self, *arguments):
        done = run("generate", "--model", BUNDLED, "--temperature", 0, "--prompt", "What is 347 + 285?", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def test_a_cut_is_told_on_standard_error(self):
        whole = self.generate()
        self.assertEqual(whole.stderr, b"")
        cut = self.generate("-n", 3)
        self.assertEqual(cut.stderr, b"phi4flash: note: cut after 3 tokens: --max-tokens (-n) allows more\n")
        self.assertTrue(whole.stdout.startswith(cut.stdout[:-1]) and len(cut.stdout) < len(whole.stdout))
        one = self.generate("-n", 1)
        self.assertIn(b"cut after 1 token:", one.stderr)
        full = self.generate("--context", 20)
        self.assertEqual(full.stderr, b"phi4flash: note: cut because the context of 20 tokens is full: --context makes more room\n")
        self.assertEqual(self.generate("--stop", "boxed").stderr, b"")

    def test_ids_too(self):
        done = run("generate", "--model", GOLDEN, "--tokens", "1,2", "--ignore-eos", "-n", 2)
        self.assertIn(b"cut after 2 tokens", done.stderr)
        self.assertEqual(done.stdout.count(b"\n"), 1)


class Help(unittest.TestCase):
    def test_80_columns(self):
        for command in ((), *((name,) for name in COMMANDS)):
            done = run(*command, "--help")
            self.assertEqual(done.returncode, 0)
            for line in done.stdout.decode().splitlines():
                self.assertLessEqual(len(line), 80, line)
                self.assertEqual(line, line.rstrip(), command)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PROGRAM = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main()
