"""Fingerprints: equal exactly for values that give the same results."""

import functools
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from mechxai.core.fingerprint import Fingerprints

SCALE = 2.0


def identity(value):
    return Fingerprints()(value)


def _highest(logits):
    return logits.amax(-1)


def _lowest(logits):
    return logits.amin(-1)


def over(reduce):
    return lambda logits, batch: reduce(logits[:, -1])


def scaled(factor):
    def metric(logits, batch, scale=factor):
        return logits[:, -1].amax(-1) * scale

    return metric


class Weighted:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, logits, batch):
        return logits[:, -1].amax(-1) * self.weight


class Other(Weighted):
    def __call__(self, logits, batch):
        return logits[:, -1].amin(-1) * self.weight


@dataclass
class Settings:
    weights: torch.Tensor


DIFFERENT = {
    "attribute of a name": (lambda x, b: x[:, -1].amax(-1), lambda x, b: x[:, -1].amin(-1)),
    "constant": (lambda x, b: x * 2, lambda x, b: x * 3),
    "closure": (over(_highest), over(_lowest)),
    "closure over a number": (over(functools.partial(torch.mul, other=2)), over(functools.partial(torch.mul, other=3))),
    "default": (scaled(1), scaled(2)),
    "attribute": (Weighted(1), Weighted(2)),
    "class": (Weighted(1), Other(1)),
    "method": (Weighted(1).__call__, Weighted(2).__call__),
    "partial": (functools.partial(_highest, 1), functools.partial(_highest, 2)),
    "function of torch": (torch.amax, torch.amin),
    "inner function": (lambda x, b: [y * 2 for y in x], lambda x, b: [y * 3 for y in x]),
    "array": (np.zeros(5000), np.r_[np.zeros(2500), 1, np.zeros(2499)]),
    "table": (pd.Series(np.zeros(500)), pd.Series(np.r_[np.zeros(250), 1, np.zeros(249)])),
    "half precision": (torch.ones(3, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.bfloat16)),
    "field": (Settings(torch.ones(2)), Settings(torch.zeros(2))),
    "set": ({1, 2}, {1, 3}),
    "bytes": (b"a", b"b"),
    "number of another type": (1, True),
    "decorated": (torch.no_grad()(_highest), torch.no_grad()(_lowest)),
}
SAME = {
    "closure": lambda: over(_highest),
    "default": lambda: scaled(2),
    "attributes": lambda: Weighted(torch.ones(3)),
    "field": lambda: Settings(torch.ones(2)),
    "table": lambda: pd.DataFrame({"a": range(500)}),
    "set": lambda: {"a", "b", "c"},
    "decorated": lambda: torch.no_grad()(over(_lowest)),
    "module": lambda: torch.nn.Linear(3, 2).requires_grad_(False).apply(lambda m: torch.nn.init.ones_(m.weight)).weight,
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_values_that_differ_have_different_fingerprints(kind):
    first, second = DIFFERENT[kind]
    assert identity(first) != identity(second)


@pytest.mark.parametrize("kind", SAME)
def test_values_made_alike_have_equal_fingerprints(kind):
    assert identity(SAME[kind]()) == identity(SAME[kind]())


def test_a_global_that_a_function_reads_is_part_of_it(monkeypatch):
    def metric(logits, batch):
        return logits * SCALE

    def calling(logits, batch):
        return metric(logits, batch)

    before = identity(metric), identity(calling)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert identity(metric) != before[0]
    assert identity(calling) != before[1]


def test_a_value_without_known_content_is_never_the_same():
    def lines():
        yield 1

    assert identity(lines()) != identity(lines())
    source = lines()
    assert identity(lambda x: source) != identity(lambda x: source)


def test_values_that_contain_themselves_have_a_fingerprint():
    def first():
        ring: list = [1]
        ring.append(ring)
        return ring

    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert identity(first()) == identity(first())
    assert identity(even) != identity(odd)


def test_very_deep_values_are_never_the_same():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert identity(deep) != identity(deep)


METRICS = """
    import torch
    from mechxai.core.fingerprint import Fingerprints

    WORDS = {"b", "a", "c"}
    def helper(logits, k=2):
        return logits.topk(k).values
    class Weighted:
        scale = 2
        def __call__(self, logits, batch):
            return helper(logits) * self.scale
    def made(name):
        return lambda logits, batch: helper(logits).sum(-1) * len(WORDS & {name})
    print(Fingerprints()([helper, Weighted(), made("a"), torch.relu, WORDS]))
"""


def test_fingerprints_are_the_same_in_every_process(tmp_path):
    script = tmp_path / "metrics.py"
    script.write_text(textwrap.dedent(METRICS))
    printed = {subprocess.run([sys.executable, script], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(printed) == 1


def test_a_module_of_the_user_counts_with_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    printed = set()
    for factor in (2, 3):
        (tmp_path / "my_metrics.py").write_text(f"def score(logits):\n    return logits * {factor}\n")
        code = "import my_metrics; from mechxai.core.fingerprint import Fingerprints\n"
        code += "print(Fingerprints()(lambda x, b: my_metrics.score(x)))"
        run = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, check=True, cwd=tmp_path)
        printed.add(run.stdout)
    assert len(printed) == 2
