#!/usr/bin/env python3
"""Checks chat through pipes and on a terminal without an editor: answers alone on standard output, what is not sent, system messages.

    tests/cli/chat_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import os
import re
import subprocess
import tempfile

import chat_testing
import program_testing
from chat_testing import PROMPT, ChatTest, Terminal
from program_testing import BUNDLED, ROOT


class PlainTerminal(ChatTest):
    def test_a_dumb_terminal(self):
        t = self.open(kind="dumb")
        t.type("What is 347 + 285?\n")
        t.wait_for(rb"\\boxed\{632\}")
        t.wait_for(PROMPT)
        self.assertNotIn(b"\x1b", t.all)
        self.assertTrue(t.echoes())
        t.type("\x03")
        t.wait_for(rb"Ctrl-C again ends")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(t.modes(), t.before)

    def test_a_message_that_is_no_utf8_is_not_sent(self):
        t = self.open("--max-tokens", "2", kind="dumb")
        t.type(b"caf\xe9\n")
        t.wait_for(rb"Not sent: message 1, line 1: want UTF-8, have the byte 0xE9")
        t.wait_for(PROMPT)
        t.type("1+1\n")
        t.wait_for(rb"\[2 tokens")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)

    def test_a_line_that_the_terminal_cut_is_not_sent(self):
        t = self.open("--max-tokens", "2", kind="dumb")
        t.type("y" * 6000 + "\n")
        t.wait_for(rb"Not sent")
        t.wait_for(PROMPT)
        t.type("1+1\n")
        t.wait_for(rb"\[2 tokens")
        t.type("\x04")
        self.assertEqual(t.end(), 0)

    def test_keys_typed_during_an_answer_wait(self):
        model = self.model_that_never_ends()
        t = Terminal("--model", model, "--temperature", "0", "--context", "4000000", "--max-tokens", "4000000", state=self.state, kind="dumb")
        self.addCleanup(t.close)
        t.wait_for(PROMPT)
        t.type("x\n")
        t.wait_for(rb"(?s)x\r\n.{50}")
        self.assertFalse(t.echoes())
        t.type("QQQQ\n")
        t.type("\x03")
        said = t.wait_for(rb"stopped\]")
        self.assertNotIn(b"QQQQ", said)
        t.wait_for(rb"(?s)> QQQQ\r\n.{50}")
        t.type("\x03")
        t.wait_for(rb"stopped\]")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)


class Pipes(ChatTest):
    def chat(self, text, *arguments):
        variables = dict(os.environ, XDG_STATE_HOME=str(self.state))
        return subprocess.run([program_testing.PROGRAM, "chat", "--model", str(BUNDLED), "--temperature", "0", *arguments], input=text,
                              capture_output=True, encoding="utf-8", env=variables, timeout=600)

    def test_answers_alone_on_standard_output(self):
        done = self.chat("What is 1 + 1?\n/nonsense\n/reset\n/quit\n", "--max-tokens", "3")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"\A[^\n\[]+\n\n\Z")  # an empty line ends an answer
        self.assertIn("cut after 3 tokens", done.stderr)
        self.assertIn("no command /nonsense", done.stderr)
        self.assertFalse(self.history.exists())

    def test_the_bundled_model_and_its_answers(self):
        asked = "What is 347 + 285?\n\n/help\n/reset\nWhat is 204 - 619?\n/quit\nWhat is 1 + 1?\n"
        done = subprocess.run([program_testing.PROGRAM, "chat", "--temperature", "0"], input=asked, capture_output=True,
                              encoding="utf-8", cwd=ROOT, timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(re.findall(r"\\boxed\{(-?\d+)\}", done.stdout), ["632", "-415"])
        self.assertNotIn("\033", done.stdout + done.stderr)
        self.assertNotIn("> ", done.stdout + done.stderr)

    def test_a_full_context_is_no_error(self):
        done = self.chat("What is 347 + 285?\nWhat is 1 + 1?\n/reset\n1+1\n", "--context", "40")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count("/reset begins anew"), 2)
        self.assertIn("\\boxed{2}", done.stdout)

    def test_text_that_is_no_utf8(self):
        done = subprocess.run([program_testing.PROGRAM, "chat", "--model", str(BUNDLED)], input=b"1+1\n\xe9\n", capture_output=True, timeout=600)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"message 2, line 1: want UTF-8, have the byte 0xE9", done.stderr)

    def test_a_line_of_any_length(self):
        done = self.chat("1" * 100000 + "\n", "--context", "64")
        self.assertEqual(done.returncode, 0)
        self.assertIn("does not fit", done.stderr)

    def test_system_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("You are brief.\n")
            file.flush()
            said = self.chat("What is 1 + 1?\n", "--system", "You are brief.")
            self.assertEqual(self.chat("What is 1 + 1?\n", "--system-file", file.name).stdout, said.stdout)


if __name__ == "__main__":
    chat_testing.main(__doc__)
