"""The circuit in words: numbers come from the results, and only measurements are mentioned."""

import re

import pytest

import mechxai as mx
from mechxai.report.circuit_account import circuit_account


@pytest.fixture(scope="module")
def results():
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


def test_heads_have_their_numbers(results):
    sentences = circuit_account(results)
    mover = next(sentence for sentence in sentences if sentence.startswith("Head 2.2 "))
    roles = results[0].data
    assert f"attends from END to IO ({float(roles['name_mover'][2, 2]):.2f} of its attention)" in mover
    assert f"writes the name it attends to ({float(roles['copying'][2, 2]):.2f})" in mover
    assert f"restores {float(roles['effect'][2, 2]):.0%}" in mover
    reads = sentences[sentences.index(mover) + 1]
    exact = results[1].data["value"].to_series()
    nodes = mx.load("zoo/handmade-ioi").card["truth"]["nodes"]
    inhibition = next(node["node"] for node in nodes if node["role"] == "s_inhibition")
    layer, head = inhibition[1:].split(".h")
    assert f"head {layer}.{head} through its query" in reads
    assert re.search(rf"{exact[f'{inhibition} -> a2.h2.q']:.3g}".replace(".", r"\."), reads)
    assert sentences[sentences.index(mover) + 2].startswith("It writes to the logits (")


def test_the_evaluation_has_its_numbers(results):
    text = " ".join(circuit_account(results))
    assert f"AUROC of {float(results[2].data['auroc']):.2f}" in text
    assert "random circuits of that size recover" in text
    assert f"by chance {float(results[3].data['jaccard_chance']):.0%}" in text
    assert f"equivalence p = {float(results[4].data['p'].sel(test='equivalence')):.3g}" in text
    assert "The least necessary node" in text


def test_only_measurements_are_mentioned(results):
    assert circuit_account(results[1:]) == []
    assert not any("It reads" in sentence or "random" in sentence for sentence in circuit_account(results[:1]))
    assert all("to first order" not in sentence for sentence in circuit_account(results))


def test_the_account_opens_the_page(results, tmp_path):
    page = mx.report(results, tmp_path / "page.html").read_text()
    assert page.index("The circuit in words") < page.index('id="result-0"')
    assert "name mover head" in page
