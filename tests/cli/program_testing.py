"""What the tests of the program share: where it and its models are, and how it is called."""
import array
import json
import pathlib
import struct
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data"
GOLDEN = DATA / "golden"
TINY_TOKENIZER = DATA / "text" / "tiny_tokenizer.json"
BUNDLED = ROOT / "models" / "tiny-arithmetic"
PROGRAM = ""


def run(*arguments, text=None, folder=None):
    command = [PROGRAM, *map(str, arguments)]
    given = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
    return subprocess.run(command, **given, capture_output=True, encoding="utf-8", cwd=folder, timeout=600)


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        values = array.array({"F32": "f", "I64": "q"}[entry["dtype"]])
        values.frombytes(data[8 + length + begin : 8 + length + end])
        tensors[name] = (entry["shape"], list(values))
    return tensors


def golden_prompts(folder):
    tensors = read_safetensors(folder / "golden.safetensors")
    for j in range(100):
        if f"{j}.tokens" not in tensors:
            return
        yield {key: tensors[f"{j}.{key}"][1] for key in ("tokens", "logits", "greedy")}


def ids(numbers):
    return ",".join(map(str, numbers))


def targets():
    """The SIMD targets that the program can use here, as its own error sentence lists them."""
    refused = run("generate", "--model", GOLDEN / "f32-8l", "--tokens", "1", "--target", "none such")
    return refused.stderr.split("want one of", 1)[1].split()


class ProgramTest(unittest.TestCase):
    def good(self, *arguments, **more):
        done = run(*arguments, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refused(self, want, *arguments, **more):
        done = run(*arguments, **more)
        self.assertEqual(done.returncode, 1, arguments)
        self.assertTrue(done.stderr.startswith("phi4flash: "), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn(want, done.stderr)
        return done

    def generate(self, model, *arguments):
        """Without drafts unless they are asked for: how many there are depends on time."""
        if "--drafts" not in arguments:
            arguments += ("--drafts", "off")
        return json.loads(self.good("generate", "--model", model, "--json", *arguments))


def main(usage):
    """The tests of the file that was started; its first argument is the program."""
    global PROGRAM
    if len(sys.argv) < 2:
        sys.exit(usage)
    PROGRAM = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main()
