#!/usr/bin/env python3
"""Reads a model file that the library has written with the gguf package: names, types, shapes, metadata, and plain numbers.

    tests/io/gguf/gguf_python_test.py TEST_PROGRAM       the program built from tests/io; exit code 77 without the gguf package
"""
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

SKIPPED = 77

SHAPES = {
    "model.embed_tokens.weight": (280, 32),
    "model.final_layernorm.bias": (32,),
    "model.layers.0.attn.conv1d.weight": (64, 1, 4),
    "model.layers.0.attn.A_log": (64, 4),
    "model.layers.0.mlp.fc1.weight": (64, 32),
    "model.layers.3.attn.inner_cross_attn.lambda_q1": (16,),
}
FIELDS = {
    "general.architecture": "phi4flash",
    "general.name": "small",
    "general.alignment": 64,
    "phi4flash.embedding_length": 32,
    "phi4flash.block_count": 4,
    "phi4flash.vocab_size": 280,
    "phi4flash.attention.sliding_window": 5,
    "phi4flash.ssm.time_step_rank": 2,
    "phi4flash.context_length": 100,
    "phi4flash.layout": "rows8",
    "phi4flash.generation.stop_ids": [270, 3],
    "phi4flash.generation.do_sample": True,
    "phi4flash.generation.temperature": 0.625,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-4o",
    "tokenizer.ggml.eos_token_id": 270,
}


def check(condition, sentence):
    if not condition:
        sys.exit(f"gguf_python_test: {sentence}")


def check_reader(gguf, path):
    reader = gguf.GGUFReader(path)
    for key, want in FIELDS.items():
        check(key in reader.fields, f"no key {key}")
        have = reader.fields[key].contents()
        check(have == want, f"key {key}: want {want!r}, have {have!r}")
    book = reader.fields["phi4flash.codebook"].contents()
    check(len(book) == 17 and book == sorted(book[:16]) + book[16:], f"the codebook is {book}")
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    check(len(tokens) == 280, f"want 280 tokens, have {len(tokens)}")
    check(tokens[258] == "hell" and tokens[259] == "\u0120w" and tokens[270] == "<|end|>", "tokens have other strings")
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    check(merges == ["h e", "l l", "he ll", "\u0120 w"], f"the merges are {merges}")
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    check((types[0], types[261], types[270], types[272]) == (1, 5, 3, 4), "tokens have other types")

    tensors = {t.name: t for t in reader.tensors}
    check(len(tensors) == len(reader.tensors), "a name occurs twice")
    for name, want in SHAPES.items():
        check(name in tensors, f"no tensor {name}")
        have = tuple(reversed(tensors[name].shape.tolist()))
        check(have == want, f"tensor {name}: want shape {want}, have {have}")
    kinds = {t.tensor_type.name for t in reader.tensors}
    check({"F32", "F16", "BF16", "Q8_0", "Q4_0", "IQ4_NL", "I8", "I32"} <= kinds, f"the types are {sorted(kinds)}")
    for t in reader.tensors:
        check(t.data_offset % 64 == 0, f"tensor {t.name} is not aligned")
        check(t.n_bytes == t.data.nbytes, f"tensor {t.name}: {t.n_bytes} bytes, {t.data.nbytes} of them in the file")
    weights = [t for t in reader.tensors if not t.name.startswith("phi4flash.tokenizer.")]
    check(all(t.tensor_type.name not in ("I8", "I32") for t in weights), "a weight has whole numbers")
    # Tensor i has the numbers sin(7 k + 3 i).
    plain = [(i, t) for i, t in enumerate(weights) if t.tensor_type.name == "F32"]
    check(plain, "no F32 tensor")
    for i, t in plain:
        for k, have in enumerate(t.data.reshape(-1).tolist()):
            want = struct.unpack("f", struct.pack("f", math.sin(7 * k + 3 * i)))[0]
            check(abs(have - want) <= 2e-7, f"tensor {t.name}[{k}]: want {want}, have {have}")
    return len(reader.fields), len(weights)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        import gguf
    except ImportError as missing:
        print(f"skipped: {missing}")
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "sample.gguf"
        command = [sys.argv[1], "--test-case=*a sample for other readers*"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PHI4FLASH_SAMPLE_GGUF": str(path)})
        check(path.is_file(), "the program has written no file")
        fields, weights = check_reader(gguf, path)
    print(f"gguf_python_test: {fields} fields and {weights} weights are as written")


if __name__ == "__main__":
    main()
