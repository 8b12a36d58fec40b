#!/usr/bin/env python3
"""Checks what the program says where somebody may not listen: full disks, readers that have gone, terminals of any width.

    tests/cli/standard_output_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time

import program_testing
from output_testing import OutputTest, make_device, start
from program_testing import BUNDLED, GOLDEN, TINY_TOKENIZER

NO_SPACE, BROKEN_PIPE, BAD_DESCRIPTOR = "No space left on device", "Broken pipe", "Bad file descriptor"
LINE = '{"text": "a", "ids": [1], "messages": []}\n'
GREEDY = ("--temperature", 0)


class StandardOutput(OutputTest):
    def commands(self):
        """Every command that writes to standard output, with what it reads there."""
        tokens = self.folder / "tokens"
        tokens.write_text("1,2,3,4\n")
        tokenizer = ("--tokenizer", TINY_TOKENIZER)
        ask = ("generate", "--model", BUNDLED, "--prompt", "1+1", *GREEDY)
        quick = ("--repetitions", 1, "--prompt-tokens", 2, "--generate-tokens", 2)
        quality = ("quality", "--reference", BUNDLED, "--model", BUNDLED, "--tokens", tokens)
        yield "", ("--help",)
        yield "", ("--version",)
        yield "", ("convert", "--help")
        yield "1+1\n", ("chat", "--model", BUNDLED)
        yield "/help\n/quit\n", ("chat", "--model", BUNDLED)
        yield "", ask
        yield "", (*ask, "--json")
        yield "", ("generate", "--model", GOLDEN / "f32-8l", "--tokens", "1,2", "--max-tokens", 3)
        yield "", ("info", "--model", BUNDLED)
        yield "", ("bench", "--model", BUNDLED, *quick)
        yield "", ("bench", "--model", BUNDLED, *quick, "--json")
        yield "", quality
        yield "", (*quality, "--json")
        yield LINE, ("tokenize", *tokenizer)
        yield LINE, ("detokenize", *tokenizer)
        yield LINE, ("render", *tokenizer)
        yield "", self.convert(self.folder / "x.gguf", "--force")

    def check(self, why, text, arguments, **how):
        running = start(*arguments, stdin=subprocess.PIPE, **how)
        _, errors = running.communicate(text, timeout=120)
        self.assertEqual(running.returncode, 1, (arguments, errors))
        self.assertEqual(errors, f"phi4flash: standard output cannot be written: {why}\n", arguments)

    def test_a_full_disk(self):
        full = make_device(self.folder / "full", 7)
        for text, arguments in self.commands():
            with open(full, "w") as out:
                self.check(NO_SPACE, text, arguments, stdout=out)

    def test_a_reader_that_has_gone(self):
        for text, arguments in self.commands():
            reader, writer = os.pipe()
            os.close(reader)
            self.check(BROKEN_PIPE, text, arguments, stdout=writer, restore_signals=False)  # SIGPIPE stays ignored, as in Python
            os.close(writer)

    def test_no_standard_output_at_all(self):
        for text, arguments in self.commands():
            self.check(BAD_DESCRIPTOR, text, arguments, preexec_fn=lambda: os.close(1))

    def test_what_is_meant_for_the_terminal_does_not_go_into_files(self):
        # The first files that are opened would get the numbers of the closed descriptors.
        want = self.plain()
        path = self.folder / "x.gguf"
        done = subprocess.run([program_testing.PROGRAM, *map(str, self.convert(path))], preexec_fn=lambda: os.closerange(0, 3), close_fds=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(path.read_bytes(), want)

    def test_nobody_reads_so_nothing_is_computed(self):
        endless = ("--ignore-eos", "--context", 1000000, "--max-tokens", 900000)
        for more in ((), ("--json",)):
            for ignored in (True, False):
                running = start("generate", "--model", BUNDLED, "--prompt", "1+1", *endless, *more, stdout=subprocess.PIPE,
                                restore_signals=not ignored)
                if not more:
                    running.stdout.read(10)
                running.stdout.close()
                errors = running.stderr.read()
                outcome = running.wait(timeout=60)  # hours otherwise
                running.stderr.close()
                if ignored or more:
                    self.assertEqual(outcome, 1)
                    self.assertIn(BROKEN_PIPE, errors)
                else:
                    self.assertEqual((outcome, errors), (-signal.SIGPIPE, ""))

    def test_a_pipe_that_does_not_block(self):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        lines = LINE * 20000
        running = start("tokenize", "--tokenizer", TINY_TOKENIZER, stdin=subprocess.PIPE, stdout=writer)
        os.close(writer)
        feed = threading.Thread(target=lambda: (running.stdin.write(lines), running.stdin.close()))
        feed.start()
        time.sleep(0.3)  # so that the pipe is full
        with open(reader) as out:
            self.assertEqual(out.read().count("\n"), 20000)
        feed.join()
        self.assertEqual((running.wait(timeout=60), running.stderr.read()), (0, ""))
        running.stderr.close()


class Progress(OutputTest):
    def on_a_terminal(self, columns, *arguments):
        """What the command says to a terminal so wide, as the lines that are drawn over each other."""
        master, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        running = subprocess.Popen([program_testing.PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=terminal)
        os.close(terminal)
        said = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # Linux: nobody holds the other end any more
                piece = b""
            if not piece:
                break
            said += piece
        os.close(master)
        self.assertEqual(running.wait(timeout=60), 0, said)
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", said.decode()) if line]

    def test_lines_fit_the_terminal(self):
        prompt = ",".join(["1"] * 2000)
        tokens = self.folder / "tokens"
        tokens.write_text(prompt)
        for columns in (80, 40, 20):
            for arguments in (
                ("synth", "--config", GOLDEN / "f32-8l" / "config.json", "--output", self.folder / "model", "--force"),
                self.convert(self.folder / "x.gguf", "--force"),
                ("logits", "--model", GOLDEN / "f32-8l", "--tokens", prompt, "--output", self.folder / "l"),
                ("quality", "--reference", GOLDEN / "f32-8l", "--model", GOLDEN / "f32-8l", "--tokens", tokens),
                ("generate", "--model", GOLDEN / "f32-8l", "--tokens", prompt, "--max-tokens", 1, "--context", 2001),
            ):
                lines = self.on_a_terminal(columns, *arguments)
                notes = [line for line in lines if line.startswith("phi4flash: note: ")]  # sentences, never drawn over
                self.assertEqual(len(notes), 1 if arguments[0] == "generate" else 0, notes)
                bars = [line for line in lines if line not in notes]
                self.assertTrue(bars, arguments)
                for line in bars:
                    self.assertLess(len(line.rstrip()), columns, line)
                    self.assertEqual("|" in line, columns == 80, line)


if __name__ == "__main__":
    program_testing.main(__doc__)
