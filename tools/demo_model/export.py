"""Model folders in the released layout (config.json, tokenizer files, safetensors in BF16 and F32), written and read."""

import json
import struct
from dataclasses import asdict

import numpy as np
import torch

from .model import SambaY, Shape


def is_f32(name):
    """The released checkpoint keeps these in F32 and everything else in BF16."""
    return name.endswith("A_log") or ".lambda_" in name


def rounded(model):
    """A copy of the model with its weights as the file will hold them."""
    copy = SambaY(model.s)
    copy.load_state_dict({n: p if is_f32(n) else p.bfloat16().float() for n, p in model.state_dict().items()})
    return copy.eval()


def write_safetensors(path, tensors):
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors.items():
        if is_f32(name):
            dtype, blob = "F32", tensor.float().numpy().tobytes()
        else:
            dtype, blob = "BF16", tensor.bfloat16().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path):
    """Floating point tensors come back in F32, whatever they are stored in."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    kinds = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64}
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + o for o in entry["data_offsets"])
        array = np.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = torch.from_numpy(array.astype(np.int64 if entry["dtype"] == "I64" else np.float32))
    return tensors


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_config(s, tokenizer):
    end_of_text = tokenizer.special["<|endoftext|>"]
    return {
        "architectures": ["Phi4FlashForCausalLM"],
        "model_type": "phi4flash",
        **asdict(s),
        "hidden_act": "silu",
        "mb_per_layer": 2,
        "mlp_bias": False,
        "lm_head_bias": False,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def write_folder(folder, model, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    end_of_text, end = tokenizer.special["<|endoftext|>"], tokenizer.special["<|end|>"]
    write_json(folder / "config.json", model_config(model.s, tokenizer))
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": end_of_text,
            "eos_token_id": [end, end_of_text],
            "do_sample": False,  # arithmetic has one right answer
            "pad_token_id": end_of_text,
        },
    )
    write_json(folder / "tokenizer.json", tokenizer.json())
    write_json(folder / "tokenizer_config.json", tokenizer.config_json())
    write_safetensors(folder / "model.safetensors", model.state_dict())


def read_folder(folder):
    model = SambaY(Shape.from_config(json.loads((folder / "config.json").read_text())))
    tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors.update(read_safetensors(path))
    model.load_state_dict(tensors)
    return model.eval()
