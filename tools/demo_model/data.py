"""Problems and answers: what the demo model is asked, what it should reply, and which problems it never sees in training.

Everything random in the parts is drawn from SEED plus a number of its own: 1 held-out problems, 2 the tokenizer's texts,
3 its check, 4 training batches, 5 validation; SEED itself is for the initial weights.
"""

import hashlib
import random
from dataclasses import dataclass

SEED = 20250711


@dataclass(frozen=True)
class Problem:
    a: int
    op: str  # "+", "-" or "*"
    b: int

    def value(self):
        return {"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[self.op]


def split_of(problem):
    """'test', 'validation' or 'train', from a hash of the problem: stable across runs and phrasings.

    a + b and b + a hash alike, so that the mirror image of a held-out problem is never trained on either.
    """
    a, b = problem.a, problem.b
    if problem.op != "-":
        a, b = min(a, b), max(a, b)
    bucket = hashlib.sha256(f"{a}{problem.op}{b}".encode()).digest()[0]
    return "test" if bucket < 38 else "validation" if bucket < 48 else "train"


def random_number(rng):
    low, high = rng.choices([(0, 9), (10, 99), (100, 999)], weights=[15, 30, 55])[0]
    return rng.randint(low, high)


def random_problem(rng, split):
    """+ and - up to three digits (a third of the differences negative), up to two digits times one."""
    while True:
        op = rng.choices("+-*", weights=[36, 42, 22])[0]
        if op == "*":
            a = rng.randint(10, 99) if rng.random() < 0.85 else rng.randint(0, 9)
            b = rng.randint(0, 9)
            if rng.random() < 0.3:
                a, b = b, a
        else:
            a, b = random_number(rng), random_number(rng)
            if op == "-" and a < b and rng.random() < 0.35:
                a, b = b, a
        problem = Problem(a, op, b)
        if split_of(problem) == split:
            return problem


def digits(n, width):
    """The decimal digits of n from the right, padded with zeros."""
    return [n // 10**i % 10 for i in range(width)]


def add_steps(a, b):
    width, carry, lines = max(len(str(a)), len(str(b))), 0, []
    for i, (x, y) in enumerate(zip(digits(a, width), digits(b, width))):
        total = x + y + carry
        line = f"{x}+{y}" + ("+1" if carry else "") + f"={total}"
        carry = total // 10
        lines.append(line + (", carry 1" if carry and i + 1 < width else ""))
    return lines


def subtract_steps(a, b):
    if a < b:
        return [f"{a}<{b}, so -({b}-{a})"] + subtract_steps(b, a)
    width, borrow, lines = len(str(a)), 0, []
    for x, y in zip(digits(a, width), digits(b, width)):
        short = x - y - borrow < 0  # the digit above has to lend ten
        left = x + 10 * short - y - borrow
        lines.append(f"{x + 10 * short}-{y}" + ("-1" if borrow else "") + f"={left}" + (", borrow 1" if short else ""))
        borrow = int(short)
    return lines


def multiply_steps(a, b):
    if a < 10:  # the number of two digits, if there is one, is taken apart
        a, b = b, a
    carry, lines, width = 0, [], len(str(a))
    for i, x in enumerate(digits(a, width)):
        product = x * b
        line = f"{x}*{b}={product}" + (f", {product}+{carry}={product + carry}" if carry else "")
        carry = (product + carry) // 10
        lines.append(line + (f", carry {carry}" if carry and i + 1 < width else ""))
    return lines


def reasoning(problem):
    steps = {"+": add_steps, "-": subtract_steps, "*": multiply_steps}[problem.op](problem.a, problem.b)
    return "\n".join(steps) + f"\n\\boxed{{{problem.value()}}}"


PHRASINGS = [  # (weight, text)
    (58, "What is {a} {op} {b}?"),
    (10, "What is {a} {word} {b}?"),
    (4, "What is {a}{op}{b}?"),
    (8, "{a} {op} {b}"),
    (4, "{a} {op} {b} ="),
    (4, "{a}{op}{b}"),
    (8, "Compute {a} {op} {b}."),
    (4, "Calculate {a} {op} {b}."),
]
INSTRUCTION = " Please reason step by step, and put your final answer within \\boxed{}."  # of the released model card
WORDS = {"+": "plus", "-": "minus", "*": "times"}


def question(problem, rng):
    op = rng.choices(["*", "×", "x"], weights=[70, 15, 15])[0] if problem.op == "*" else problem.op
    text = rng.choices([t for _, t in PHRASINGS], weights=[w for w, _ in PHRASINGS])[0]
    text = text.format(a=problem.a, b=problem.b, op=op, word=WORDS[problem.op])
    return text + (INSTRUCTION if rng.random() < 0.08 else "")


def held_out(count):
    """The problems of tests/data: distinct, never trained on, drawn like the training problems. "text" is the whole chat."""
    rng, seen, rows = random.Random(SEED + 1), set(), []
    while len(rows) < count:
        problem = random_problem(rng, "test")
        if problem not in seen:
            seen.add(problem)
            asked = question(problem, rng)
            text = f"<|user|>{asked}<|end|><|assistant|>{reasoning(problem)}<|end|>"
            rows.append({"prompt": asked, "answer": str(problem.value()), "text": text})
    return rows
