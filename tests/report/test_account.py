"""The circuit in words: every number is a result's, nothing is said of what was not measured."""

import re

import pytest

import mechxai as mx
from mechxai.report.circuit_account import circuit_account


@pytest.fixture(scope="module")
def story():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=16)
    methods = [
        mx.HeadRoles(),
        mx.EdgePatching(),
        mx.EvaluateCircuit(truth="visible_swap", fractions=(0.02, 0.05, 1.0), random_draws=3),
        mx.CircuitStability(draws=5, top=0.03),
        mx.CircuitTests(fraction=0.05, draws=20),
        mx.CircuitCriteria(fraction=0.05, sets=2, draws=3),
    ]
    return [method(model, batch) for method in methods]


def test_heads_are_told_with_their_numbers(story):
    said = circuit_account(story)
    mover = next(one for one in said if one.startswith("Head 2.2 "))
    roles = story[0].data
    assert f"attends from END to IO ({float(roles['name_mover'][2, 2]):.2f} of its attention)" in mover
    assert f"writes the name it attends to ({float(roles['copying'][2, 2]):.2f})" in mover
    assert f"restores {float(roles['effect'][2, 2]):.0%}" in mover
    reads = said[said.index(mover) + 1]
    exact = story[1].data["value"].to_series()
    nodes = mx.load("zoo/handmade-ioi").card["truth"]["nodes"]
    inhibition = next(node["node"] for node in nodes if node["role"] == "s_inhibition")
    layer, head = inhibition[1:].split(".h")
    assert f"head {layer}.{head} through its query" in reads
    assert re.search(rf"{exact[f'{inhibition} -> a2.h2.q']:.3g}".replace(".", r"\."), reads)
    assert said[said.index(mover) + 2].startswith("It writes to the logits (")


def test_the_validation_is_told_with_its_numbers(story):
    said = " ".join(circuit_account(story))
    assert f"AUROC of {float(story[2].data['auroc']):.2f}" in said
    assert "random circuits of that size recover" in said
    assert f"by chance {float(story[3].data['jaccard_chance']):.0%}" in said
    assert f"equivalence p = {float(story[4].data['p'].sel(test='equivalence')):.3g}" in said
    assert "The least necessary node" in said


def test_nothing_is_said_of_what_was_not_measured(story):
    assert circuit_account(story[1:]) == []
    assert not any("It reads" in one or "random" in one for one in circuit_account(story[:1]))
    assert all("to first order" not in one for one in circuit_account(story))


def test_it_opens_the_page(story, tmp_path):
    page = mx.report(story, tmp_path / "page.html").read_text()
    assert page.index("The circuit in words") < page.index('id="result-0"')
    assert "name mover head" in page
