#!/usr/bin/env python3
"""Checks chat as a person meets it, through a pseudo terminal: editing, pasting, history, Ctrl-C, what the terminal is left like.

    tests/cli/chat_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import os
import pathlib
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data"
TINY_TOKENIZER = DATA / "text" / "tiny_tokenizer.json"
BUNDLED = ROOT / "models" / "tiny-arithmetic"
PROGRAM = ""
SKIPPED = 77  # what CTest takes for "skipped"
SEQUENCES = rb"(\x1b\[[\d;?]*[a-zA-Z])*"
PROMPT = rb">" + SEQUENCES + rb" " + SEQUENCES + rb"$"


class Terminal:
    """The program at a terminal of its own."""

    def __init__(self, *arguments, state, kind="xterm", size=(24, 80), environment=(), shell=()):
        import fcntl
        import pty
        import termios

        self.master, self.slave = pty.openpty()  # the other end stays open here too: its modes can be looked at afterwards
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        variables = dict(os.environ, TERM=kind, XDG_STATE_HOME=str(state), LC_ALL="C.UTF-8", HOME=str(state))
        variables.update(environment)
        self.seen = b""
        self.all = b""
        self.child = subprocess.Popen([*shell, PROGRAM, "chat", *map(str, arguments)], stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                      env=variables, preexec_fn=self.take_terminal, close_fds=True)

    def take_terminal(self):
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def modes(self):
        import termios

        return termios.tcgetattr(self.slave)

    def echoes(self):
        import termios

        return bool(self.modes()[3] & termios.ECHO)

    def type(self, text):
        data = text.encode() if isinstance(text, str) else text
        while data:  # a terminal takes a few KiB at a time
            if select.select([], [self.master], [], 0.05)[1]:
                data = data[os.write(self.master, data[:512]):]
            self.read(0)

    def read(self, patience):
        if select.select([self.master], [], [], patience)[0]:
            some = os.read(self.master, 65536)
            self.seen += some
            self.all += some

    def wait_for(self, pattern, patience=30.0):
        """Drops everything up to the end of the match and returns it."""
        end = time.monotonic() + patience
        while not re.search(pattern, self.seen):
            if time.monotonic() > end or (self.child.poll() is not None and not select.select([self.master], [], [], 0)[0]):
                raise AssertionError(f"no {pattern!r} in {self.seen[-2000:]!r}")
            self.read(0.1)
        cut = re.search(pattern, self.seen).end()
        head, self.seen = self.seen[:cut], self.seen[cut:]
        return head

    def wait_until_taken(self):
        """Until the program has read what was typed, where that shows nothing."""
        import fcntl
        import termios

        end = time.monotonic() + 30
        while struct.unpack("i", fcntl.ioctl(self.slave, termios.FIONREAD, bytes(4)))[0] != 0:
            if time.monotonic() > end:
                raise AssertionError("what was typed is not read")
            time.sleep(0.01)
        time.sleep(0.1)

    def end(self):
        """Waits for the program's end and returns its exit code."""
        end = time.monotonic() + 60
        while self.child.poll() is None and time.monotonic() < end:
            self.read(0.1)
        self.read(0)
        return self.child.wait(timeout=1)

    def close(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self.master)
        os.close(self.slave)


def has_editor():
    with tempfile.TemporaryDirectory() as state:
        t = Terminal("--model", BUNDLED, state=state)
        try:
            return b"Alt-Enter" in t.wait_for(PROMPT)
        finally:
            t.close()


class ChatTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.state = pathlib.Path(folder.name) / "state"
        self.history = self.state / "phi4flash" / "chat_history"

    def open(self, *arguments, **more):
        t = Terminal("--model", BUNDLED, "--temperature", "0", *arguments, state=self.state, **more)
        self.addCleanup(t.close)
        self.greeting = t.wait_for(PROMPT)
        return t

    def model_that_never_ends(self):
        """A model with random weights whose answers have no end."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        folder = pathlib.Path(holder.name)
        config = json.loads((DATA / "golden" / "f32-8l" / "config.json").read_text())
        config.update(vocab_size=512, eos_token_id=511, bos_token_id=511, pad_token_id=511)
        (folder / "config.json").write_text(json.dumps(config))
        model = folder / "model"
        subprocess.run([PROGRAM, "synth", "--config", str(folder / "config.json"), "--output", str(model), "--tokenizer", str(TINY_TOKENIZER)],
                       check=True, capture_output=True)
        ends = {t["id"] for t in json.loads(TINY_TOKENIZER.read_text("utf-8"))["added_tokens"] if t["content"] in ("<|end|>", "<|endoftext|>")}
        with open(model / "model.safetensors", "r+b") as file:  # a row of zeros is a logit of 0: some other one is above that
            (length,) = struct.unpack("<Q", file.read(8))
            embedding = json.loads(file.read(length))["model.embed_tokens.weight"]
            row_bytes = 2 * embedding["shape"][1]
            for token in ends | {511}:
                file.seek(8 + length + embedding["data_offsets"][0] + token * row_bytes)
                file.write(bytes(row_bytes))
        return model

    def messages(self):
        return self.history.read_text("utf-8").splitlines()


class WithEditor(ChatTest):
    def setUp(self):
        super().setUp()
        if not EDITOR:
            self.skipTest("this build has no line editor")

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

    def test_history(self):
        t = self.open("--max-tokens", "2")
        t.type("first\\n\r")
        t.wait_for(PROMPT)
        t.type("/help\r")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.messages(), ["first\\\\n"])  # a backslash is a backslash; commands are not kept
        self.assertEqual(self.history.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.history.parent.stat().st_mode & 0o777, 0o700)

        t = self.open("--max-tokens", "2")
        t.type("\x1b[A second\r")
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.messages(), ["first\\\\n", "first\\\\n second"])

        t = self.open("--max-tokens", "2", "--no-history")
        t.type("third\r")
        t.wait_for(PROMPT)
        t.type("\x1b[A\x1b[A\x1b[A fourth\r")  # up to the oldest there is, which is of this chat
        t.wait_for(PROMPT)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(len(self.messages()), 2)

    def test_a_long_history_is_shortened(self):
        self.history.parent.mkdir(parents=True)
        self.history.write_text("".join(f"{i}\n" for i in range(2500)))
        t = self.open("--max-tokens", "2")
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.messages(), [str(i) for i in range(1500, 2500)])
        self.assertEqual(os.listdir(self.history.parent), [self.history.name])

    def test_a_history_that_is_shortened_stays_where_and_what_it_is(self):
        self.history.parent.mkdir(parents=True)
        far = self.state / "far"
        far.write_text("".join(f"{i}\n" for i in range(2500)))
        far.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(far, 1234, 2345)
        owner = far.stat().st_uid, far.stat().st_gid
        self.history.symlink_to("../far")
        t = self.open()
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(len(self.messages()), 1000)
        self.assertTrue(self.history.is_symlink())
        self.assertEqual(far.stat().st_mode & 0o777, 0o640)
        self.assertEqual((far.stat().st_uid, far.stat().st_gid), owner)
        self.assertEqual(sorted(os.listdir(self.state)), ["far", "phi4flash"])

    def test_history_that_cannot_be_kept_is_told_and_no_more(self):
        self.state.mkdir()
        (self.state / "phi4flash").write_text("a file where a folder is wanted")
        t = self.open("--max-tokens", "2")
        t.type("x\r")
        t.wait_for(rb"chat_history cannot be written")
        t.wait_for(PROMPT)
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
        return subprocess.run([PROGRAM, "chat", "--model", str(BUNDLED), "--temperature", "0", *arguments], input=text, capture_output=True,
                              encoding="utf-8", env=variables, timeout=600)

    def test_answers_alone_on_standard_output(self):
        done = self.chat("What is 1 + 1?\n/nonsense\n/reset\n/quit\n", "--max-tokens", "3")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"\A[^\n\[]+\n\n\Z")  # an empty line ends an answer
        self.assertIn("cut after 3 tokens", done.stderr)
        self.assertIn("no command /nonsense", done.stderr)
        self.assertFalse(self.history.exists())

    def test_the_bundled_model_and_its_answers(self):
        asked = "What is 347 + 285?\n\n/help\n/reset\nWhat is 204 - 619?\n/quit\nWhat is 1 + 1?\n"
        done = subprocess.run([PROGRAM, "chat", "--temperature", "0"], input=asked, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=600)
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
        done = subprocess.run([PROGRAM, "chat", "--model", str(BUNDLED)], input=b"1+1\n\xe9\n", capture_output=True, timeout=600)
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
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if os.name != "posix":
        sys.exit(SKIPPED)
    PROGRAM = str(pathlib.Path(sys.argv.pop(1)).resolve())
    EDITOR = has_editor()
    unittest.main()
