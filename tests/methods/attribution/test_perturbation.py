"""Occlusion and the Shapley family equal plain forward passes, SHAP's explainers, and sums over coalitions."""

from dataclasses import replace
from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.engine.execution import Execution
from mechxai.methods.attribution.exact_shapley import shapley
from mechxai.methods.attribution.partition_shap import balanced_tree
from tests.conftest import FOLDED
from tests.methods.attribution.cases import logit_diff


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
@pytest.mark.parametrize("engine", ["hooked", "suffix", "auto"])
def test_occlusion_equals_a_pass_with_another_token(model_of, pairs, kind, backend, processing, engine):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=2, width=7, lengths=[7, 6])
    result = mx.Occlusion(baseline="pad")(model, batch, execution=Execution(engine=engine))
    whole = logit_diff(model, batch)
    pad = model.tokenizer.eos_token_id
    for pos in range(6):
        tokens = batch.clean.clone()
        tokens[:, pos] = pad
        expected = whole - logit_diff(model, replace(batch, clean=tokens))
        assert result.data["value"].values[:, pos] == pytest.approx(expected, abs=5e-4)


def test_counterfactual_removal_is_the_corrupted_prompt(model_of, pairs):
    model = model_of("neox")
    batch = pairs(model, n=2)
    result = mx.ExactShapley(baseline="counterfactual", players="token")(model, batch)
    corrupted = logit_diff(model, replace(batch, clean=batch.corrupted))
    assert result.data["baseline_score"].values == pytest.approx(corrupted, abs=1e-4)
    unchanged = (batch.clean == batch.corrupted).numpy()
    assert result.data["value"].values[unchanged] == pytest.approx(0, abs=1e-5)


def test_windows_of_occlusion_by_hand(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=1, width=4)
    whole = logit_diff(model, batch)[0]

    def loss(first):
        tokens = batch.clean.clone()
        tokens[:, first : first + 2] = model.tokenizer.eos_token_id
        return whole - logit_diff(model, replace(batch, clean=tokens))[0]

    found = mx.Occlusion(window=2)(model, batch).data["value"].values[0]
    losses = [loss(first) for first in range(3)]
    expected = [losses[0], (losses[0] + losses[1]) / 2, (losses[1] + losses[2]) / 2, losses[2]]
    assert found == pytest.approx(expected, abs=2e-4)


def test_exact_shapley_equals_shaps_own_exact_explainer(model_of, pairs):
    import shap

    model = model_of("neox")
    batch = pairs(model, n=1, width=6)
    method = mx.ExactShapley(players="token", baseline="mean")
    inputs = method.inputs(model, batch, Execution())

    def score(present):
        return inputs.scores_without(torch.as_tensor(present < 0.5)[:, None])[:, 0].numpy()

    explainer = shap.ExactExplainer(score, shap.maskers.Independent(np.zeros((1, 6))))
    expected = explainer(np.ones((1, 6))).values[0]
    assert method(model, batch).data["value"].values[0] == pytest.approx(expected, abs=1e-5)


def test_kernel_shap_of_all_coalitions_is_exact(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2, width=7, lengths=[7, 5])
    exact = mx.ExactShapley(players="token")(model, batch).data
    found = mx.KernelShap()(model, batch).data
    assert found["value"].values == pytest.approx(exact["value"].values, abs=1e-4, nan_ok=True)
    assert np.nanmax(found["standard_error"].values) == 0


@pytest.mark.slow
def test_the_standard_error_of_kernel_shap_is_honest(zoo):
    batch = mx.tasks.ioi(zoo, n=1, seed=3, template=0)
    draws = [mx.KernelShap(n_samples=150, seed=seed)(zoo, batch).data for seed in range(30)]
    spread = np.std([draw["player_value"].values[0] for draw in draws], axis=0, ddof=1)
    told = np.mean([draw["standard_error"].values[0] for draw in draws], axis=0)
    assert 0.6 < np.median(told / spread) < 1.7


def test_partition_shap_is_the_owen_value_of_its_tree(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=1, width=6)
    method = mx.PartitionShap(players="token", n_samples=10_000)
    inputs = method.inputs(model, batch, Execution())
    leaves = method._leaves(inputs)
    links = balanced_tree(leaves)

    def worth(present):
        absent = torch.ones(6, dtype=torch.bool)
        absent[list(present)] = False
        return float(inputs.scores_without(absent[None, None])[0, 0])

    beneath = {player: {player} for player in range(6)}
    for number, (left, right, *_) in enumerate(links):
        beneath[6 + number] = beneath[int(left)] | beneath[int(right)]

    def owen(node, contexts):
        """Values beneath a node, averaged over the contexts in which its children come and go."""
        if node < 6:
            return {node: np.mean([worth(context | {node}) - worth(context) for context in contexts])}
        left, right = int(links[node - 6][0]), int(links[node - 6][1])
        sides = [(left, beneath[right]), (right, beneath[left])]
        found = {}
        for child, sibling in sides:
            found |= owen(child, [with_it for context in contexts for with_it in (context, context | sibling)])
        return found

    values = owen(6 + len(links) - 1, [set()])
    found = method(model, batch).data["value"].values[0]
    assert found == pytest.approx([values[player] for player in range(6)], abs=1e-4)


def test_shapley_by_counting_orders():
    worth = np.random.default_rng(0).normal(size=16)
    found = shapley(torch.from_numpy(worth)).numpy()
    for player in range(4):
        total = 0.0
        for size in range(4):
            for others in combinations([p for p in range(4) if p != player], size):
                number = sum(1 << other for other in others)
                share = factorial(size) * factorial(3 - size) / factorial(4)
                total += share * (worth[number | 1 << player] - worth[number])
        assert found[player] == pytest.approx(total)
    assert found.sum() == pytest.approx(worth[15] - worth[0])
