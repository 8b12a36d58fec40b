#!/usr/bin/env python3
"""Checks tokenize, detokenize and render: JSON Lines in, JSON Lines out.

    tests/cli/text_tools_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import os
import select
import subprocess
import tempfile

import program_testing
from program_testing import DATA, TINY_TOKENIZER, ProgramTest


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
            with subprocess.Popen([program_testing.PROGRAM, command, "--tokenizer", str(TINY_TOKENIZER)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
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
            done = subprocess.run([program_testing.PROGRAM, "tokenize", "--tokenizer", str(TINY_TOKENIZER)],
                                  stdin=file, capture_output=True, timeout=60)
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


if __name__ == "__main__":
    program_testing.main(__doc__)
