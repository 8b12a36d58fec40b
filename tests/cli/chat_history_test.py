#!/usr/bin/env python3
"""Checks the history of chat: what it keeps for the next one, how much of it, and where it cannot.

    tests/cli/chat_history_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import os

import chat_testing
from chat_testing import PROMPT, WithEditor


class History(WithEditor):
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


if __name__ == "__main__":
    chat_testing.main(__doc__)
