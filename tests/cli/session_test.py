#!/usr/bin/env python3
"""Checks chats that are kept in files, and questions that are taken back: chat --session, /save, /undo, /retry.

    tests/cli/session_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time

import program_testing
from program_testing import BUNDLED, ProgramTest

QUIET = ("--no-history", "--threads", "1")
# Without drafts: how many a pass checks depends on time, and states after another number of tokens differ by rounding.
GREEDY = ("--temperature", "0", *QUIET, "--drafts", "off")
ONE, TWO, THREE = "What is 2 + 3?", "What is 12 + 30?", "What is 7 * 8?"


def said_in(path):
    """What a file says was said."""
    data = path.read_bytes()
    magic, version, _, length, _ = struct.unpack("<8sIIQQ", data[:32])
    assert magic == b"p4chat\r\n" and version in (1, 2)
    return json.loads(data[32 : 32 + length])


def questions(path):
    return [turn["question"] for turn in said_in(path)["turns"]]


class SessionTest(ProgramTest):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.file = self.folder / "talk.chat"

    def run_chat(self, *messages, session=None, more=(), choose=GREEDY, **how):
        file = ("--session", session or self.file) if session != "" else ()
        command = [program_testing.PROGRAM, "chat", "--model", BUNDLED, *choose, *file, *more]
        return subprocess.run([str(part) for part in command], input="".join(m + "\n" for m in messages), capture_output=True, encoding="utf-8",
                              timeout=600, cwd=self.folder, **how)

    def chat(self, *messages, **how):
        """The answers."""
        done = self.run_chat(*messages, **how)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.noted = done.stderr
        return done.stdout.split("\n\n")[:-1]

    def refuses(self, want, **how):
        before = self.file.read_bytes() if self.file.is_file() else None
        done = self.run_chat(ONE, **how)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(done.stdout, "")
        self.assertTrue(done.stderr.startswith("phi4flash: "), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn(want, done.stderr)
        if before is not None:
            self.assertEqual(self.file.read_bytes(), before)

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())

    def wait_for(self, condition):
        for _ in range(600):
            if condition():
                return
            time.sleep(0.1)
        self.fail("it did not happen within a minute")


class GoingOn(SessionTest):
    def test_where_it_stopped(self):
        whole = self.folder / "whole"
        answers = self.chat(ONE, TWO, THREE, session=whole)
        self.assertIn("\\boxed{42}", answers[1])
        parts = [self.chat(question)[0] for question in (ONE, TWO, THREE)]
        self.assertIn("goes on after 2 answers", self.noted)
        self.assertEqual(parts, answers)
        self.assertEqual(questions(self.file), [ONE, TWO, THREE])
        self.assertEqual(self.file.read_bytes(), whole.read_bytes())  # to the last bit of its state
        self.assertEqual(self.names(), ["talk.chat", "whole"])

    def test_a_system_message_stays(self):
        self.chat(ONE, more=("--system", "Be brief."))
        self.assertEqual(said_in(self.file)["system"], "Be brief.")
        self.chat(TWO)
        self.chat(THREE, more=("--system", "Be brief."))
        self.assertEqual((said_in(self.file)["system"], questions(self.file)), ("Be brief.", [ONE, TWO, THREE]))
        self.refuses("a system message of its own", more=("--system", "Be long."))

    def test_an_answer_that_was_cut_goes_on(self):
        whole = self.folder / "whole"
        answers = self.chat(TWO, ONE, session=whole, more=("--max-tokens", "4"))
        self.assertEqual([self.chat(q, more=("--max-tokens", "4"))[0] for q in (TWO, ONE)], answers)
        self.assertEqual(self.file.read_bytes(), whole.read_bytes())

    def test_a_context_of_another_size(self):
        self.chat(ONE, more=("--context", "200"))
        self.chat(TWO, more=("--context", "300"))
        self.assertEqual(questions(self.file), [ONE, TWO])
        self.refuses("a context of 20", more=("--context", "20"))

    def test_an_empty_file_is_a_new_one_and_links_are_followed(self):
        self.file.touch(0o640)
        link = self.folder / "link"
        link.symlink_to("talk.chat")
        self.chat(ONE, session=link)
        self.assertTrue(link.is_symlink())
        self.assertEqual(questions(self.file), [ONE])
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o640)

    def test_what_ends_the_program_ends_no_chat(self):
        command = [program_testing.PROGRAM, "chat", "--model", str(BUNDLED), *GREEDY, "--session", str(self.file)]
        for end in (signal.SIGKILL, signal.SIGTERM):
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            child.stdin.write((ONE + "\n").encode())
            child.stdin.flush()
            self.wait_for(lambda: self.file.exists() and self.file.stat().st_size != 0)
            child.send_signal(end)
            child.wait(timeout=60)
            child.stdin.close()
            child.stdout.close()
            self.assertEqual(self.names(), ["talk.chat"])
            self.assertEqual(questions(self.file), [ONE])
            self.chat(TWO)
            self.assertEqual(questions(self.file), [ONE, TWO])
            self.file.unlink()

    def test_reset_is_kept_too(self):
        self.chat(ONE, "/reset")
        self.assertEqual(questions(self.file), [])
        self.assertEqual(said_in(self.file)["tokens"], [])
        self.chat(TWO)
        self.assertEqual(questions(self.file), [TWO])


class TakingBack(SessionTest):
    def test_undo(self):
        whole = self.folder / "whole"
        want = self.chat(ONE, THREE, session=whole)
        for cache in ((), ("--prefix-cache", "0"), ("--prefix-cache", "4")):
            self.file.unlink(missing_ok=True)
            answers = self.chat(ONE, TWO, "/undo", THREE, more=cache)
            self.assertIn("[taken back: " + TWO + "]", self.noted)
            self.assertEqual([answers[0], answers[2]], want)
            self.assertEqual(said_in(self.file), said_in(whole))
            if not cache:
                self.assertEqual(self.file.read_bytes(), whole.read_bytes())

    def test_undo_to_the_beginning_and_beyond(self):
        want = self.chat(TWO, session=self.folder / "whole")
        answers = self.chat(ONE, TWO, "/undo", "/undo", "/undo", TWO)
        self.assertIn("nothing to take back", self.noted)
        self.assertEqual(answers[2], want[0])
        self.assertEqual(self.file.read_bytes(), (self.folder / "whole").read_bytes())

    def test_undo_and_retry_in_a_chat_that_goes_on(self):
        whole = self.folder / "whole"
        answers = self.chat(ONE, TWO, session=whole)
        self.chat(ONE, TWO)
        self.chat("/undo")
        self.assertEqual(questions(self.file), [ONE])
        self.assertEqual(self.chat(TWO)[0], answers[1])
        self.assertEqual(self.file.read_bytes(), whole.read_bytes())
        self.assertEqual(self.chat("/retry")[0], answers[1])
        self.assertEqual(said_in(self.file), said_in(whole))

    def test_after_a_restart_the_text_is_not_read_again(self):
        # Read again as a prompt, a text leaves other bits than it did when it was written token by token: where the file is the same to the last bit,
        # the states before the question have come from the file.
        whole = self.folder / "whole"
        answers = self.chat(ONE, TWO, session=whole)
        self.assertEqual(struct.unpack("<I", whole.read_bytes()[8:12]), (2,))
        for _ in range(2):
            shutil.copyfile(whole, self.file)
            self.assertEqual(self.chat("/retry", "/retry"), [answers[1]] * 2)
            self.assertEqual(self.file.read_bytes(), whole.read_bytes())
            self.assertEqual(self.chat("/undo", TWO)[0], answers[1])
            self.assertEqual(self.file.read_bytes(), whole.read_bytes())
        # Without a cache there are no such states: they are read over, and not written.
        self.assertEqual(self.chat("/retry", more=("--prefix-cache", "0")), [answers[1]])
        self.assertEqual(said_in(self.file), said_in(whole))
        self.assertEqual(struct.unpack("<I", self.file.read_bytes()[8:12]), (1,))
        self.assertEqual(self.chat("/retry"), [answers[1]])

    def test_retry(self):
        whole = self.folder / "whole"
        want = self.chat(ONE, TWO, session=whole)
        answers = self.chat(ONE, "/retry", "/retry", TWO, "/retry")
        self.assertEqual(answers, [want[0]] * 3 + [want[1]] * 2)
        self.assertEqual(self.file.read_bytes(), whole.read_bytes())
        self.assertEqual(self.chat("/retry", session=""), [])
        self.assertIn("no question to answer once more", self.noted)

    def test_retry_may_answer_otherwise(self):
        hot = dict(session="", choose=QUIET, more=("--temperature", "100", "--top-p", "1", "--seed", "1", "--max-tokens", "8"))
        answers = self.chat(ONE, "/retry", "/retry", **hot)
        self.assertGreater(len(set(answers)), 2)
        self.assertEqual(self.chat(ONE, "/retry", "/retry", **hot), answers)

    def test_what_does_not_fit_can_be_taken_back(self):
        self.chat(ONE, more=("--context", "30"))
        self.chat(TWO, "/undo", TWO, more=("--context", "30"))
        self.assertIn("does not fit", self.noted)
        self.assertEqual(questions(self.file), [TWO])


class Saving(SessionTest):
    def test_save(self):
        other = self.folder / "other file"
        self.chat(ONE, "/save " + str(other), TWO, "/save")
        self.assertEqual(questions(other), [ONE])
        self.assertEqual(questions(self.file), [ONE, TWO])
        self.assertEqual(self.noted.count("[kept in "), 2)
        self.chat(ONE, "/save", session="")
        self.assertIn("Where?", self.noted)
        self.chat(ONE, "/save /nowhere/at/all", session="")
        self.assertIn("Not kept: ", self.noted)

    def test_save_replaces_chats_alone(self):
        letter = self.folder / "letter"
        letter.write_text("Dear all,")
        self.chat(ONE, "/save letter", session="")
        self.assertIn("Not kept: letter: this is no saved chat", self.noted)
        self.assertEqual(letter.read_text(), "Dear all,")
        self.chat(ONE)
        self.chat(TWO, "/save talk.chat", session="")
        self.assertEqual(questions(self.file), [TWO])

    def test_a_full_disk(self):
        self.chat(ONE)
        before = self.file.read_bytes()

        def little_room():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

        done = self.run_chat(TWO, THREE, preexec_fn=little_room)
        self.assertEqual(done.returncode, 1)
        self.assertIn("\\boxed{42}", done.stdout)  # answers come all the same
        self.assertIn("this chat could not be kept", done.stderr)
        self.assertRegex(done.stderr.splitlines()[-1], "^phi4flash: .*cannot be written")
        self.assertEqual(self.file.read_bytes(), before)
        self.assertEqual(self.names(), ["talk.chat"])
        done = self.run_chat(TWO, session="new", preexec_fn=little_room)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(self.names(), ["talk.chat"])
        self.chat(TWO)
        self.assertEqual(questions(self.file), [ONE, TWO])

    def test_what_is_no_file(self):
        os.mkfifo(self.folder / "fifo")
        for path in (self.folder, self.folder / "fifo", "/dev/stdout", "/nowhere/at/all"):
            self.refuses("cannot be written", session=path)
        if os.geteuid() != 0:
            self.chat(ONE)
            self.file.chmod(0o400)
            self.refuses("cannot be written")


class TwoAtOnce(SessionTest):
    def setUp(self):
        super().setUp()
        self.children = []
        self.addCleanup(lambda: [(child.kill(), child.wait(), child.stdin.close(), child.stdout.close()) for child in self.children])

    def begin(self):
        command = [program_testing.PROGRAM, "chat", "--model", str(BUNDLED), *GREEDY, "--session", str(self.file)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        self.children.append(child)
        return child

    def say(self, child, message):
        """Until the answer has been kept."""
        before = self.file.stat()
        child.stdin.write(message + "\n")
        child.stdin.flush()
        self.wait_for(lambda: self.file.stat().st_ino != before.st_ino)

    def finish(self, child):
        child.stdin.close()
        done = child.wait(timeout=60)
        note = child.stderr.read()
        child.stdout.close()
        child.stderr.close()
        self.children.remove(child)
        return done, note

    def test_the_second_is_told(self):
        first = self.begin()
        self.wait_for(self.file.exists)
        self.refuses("another chat has this file")  # before there is anything in it
        self.say(first, ONE)
        self.refuses("talk.chat: another chat has this file: end that one first")
        self.say(first, TWO)  # and whatever replaced the file has the lock
        self.refuses("another chat has this file")
        link = self.folder / "link"
        link.symlink_to("talk.chat")
        self.refuses("another chat has this file", session=link)
        self.chat(THREE, "/save talk.chat", session="")
        self.assertIn("Not kept: talk.chat: another chat has this file", self.noted)
        self.assertEqual(self.finish(first), (0, ""))
        self.assertEqual(questions(self.file), [ONE, TWO])
        self.chat(THREE, "/save ./talk.chat")  # its own
        self.assertIn("[kept in ", self.noted)
        self.assertEqual(questions(self.file), [ONE, TWO, THREE])

    def test_a_program_that_was_killed_has_nothing(self):
        first = self.begin()
        self.wait_for(self.file.exists)
        self.say(first, ONE)
        first.kill()
        first.wait()
        self.chat(TWO)
        self.assertEqual(questions(self.file), [ONE, TWO])

    def test_what_others_have_written_stays(self):
        first = self.begin()
        self.wait_for(self.file.exists)
        self.say(first, ONE)
        theirs = self.folder / "theirs"
        self.chat(THREE, session=theirs)
        os.replace(theirs, self.file)
        written = self.file.read_bytes()
        first.stdin.write(TWO + "\n")
        done, note = self.finish(first)
        self.assertEqual(done, 1)
        self.assertIn("somebody else has changed this file", note)
        self.assertEqual(self.file.read_bytes(), written)

    def test_no_empty_file_remains(self):
        self.chat()
        self.chat("/help", "/undo")
        self.assertEqual(self.names(), [])
        self.file.touch()
        self.chat()
        self.assertEqual(self.names(), ["talk.chat"])


class Damage(SessionTest):
    def test_every_part_that_is_altered_or_missing(self):
        self.chat(ONE, TWO)
        whole = self.file.read_bytes()
        (text,) = struct.unpack("<Q", whole[16:24])
        (states,) = struct.unpack("<Q", whole[32 + text + 16 : 32 + text + 24])
        snapshot = 32 + text + states
        places = [*range(0, 32, 3), 40, 32 + text // 2, 32 + text - 2, *range(32 + text, 32 + text + 192, 13), snapshot - 9, snapshot - 1,
                  *range(snapshot, snapshot + 192, 13), (snapshot + len(whole)) // 2, len(whole) - 9, len(whole) - 1]
        for place in places:
            with self.subTest(altered=place):
                self.file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
                self.refuses("talk.chat: ")
        for length in (1, 7, 8, 31, 32, 100, 32 + text, 32 + text + 100, 32 + text + 192,
                       snapshot - 1, snapshot, snapshot + 100, snapshot + 192, len(whole) - 1):
            with self.subTest(length=length):
                self.file.write_bytes(whole[:length])
                self.refuses("talk.chat: ")
        self.file.write_bytes(whole + b"x")
        self.refuses("others behind them")
        self.file.write_bytes(whole[:8] + struct.pack("<I", 3) + whole[12:])
        self.refuses("a newer phi4flash")
        self.file.write_bytes(whole)
        self.chat(TWO)

    def test_files_of_others(self):
        self.file.write_text("Dear all, this is a letter and no chat at all.")
        self.refuses("this is no saved chat")
        shutil.copyfile(BUNDLED / "model.safetensors", self.file)
        self.refuses("this is no saved chat")

    def test_other_models(self):
        self.chat(ONE)
        self.refuses("K/V are of bf16: want f32", more=("--kv", "f32"))
        packed = self.folder / "packed.gguf"
        self.good("convert", "--model", BUNDLED, "--output", packed, "--type", "q8", "--threads", 1)
        command = [program_testing.PROGRAM, "chat", "--model", str(packed), *GREEDY, "--session", str(self.file)]
        done = subprocess.run(command, input=TWO + "\n", capture_output=True, encoding="utf-8", timeout=600)
        self.assertEqual(done.returncode, 1)
        self.assertIn("other weights", done.stderr)
        self.assertEqual(questions(self.file), [ONE])


class Reuse(ProgramTest):
    def test_bench(self):
        found = json.loads(self.good("bench", "--model", BUNDLED, "--reuse", 300, "-r", 2, "--threads", 1, "--json"))
        self.assertEqual((found["document_tokens"], found["question_tokens"]), (300, 64))
        for key in ("cold_seconds", "question_seconds", "cached_seconds", "restarted_seconds", "file_bytes"):
            self.assertGreater(found[key], 0, key)
        self.assertIn("from the prefix cache", self.good("bench", "--model", BUNDLED, "--reuse", 30, "-r", 1, "--threads", 1))


if __name__ == "__main__":
    program_testing.main(__doc__)
