#!/usr/bin/env python3
"""Writes the files of this folder with the transformers that is installed: python3 save.py FOLDER_OF_THE_RELEASED_CONFIG

saved-VERSION.json            config.json after from_pretrained and save_pretrained
saved-twice-VERSION.json      the same done again: the list of windows is in a list of windows
saved-changed-VERSION.json    after other programs have added what they add
full-VERSION.json             every key of the class, also those with its defaults
generation-VERSION.json       generation_config.json
keys-VERSION.json             every key of the classes themselves: of PretrainedConfig, of GenerationConfig

The class has the parameters of the released model's configuration_phi4flash.py, and does with them what that one does.
"""
import json
import math
import pathlib
import sys
import tempfile

import transformers
from transformers import GenerationConfig, PretrainedConfig


class Phi4FlashConfig(PretrainedConfig):
    model_type = "phi4flash"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(self, vocab_size=51200, hidden_size=2560, intermediate_size=9216, num_hidden_layers=32,
                 num_attention_heads=40, num_key_value_heads=4, resid_pdrop=0.0, embd_pdrop=0.0, attention_dropout=0.0,
                 hidden_act="silu", max_position_embeddings=4096, initializer_range=0.02, layer_norm_eps=1e-5,
                 use_cache=True, tie_word_embeddings=True, rope_theta=10000.0, bos_token_id=1, eos_token_id=2,
                 sliding_window=2047, mb_per_layer=2, mamba_d_state=16, mamba_d_conv=4, mamba_expand=2,
                 mamba_dt_rank="auto", mamba_conv_bias=True, mamba_proj_bias=False, **rest):
        kept = dict(locals())
        for name in ("self", "rest", "__class__", "tie_word_embeddings", "bos_token_id", "eos_token_id"):
            kept.pop(name)
        for name, value in kept.items():
            setattr(self, name, value)
        if mamba_dt_rank == "auto":
            self.mamba_dt_rank = math.ceil(hidden_size / 16)
        windowed = range(1, num_hidden_layers // 2, 2)
        self.sliding_window = [sliding_window if layer in windowed else None for layer in range(num_hidden_layers)]
        super().__init__(bos_token_id=bos_token_id, eos_token_id=eos_token_id, tie_word_embeddings=tie_word_embeddings, **rest)


def main():
    released = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).parent
    version = transformers.__version__

    def write(name, content):
        text = json.dumps(content, separators=(",", ":"), sort_keys=True)
        (here / f"{name}-{version}.json").write_text(text.replace(',"', ',\n"') + "\n")

    def saved(config):
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            return json.loads(next(pathlib.Path(folder).glob("*.json")).read_text())

    config = Phi4FlashConfig.from_pretrained(released)
    once = saved(config)
    write("saved", once)
    write("saved-twice", saved(Phi4FlashConfig.from_dict(once)))
    write("full", json.loads(config.to_json_string(use_diff=False)))
    write("saved-changed", saved(Phi4FlashConfig.from_dict(dict(
        json.loads((released / "config.json").read_text()), head_dim=None, mamba_dt_rank=None, pretraining_tp=1,
        rope_scaling=None, rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}, unsloth_fixed=True,
        unsloth_version="2025.7.8", layer_types=["mamba", "attention"] * 16))))
    write("generation", saved(GenerationConfig.from_pretrained(released)))
    write("keys", [sorted(PretrainedConfig().to_dict()), sorted(GenerationConfig().to_dict())])


main()
