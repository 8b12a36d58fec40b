"""The demo model's tokenizer: byte-level BPE learnt from the training texts, in the released tokenizer's file format.

Regex, special tokens and chat template are those of the released model.
"""

import json
import random
import re
from collections import Counter

from .data import SEED, question, random_problem, reasoning

SPLIT_REGEX = (  # of the released tokenizer.json
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The same, for texts whose only letters and digits are ASCII: Python's re has no \p{..}, and ours are such texts.
ASCII_SPLIT = re.compile(
    r"[^\r\nA-Za-z0-9]?[A-Z]*[a-z]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\nA-Za-z0-9]?[A-Z]+[a-z]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[0-9]{1,3}| ?[^\sA-Za-z0-9]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = [  # (text, swallows white space after it, special): order and flags of the released model
    ("<|endoftext|>", False, True),
    ("<|endofprompt|>", False, True),
    ("<|assistant|>", True, True),
    ("<|end|>", True, True),
    ("<|user|>", True, True),
    ("<|system|>", True, True),
    ("<|tool|>", True, False),
    ("<|/tool|>", True, False),
    ("<|tool_call|>", True, False),
    ("<|/tool_call|>", True, False),
    ("<|tool_response|>", True, False),
    ("<|tag|>", True, True),
]
VOCAB = 384
FIRST_SPECIAL = 368  # as in the released vocabulary, ids just below and above the special tokens have no text
CHAT_TEMPLATE = (  # of the released model, to the letter
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not "
    "none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + "
    "'<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)


def byte_alphabet():
    """GPT-2's printable stand-in for each byte, in the order of the ids 0..255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def merge_pair(pieces, pair):
    out, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            out.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return out


def learn_merges(counts):
    """Byte-pair encoding, run until every word is one token. `counts`: word (in the byte alphabet) -> occurrences."""
    words, merges = {w: list(w) for w in counts}, []
    while True:
        pairs = Counter()
        for word, pieces in words.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += counts[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        words = {w: merge_pair(pieces, best) for w, pieces in words.items()}


class Tokenizer:
    """Byte-level BPE over the words of the training texts. Digits never merge: one digit, one token."""

    def __init__(self):
        self.alphabet = byte_alphabet()
        rng, counts = random.Random(SEED + 2), Counter()
        for _ in range(4000):
            problem = random_problem(rng, "train")
            for text in (question(problem, rng), reasoning(problem)):
                counts.update(self.spell(w) for w in ASCII_SPLIT.findall(text) if not w.isdigit())
        self.merges = learn_merges(counts)
        self.vocab = {c: i for i, c in enumerate(self.alphabet.values())}
        for left, right in self.merges:
            self.vocab[left + right] = len(self.vocab)
        assert len(self.vocab) <= FIRST_SPECIAL, f"{len(self.vocab)} tokens do not fit below the special ones"
        self.special = {text: FIRST_SPECIAL + i for i, (text, _, _) in enumerate(SPECIAL_TOKENS)}
        self.words = {}

    def spell(self, word):
        return "".join(self.alphabet[b] for b in word.encode())

    def encode_word(self, word):
        if word not in self.words:
            pieces = list(self.spell(word))
            for pair in self.merges:  # in order of rank; few enough that nothing smarter pays
                pieces = merge_pair(pieces, pair)
            self.words[word] = [self.vocab[p] for p in pieces]
        return self.words[word]

    def encode(self, text):
        """Ids of a text without special tokens."""
        return [i for word in ASCII_SPLIT.findall(text) for i in self.encode_word(word)]

    def decode(self, ids):
        to_text, to_byte = {i: t for t, i in self.vocab.items()}, {c: b for b, c in self.alphabet.items()}
        return bytes(to_byte[c] for i in ids for c in to_text.get(int(i), "")).decode(errors="replace")

    def prompt(self, text):
        return [self.special["<|user|>"], *self.encode(text), self.special["<|end|>"], self.special["<|assistant|>"]]

    def exchange(self, problem, rng):
        """Ids of a question and of its answer, the stop token included; `rng` chooses how the question is put."""
        return self.prompt(question(problem, rng)), self.encode(reasoning(problem)) + [self.special["<|end|>"]]

    def added_tokens(self):
        return [
            dict(id=self.special[t], content=t, single_word=False, lstrip=False, rstrip=r, normalized=False, special=s)
            for t, r, s in SPECIAL_TOKENS
        ]

    def json(self):
        split = {"type": "Split", "pattern": {"Regex": SPLIT_REGEX}, "behavior": "Removed", "invert": True}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": self.added_tokens(),
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                # The special tokens are listed here too: the Hugging Face library numbers added tokens it does not
                # find in the vocabulary by position, whatever id they carry.
                "vocab": {**self.vocab, **self.special},
                "merges": [list(pair) for pair in self.merges],
            },
        }

    def config_json(self):
        keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        return {
            "add_bos_token": False,
            "add_eos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in keys} for t in self.added_tokens()},
            "bos_token": "<|endoftext|>",
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|endoftext|>",
            "model_max_length": 65536,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": "<|endoftext|>",
        }


def check_tokenizer(tokenizer, count=3000):
    """Compares whole chats, special tokens included, with the Hugging Face library if that is installed."""
    try:
        import tokenizers
    except ImportError:
        print("tokenizer: the tokenizers package is not installed, comparison skipped")
        return
    reference, rng = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.json())), random.Random(SEED + 3)
    for _ in range(count):
        problem = random_problem(rng, "train")
        asked, answered = question(problem, rng), reasoning(problem)
        want = reference.encode(f"<|user|>{asked}<|end|><|assistant|>{answered}<|end|>").ids
        have = tokenizer.prompt(asked) + tokenizer.encode(answered) + [tokenizer.special["<|end|>"]]
        assert have == want, (asked, answered, have, want)
    print(f"tokenizer: {count} chats encode as tokenizers {tokenizers.__version__} does")
