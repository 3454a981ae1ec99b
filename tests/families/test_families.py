"""Every model family: each number equals an independent computation, or the model or the method is refused.

A sample runs with `make test` and `make test-tl4`, with the checks that find most faults; every family with every check
runs with `make test-slow`.
"""

import functools
import importlib.metadata

import pytest

from tests.families import grid
from tests.families.checkpoints import FAMILIES, write

SAMPLE = (
    "qwen3",
    "gemma2",
    "gemma3",
    "olmo2",
    "smollm3",
    "stablelm",
    "granite",
    "gpt-oss",
    "mixtral",
    "qwen3-moe",
    "mistral-window",
    "falcon",
    "opt",
    "c-modernbert",
)
# Families whose weights or attention reach the highest level of the engine, and whose edges are exact.
FULL_SPEED = (
    "qwen3",
    "gemma2",
    "gemma3",
    "olmo2",
    "smollm3",
    "stablelm",
    "granite",
    "gpt-oss",
    "mixtral",
    "qwen3-moe",
    "falcon",
    "opt",
)
QUICK_CHECKS = (
    "logits",
    "padding",
    "patching of resid_pre",
    "patching of z",
    "edits of every site",
    "edges",
    "lens",
    "generation",
)
SWEEPS = ("patching of resid_pre", "patching of z")
TOP_LEVEL = 4
OTHER_SEEDS = (1, 2)
VERSION = importlib.metadata.version("transformer-lens")


def _params(names, sample=SAMPLE):
    return [pytest.param(name, marks=() if name in sample else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def outcomes_of(tmp_path_factory):
    """(name, checks, seed) -> the outcomes of a family."""

    @functools.cache
    def run(name, only=(), seed=0):
        folder = write(name, tmp_path_factory.mktemp("family") / name.replace(".", "-"), seed)
        return grid.run_family(name, folder, seed, only)

    return run


def failures(outcomes):
    return [str(outcome) for outcome in outcomes if outcome.failed]


@pytest.mark.parametrize("name", SAMPLE)
def test_sampled_families_are_right_or_refused(name, outcomes_of):
    assert failures(outcomes_of(name, QUICK_CHECKS)) == []


@pytest.mark.parametrize("name", _params(FULL_SPEED))
def test_families_reach_the_highest_level_with_exact_edges(name, outcomes_of):
    outcomes = {outcome.check: outcome for outcome in outcomes_of(name, QUICK_CHECKS)}
    assert {check: outcomes[check].numbers.get("level") for check in SWEEPS} == dict.fromkeys(SWEEPS, TOP_LEVEL)
    assert outcomes["edges"].state == "right", outcomes["edges"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_check_of_every_family(name, outcomes_of):
    assert failures(outcomes_of(name)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", OTHER_SEEDS)
@pytest.mark.parametrize("name", FULL_SPEED)
def test_other_weights_and_prompts(name, seed, outcomes_of):
    assert failures(outcomes_of(name, QUICK_CHECKS, seed)) == []
