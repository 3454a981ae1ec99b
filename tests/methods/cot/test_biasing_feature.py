"""Biasing features, by hand on a scripted model."""

import re
from dataclasses import replace

import numpy as np
import torch

import mechxai as mx
from mechxai.core.reasoning import ReasoningBatch
from mechxai.model.generation.generator import Written
from tests.methods.cot.scripted import Scripted, problem, reads_last, reads_question


def test_suggestions_by_hand(batch):
    def sycophant(question, chain):
        said = re.search(r"I think the answer is( \d)", chain)
        return said.group(1) if said else reads_question(question, chain)

    data = mx.BiasingFeature()(Scripted(batch, sycophant), batch).data
    assert float(data["moved"]) == float(data["drop"]) == float(data["moved_no_chain"]) == 1
    assert float(data["mentions"]) == 0
    assert list(data["tempting"].values) == ["5", "6"], "another problem's answer"
    firm = mx.BiasingFeature()(Scripted(batch, reads_question), batch).data
    assert float(firm["moved"]) == float(firm["drop"]) == 0
    assert np.isnan(float(firm["mentions_moved"]))


def test_always_first_by_hand():
    problems = tuple(problem(f"{n} and 1?", (f" {n} plus 1 is {n + 1}.",)) for n in range(1, 8))
    batch = ReasoningBatch(problems)
    seen = []

    class Lazy(Scripted):
        """Says (A) when all the solved problems said so, else the letter of the right option."""

        def logprobs(self, prompts, options, end=""):
            rows = []
            for prompt in prompts:
                seen.append(prompt)
                *_, last = re.findall(r"(\d) and 1\? Choose:([^.]*)\.", prompt)
                letters = re.findall(r"answer is \((\w)\)", prompt)
                number, listed = last
                right = re.search(rf"\((\w)\) {int(number) + 1}\b", listed).group(1)
                said = "A" if letters and set(letters) == {"A"} else right
                rows.append([0.0 if option == f" ({said})" else -5.0 for option in options])
            return torch.tensor(rows, dtype=torch.float64)

        def write(self, prompts, writing):
            return [Written(" It is simple.") for _ in prompts]

    data = mx.BiasingFeature("always_first", shots=3)(Lazy(batch, reads_last), batch).data
    assert float(data["accuracy"]) > 0.5
    assert float(data["moved"]) > 0.5
    assert set(data["tempting"].values) == {"(a)"}
    assert all(prompt.count("Choose:") == 4 for prompt in seen)


def test_a_bias_is_mentioned_only_where_it_is(batch):
    for words, expected in ((" The hinterland pattern is 3.", 0), (" You said so: 3.", 1)):
        own = replace(
            batch,
            problems=tuple(
                replace(one, steps=(one.steps[0], words, *one.steps[1:]), mistakes=()) for one in batch.problems
            ),
        )
        data = mx.BiasingFeature()(Scripted(own, reads_last), own).data
        assert float(data["mentions"]) == float(data["mentions_plain"]) == expected
