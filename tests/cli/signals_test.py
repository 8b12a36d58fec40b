#!/usr/bin/env python3
"""Checks that a signal ends the program at once and leaves nothing half written.

    tests/cli/signals_test.py PATH_OF_PHI4FLASH [unittest arguments]
"""
import json
import os
import signal
import subprocess
import sys
import time
import unittest

import program_testing
from output_testing import OutputTest, start
from program_testing import BUNDLED, GOLDEN


@unittest.skipUnless(os.name == "posix", "needs signals")
class Signals(OutputTest):
    def interrupted(self, which, begun, *arguments):
        """Sends a signal once `begun()` says that writing has begun; the program must die of it."""
        running = start(*arguments, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not begun():
            self.assertIsNone(running.poll(), "ended too early")
            self.assertGreater(end, time.monotonic())
            time.sleep(0.01)
        running.send_signal(which)
        self.assertEqual(running.communicate(timeout=60)[1], "")
        self.assertEqual(running.returncode, -which)

    def large_config(self):
        config = json.loads((GOLDEN / "f32-8l" / "config.json").read_text())
        config.update(vocab_size=1 << 20)
        path = self.folder / "config.json"
        path.write_text(json.dumps(config))
        return path

    def test_half_a_checkpoint_is_removed(self):
        config = self.large_config()
        for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            out = self.folder / "up" / "out"
            make = ("synth", "--config", config, "--output", out, "--shard-size", "1MB", "--threads", 1)
            self.interrupted(which, out.exists, *make)
            self.assertEqual(self.names(), ["config.json"])

    def test_two_signals_end_the_program_at_once(self):
        config = self.large_config()
        for which in ((signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT), (signal.SIGHUP, signal.SIGINT)):
            out = self.folder / (which[0].name + which[1].name)
            running = start("synth", "--config", config, "--output", out, "--threads", 1, stdout=subprocess.DEVNULL)
            end = time.monotonic() + 60
            while not out.exists():
                self.assertGreater(end, time.monotonic())
                time.sleep(0.01)
            for number in (signal.SIGSTOP, *which, signal.SIGCONT):  # stopped, so that both have come before it can tidy up
                running.send_signal(number)
            self.assertEqual(running.communicate(timeout=60)[1], "")
            self.assertIn(running.returncode, [-number for number in which])
            self.assertTrue(out.exists())  # at once: one signal lets it remove the folder, see above

    def test_a_file_that_was_there_stays(self):
        config = self.large_config()
        out = self.folder / "out"
        out.mkdir()
        old = out / "model.safetensors"
        old.write_text("old")
        for which in (signal.SIGINT, signal.SIGKILL):
            def begun(when=time.monotonic() + 0.05):
                return time.monotonic() > when
            self.interrupted(which, begun, "synth", "--config", config, "--output", out, "--threads", 1, "--force", "--dtype", "f32")
            self.assertEqual(old.read_text(), "old")
            if which == signal.SIGINT or sys.platform == "linux":
                self.assertEqual(self.names(out), ["model.safetensors"])

    def test_ignored_signals_stay_ignored(self):
        tokens = ",".join(["1"] * 3000)
        path = self.folder / "l"
        running = start("logits", "--model", BUNDLED, "--tokens", tokens, "--output", path,
                        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        time.sleep(0.3)
        running.send_signal(signal.SIGHUP)
        self.assertEqual(running.communicate(timeout=60)[1], "")
        self.assertEqual(running.returncode, 0)
        self.assertTrue(path.exists())


if __name__ == "__main__":
    program_testing.main(__doc__)
