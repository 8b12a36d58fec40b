#!/usr/bin/env python3
"""Checks chat as a person meets it, through a pseudo terminal: editing, pasting, Ctrl-C, what the terminal is left like.

    tests/cli/chat_editor_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import re
import shutil
import signal
import time

import chat_testing
from chat_testing import PROMPT, Terminal, WithEditor
from program_testing import BUNDLED


class Editor(WithEditor):
    def test_first_sight(self):
        t = self.open()
        greeting = re.sub(rb"\x1b\[[\d;?]*[a-zA-Z]", b"", self.greeting).decode()
        self.assertIn("tiny-arithmetic: ", greeting)
        self.assertIn("/help", greeting)
        for line in greeting.splitlines():
            self.assertLessEqual(len(line), 80)
        t.type("What is 347 + 285?\r")
        t.wait_for(rb"\\boxed\{632\}")
        t.wait_for(rb"tokens/s[^\n]*\]")
        t.wait_for(PROMPT)
        t.type("/quit\r")
        self.assertEqual(t.end(), 0)
        self.assertEqual(t.modes(), t.before)
        self.assertEqual(t.all.count(b"\x1b[?2004h"), t.all.count(b"\x1b[?2004l"))

    def test_editing(self):
        t = self.open("--max-tokens", "2")
        t.type("2+3\x1b[D\x1b[D\x7f1\r")  # left, left, backspace over the 2
        t.wait_for(PROMPT)
        t.type("日本語\x7f\x7f文\x01é\x05!\r")  # wide characters; Ctrl-A, Ctrl-E
        t.wait_for(PROMPT)
        t.type("\x1b[A\x1b[A!\r")  # up, up
        t.wait_for(PROMPT)
        t.type("one\x1b\rtwo\r")  # Alt-Enter
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.messages(), ["1+3", "é日文!", "1+3!", "one\\ntwo"])

    def test_wide_characters_take_two_columns(self):
        t = self.open("--max-tokens", "2")
        t.type("日本\x1b[D")
        t.wait_for("日本".encode())
        time.sleep(0.3)
        t.read(0.3)
        # From behind two wide characters to behind the first one: two columns back.
        self.assertRegex(t.seen, rb"^(\x08\x08|\x1b\[2D|\x1b\[D\x1b\[D)$")

    def test_a_paste_is_one_message(self):
        text = "\r".join(f"line {i:03} " + "x" * 60 for i in range(100))
        self.assertGreater(len(text), 6000)
        t = self.open("--max-tokens", "2")
        t.type("\x1b[200~" + text + "\x1b[201~")
        t.type("!\r")
        t.wait_for(rb"\[2 tokens|does not fit")
        t.wait_for(PROMPT)
        t.type("\x1b[200~a\r\nb\r\x1b[201~\r")  # Windows' line ends; the last one is none
        t.wait_for(rb"\[2 tokens|does not fit")
        t.wait_for(PROMPT)
        t.type("\x1b[A\x1b[A\r")  # and comes back whole
        t.wait_for(rb"\[2 tokens|does not fit")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        whole = text.replace("\r", "\\n") + "!"
        self.assertEqual(self.messages(), [whole, "a\\nb", whole])

    def test_a_paste_that_is_no_utf8_ends(self):
        t = self.open("--max-tokens", "2")
        t.type(b"\x1b[200~caf\xe9\x1b[201~\r")  # Latin-1: the next byte is the Escape of the paste's end
        t.wait_for(rb"\[2 tokens")
        t.wait_for(PROMPT)
        t.type(b"\xe9x\xf0\x9f\xc3\xa9\r")
        t.wait_for(rb"\[2 tokens")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.messages(), ["caf\ufffd", "\ufffdx\ufffdé"])

    def test_ctrl_c_looks_at_this_line_alone(self):
        again = b"Ctrl-C again ends"
        t = self.open()
        for begins, shown, empty in (("\x1b[200~", None, True), ("words", rb"words", False), ("\x12", rb"bck", True),
                                     ("\x1b[200~pasted", None, False), ("\x1b[200~", None, True), ("a\x1b[200~", None, False)):
            t.type(begins)
            t.wait_for(shown) if shown else t.wait_until_taken()
            t.type("\x03")
            t.wait_for(rb"\^C")  # a search draws the prompt too
            self.assertEqual(again in t.wait_for(PROMPT), empty, begins)
            t.type("x")  # or the next Ctrl-C would be the second
            t.wait_for(rb"x")
            t.type("\x03")
            self.assertNotIn(again, t.wait_for(rb"\^C[^>]*" + PROMPT))
        t.type("\x04")
        self.assertEqual(t.end(), 0)

    def test_a_greeting_shows_no_control_characters(self):
        folder = self.state.parent / "a\x1b[31m model"
        folder.symlink_to(BUNDLED)
        copy = folder.parent / "b\x1b[31m\nmodel"
        shutil.copytree(BUNDLED, copy)
        for path, name in ((folder, b"tiny-arithmetic"), (copy, b"b?[31m?model")):
            t = Terminal("--model", path, state=self.state)
            self.addCleanup(t.close)
            self.assertIn(name, t.wait_for(PROMPT))
            t.type("\x04")
            self.assertEqual(t.end(), 0)
            self.assertNotIn(b"\x1b[31m", t.all)

    def test_a_model_in_a_folder_too_deep_for_its_path(self):
        folder = str(self.state.parent)
        down = 'cd "$0"; for i in ' + " ".join(str(i) for i in range(20)) + f'; do mkdir ${{i}}{"n" * 240}; cd -P ${{i}}{"n" * 240}; done; '
        t = Terminal("--model", "model", state=self.state, shell=("sh", "-c", down + f'ln -s "{BUNDLED}" model; exec "$@"', folder))
        self.addCleanup(t.close)
        self.assertIn(b"model", t.wait_for(PROMPT))
        t.type("\x04")
        self.assertEqual(t.end(), 0)

    def test_ctrl_c_empties_the_line(self):
        t = self.open("--max-tokens", "2")
        t.type("some words")
        t.wait_for(rb"words")
        t.type("\x03")
        t.wait_for(PROMPT)
        t.type("x\r")
        t.wait_for(rb"\[2 tokens")
        t.wait_for(PROMPT)
        t.type("\x03")
        t.wait_for(rb"Ctrl-C again ends")
        t.wait_for(PROMPT)
        t.type("\x03")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.messages(), ["x"])
        self.assertEqual(t.modes(), t.before)

    def test_unknown_commands_are_not_sent(self):
        t = self.open("--max-tokens", "2")
        t.type("/rest\r")
        t.wait_for(rb"no command /rest")
        said = t.wait_for(PROMPT)
        for name in (b"/help", b"/reset", b"/quit"):
            self.assertIn(name, said)
        self.assertNotIn(b"tokens]", said)
        for question in ("/usr/bin is what?", " /rest"):
            t.type(question + "\r")
            t.wait_for(rb"\[2 tokens")
            t.wait_for(PROMPT)
        t.type("/bye\r")
        self.assertEqual(t.end(), 0)

    def test_keys_typed_during_an_answer_wait(self):
        model = self.model_that_never_ends()
        t = Terminal("--model", model, "--temperature", "0", "--context", "4000000", "--max-tokens", "4000000", state=self.state)
        self.addCleanup(t.close)
        t.wait_for(PROMPT)
        t.type("x\r")
        t.wait_for(rb"(?s)x\r\n.{50}")  # in the middle of an answer
        self.assertFalse(t.echoes())
        long = "Q" * 6000  # more than a terminal holds back
        t.type("\x1b[200~" + long + "\nQQ\x1b[201~")
        t.type("\x03")
        said = t.wait_for(rb"stopped\]")
        self.assertNotIn(b"QQQQQQQQQQ", said)
        t.wait_for(rb"(?s)QQQQQQQQQQ.*Q")  # at the prompt
        t.type("\r")
        t.wait_for(rb"(?s).{50}")
        time.sleep(0.5)
        t.type("\x03")
        t.wait_for(rb"stopped\]")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.messages(), ["x", long + "\\nQQ"])

    def test_a_cancelled_prompt_is_dropped(self):
        model = self.model_that_never_ends()
        t = Terminal("--model", model, "--temperature", "0", "--context", "4000000", "--max-tokens", "3", state=self.state)
        self.addCleanup(t.close)
        t.wait_for(PROMPT)
        t.type("\x1b[200~" + "1 2 3 4 5 6 7 8 9 " * 3000 + "\x1b[201~\r")
        t.wait_for(rb"reading \d+ of \d+ tokens")
        t.type("\x03")
        t.wait_for(rb"dropped")
        t.wait_for(PROMPT)
        t.type("x\r")
        said = t.wait_for(rb"\[3 tokens")
        self.assertNotIn(b"reading", said)  # a few tokens, and not the rest of the other message
        t.type("\x04")
        self.assertEqual(t.end(), 0)

    def test_signals_give_the_terminal_back(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            t = self.open()
            self.assertFalse(t.echoes())
            t.child.send_signal(number)
            self.assertEqual(t.end(), -number)
            self.assertEqual(t.modes(), t.before)
            self.assertEqual(t.all.count(b"\x1b[?2004h"), t.all.count(b"\x1b[?2004l"))

    def test_ctrl_z(self):
        """A shell with job control gets its terminal back, and the chat goes on where it was."""
        t = self.open("--max-tokens", "2", shell=("sh", "-c", 'set -m; "$0" "$@"; stty -a; fg'))
        t.type("ab")
        t.wait_for(rb"ab")
        t.type("\x1a")
        said = t.wait_for(rb"[ -]echo ")
        self.assertTrue(said.endswith(b" echo "), said)
        self.assertIn(b"\x1b[?2004l", said)
        t.wait_for(rb"\x1b\[\?2004h")
        t.wait_for(rb">[^\n]*ab")
        t.type("c\r")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.messages(), ["abc"])

    def test_without_a_locale(self):
        t = self.open("--max-tokens", "2", environment={"LC_ALL": "C", "LANG": ""})
        t.type("é日\x7f\r")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.messages(), ["é"])


if __name__ == "__main__":
    chat_testing.main(__doc__)
