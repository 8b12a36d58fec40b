#!/usr/bin/env python3
"""Asks the model from Python and checks what comes.  usage: check.py [MODEL]   (PHI4FLASH_C_LIBRARY: the library)"""

import ctypes
import sys
import threading
import time

import phi4flash

path = sys.argv[1] if len(sys.argv) > 1 else "models/tiny-arithmetic"


def expect(ok, what):
    if not ok:
        sys.exit(f"failed: {what}")


def long_call(library):
    """How often another Python thread runs during one call that reads a prompt of some thousand tokens, and the seconds of the call."""
    ticks, ready, done = 0, threading.Event(), False

    def tick():
        nonlocal ticks
        ready.set()
        while not done:
            time.sleep(0.001)
            ticks += 1

    with phi4flash.Model(path, threads=1, library=library) as model:
        ids = model.prompt_of("1+1 " * 2000)
        session = model.session(len(ids))
        other = threading.Thread(target=tick)
        other.start()
        ready.wait()
        before, begin = ticks, time.monotonic()
        model.read(session, ids)
        during, seconds = ticks - before, time.monotonic() - begin
        done = True
        other.join()
        session.close()
    return during, seconds


library = phi4flash.Library()
print("phi4flash", library.version)
with phi4flash.Model(path, library=library) as model:
    # Tokens as an iterator.
    pieces = []
    for piece in model.ask("What is 347 + 285?"):
        print(piece, end="", flush=True)
        pieces.append(piece)
    print()
    expect("boxed{632}" in "".join(pieces), "the answer 632")
    expect(len(pieces) > 5, f"a text in pieces, have {len(pieces)}")

    # A loop that is left ends its text: the model is free for the next one.
    for piece in model.ask("What is 12 + 30?"):
        break
    expect("boxed{42}" in "".join(model.ask("What is 12 + 30?", milliseconds=1)), "the answer 42")
    expect("boxed{1000}" in "".join(model.ask("What is 999 + 1?", temperature=0.1, top_k=1)), "the answer 1000")
    expect(len("".join(model.ask("What is 12 + 30?", max_tokens=2))) < 20, "two tokens")

    expect("boxed{42}" in "".join(model.ask("What is 12 + 30?", milliseconds=0)), "the answer 42 without time")

    # A text with a NUL is whole.
    words = ctypes.create_string_buffer(b"ab\0cd")
    expect(phi4flash.Event(text=ctypes.addressof(words), text_length=5).said() == "ab\0cd", "a text with a NUL")

    # Ctrl-C that comes while a handle is destroyed does not destroy it twice.
    class Interrupted(phi4flash._Handle):
        def __init__(self):
            self._as_parameter_, self.destroyed = phi4flash.pointer(1), []

        def _destroy(self, handle):
            self.destroyed.append(handle.value)
            if len(self.destroyed) == 1:
                raise KeyboardInterrupt

    handle = Interrupted()
    try:
        handle.close()
    except KeyboardInterrupt:
        handle.close()
    expect(handle.destroyed == [1, None], f"destroyed once, have {handle.destroyed}")

    # Threads of Python's, each with a workspace of its own, over the same weights.
    texts = {}
    sums = {(a, b): a + b for a, b in ((347, 285), (12, 30), (999, 1))}
    threads = [threading.Thread(target=lambda a, b, m: texts.update({(a, b): "".join(m.ask(f"What is {a} + {b}?"))}), args=(a, b, model.share()))
               for a, b in sums]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # One that is closed leaves the others what they share.
    with model.share() as other:
        next(other.ask("What is 12 + 30?"))
    expect("boxed{42}" in "".join(model.ask("What is 12 + 30?")), "the answer 42 after another Model was closed")
    for (a, b), total in sums.items():
        expect(f"boxed{{{total}}}" in texts[a, b], f"{a} + {b} in a thread")

# Errors are exceptions with the library's sentence.
try:
    phi4flash.Model("no/such/model")
    expect(False, "no such model")
except phi4flash.Error as error:
    expect(error.code == 100 and "no/such/model" in str(error), f"a sentence about the file, have {error}")

# The GIL is given up: another thread runs during one long call. PyDLL keeps the GIL, which shows that this can fail.
released, seconds = long_call(phi4flash.Library())
held, _ = long_call(phi4flash.Library(loader=ctypes.PyDLL))
print(f"ticks of another thread during one call of {seconds:.1f} s: {released}; with the GIL kept: {held}")
expect(released > 10 * max(held, 1), "another thread during a call")
print("python: all well")
