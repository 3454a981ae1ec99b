"""Curves of agreement along a changed chain, by hand on a scripted model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mechxai as mx
from tests.methods.cot.scripted import Scripted, reads_last, reads_question


def test_early_answers_by_hand(batch):
    """Answers 1, 3, 6 and 1, 8, 7, 6, 5 along the chains: agreement begins at the last step."""
    data = mx.EarlyAnswering()(Scripted(batch, reads_last), batch).data
    assert list(data["agreement_by_length"].sel(n_steps=2).values[:3]) == [0, 0, 1]
    assert list(data["agreement_by_length"].sel(n_steps=4).values) == [0, 0, 0, 0, 1]
    np.testing.assert_allclose(
        data["per_example"].sel(fraction=[0.5, 0.8, 1.0], method="nearest").values[0], [0, 0.6, 1]
    )
    assert float(data["aoc"]) == pytest.approx(((1 - 0.25) + (1 - 0.125)) / 2)
    assert float(data["accuracy"]) == 1
    assert float(data["accuracy_no_chain"]) == 0
    assert float(data["gain"]) == 1
    assert float(data["margin"][-1]) == pytest.approx(2.9)
    assert float(data["margin"][0]) == pytest.approx(-2.9)
    assert list(data["control"].values) == ["irrelevant", "another's", "none"]
    assert list(data["control_agreement"].values) == [0, 0, 0]
    assert float(data["parse_failures"]) == 0
    assert list(data["length_share"].values) == [0.5, 0.5]


def test_an_answer_decided_before_has_no_area_over_it(batch):
    result = mx.EarlyAnswering()(Scripted(batch, reads_question), batch)
    assert float(result.data["aoc"]) == 0
    assert float(result.data["gain"]) == 0
    assert list(result.data["control_agreement"].values) == [1, 1, 1]
    assert any(note.startswith("nothing to measure") for note in result.info.notes)


def test_mistakes_by_hand(batch):
    """The scripted model writes the right chain on, whatever was said: only a mistake in the last step moves it."""
    data = mx.AddingMistakes()(Scripted(batch, reads_last), batch).data
    assert list(data["agreement_by_length"].sel(n_steps=2).values[:3]) == [1, 0, 1]
    assert list(data["agreement_by_length"].sel(n_steps=4).values) == [1, 1, 1, 0, 1]
    assert float(data["aoc"]) == pytest.approx((0.5 + 0.25) / 2)


def test_fillers_by_hand(batch):
    data = mx.FillerTokens()(Scripted(batch, lambda question, chain: f" {min(9, chain.count('...') + 1)}"), batch).data
    assert float(data["agreement"][0]) == 1, "without fillers, and with the chain, which has none"
    assert float(data["agreement"][-1]) == 0
    asked = Scripted(batch, reads_question)
    assert float(mx.FillerTokens()(asked, batch).data["aoc"]) == 0


def test_answers_that_cannot_be_read_are_counted(batch):
    unclear = Scripted(
        batch, lambda question, chain: " hm" if "..." in chain else reads_last(question, chain), reads=False
    )
    data = mx.FillerTokens(read="text")(unclear, batch).data
    assert 0.3 < float(data["parse_failures"]) < 0.8
    assert np.isnan(data["margin"].values).all()


def test_a_chain_that_leaves_no_room_has_no_answer(batch):
    class Small(Scripted):
        def fits(self, text, more=0):
            return "6 minus 1" not in text

    data = mx.EarlyAnswering()(Small(batch, reads_last), batch).data
    assert list(data["answer_chain"].values) == ["6", ""]
    assert np.isnan(data["per_example"].values[1]).all()
    model = mx.load("zoo/cot", device="cpu")
    long = mx.SelfConsistency(samples=3, temperature=5.0)(model, mx.tasks.cot_arithmetic(model, n=4, steps=5)).data
    assert float(long["parse_failures"]) > 0


def test_changes_that_cannot_be_made_are_noted(batch):
    result = mx.Paraphrasing()(Scripted(batch, reads_last), batch)
    assert "6 of 8 changes could not be made" in result.info.notes
    assert np.isnan(float(result.data["aoc"]))


def test_answers_that_cannot_be_read_are_in_no_curve(batch):
    """Its answer never changes, but behind fillers it says nothing that can be read."""
    mute = Scripted(batch, lambda q, chain: " hm" if "..." in chain else reads_question(q, chain), reads=False)
    data = mx.FillerTokens(read="text")(mute, batch).data
    assert not (data["per_example"] < 1).any()
    assert np.isnan(float(data["aoc"]))  # of no curve there are two points
    irrelevant = Scripted(batch, lambda q, chain: " hm" if "bus" in chain else reads_last(q, chain), reads=False)
    told = mx.EarlyAnswering(read="text")(irrelevant, batch).data
    np.testing.assert_allclose(float(told["parse_failures"]), (1 / 7 + 1 / 9) / 2)  # of 3 + 4 and 5 + 4 answers
    assert np.isnan(told["control_agreement"].values[0])


def test_agreement_by_length_is_by_step(batch):
    """The first problem's first step names no number, so that nobody can say it wrong."""
    vague = replace(batch.problems[0], steps=(" It is a sum.", " 3 plus 3 is 6."), mistakes=())
    both = replace(batch, problems=(vague, replace(batch.problems[0], question="1 and 5?")))
    data = mx.AddingMistakes()(Scripted(both, reads_last), both).data
    table = data["agreement_by_length"].sel(n_steps=2)
    assert list(data["knot"].values) == [0, 1, 2]
    np.testing.assert_allclose(table.values, [1, 0, 1])  # it goes on as if the first step were right


def test_controls_that_there_are_none_of_are_unknown(batch):
    alone = batch.rows(torch.tensor([0]))
    data = mx.EarlyAnswering()(Scripted(alone, reads_last), alone).data
    assert np.isnan(float(data["control_accuracy"].sel(control="another's")))
    assert np.isfinite(float(data["control_accuracy"].sel(control="irrelevant")))
