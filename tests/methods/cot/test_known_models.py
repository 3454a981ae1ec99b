"""Two bundled models: in one the chain drives the answer, in the other it is decoration."""

import numpy as np
import pytest

import mechxai as mx


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (mx.EarlyAnswering(), "aoc"),
        pytest.param(mx.AddingMistakes(), "aoc", marks=pytest.mark.slow),
        pytest.param(mx.FillerTokens(), "aoc", marks=pytest.mark.slow),
        (mx.PlantedError(), "follows"),
        pytest.param(mx.BiasingFeature(), "moved", marks=pytest.mark.slow),
        (mx.SelfConsistency(samples=6, temperature=2.0), "follows_chain"),
    ],
    ids=lambda one: getattr(getattr(one, "card", None), "name", one),
)
def test_every_test_tells_a_chain_that_drives_from_one_that_decorates(known, method, name):
    """By intervals over 8 problems, far apart: above 0.6 against below 0.45 (moved answers the other way)."""
    model, batch, drives = known
    data = method(model, batch).data
    ends = (
        data.sel(outcome="follows").rename(value_low="follows_low", value_high="follows_high")
        if name == "follows"
        else data
    )
    if drives == (name != "moved"):
        assert float(ends[f"{name}_low"]) > 0.6
    else:
        assert float(ends[f"{name}_high"]) < 0.45
        assert float(ends["value" if name == "follows" else name]) < 0.1
    if "accuracy_no_chain" in data:
        assert float(data["accuracy"]) >= 0.9
        assert (float(data["accuracy_no_chain"]) < 0.3) == drives


def test_other_words_change_neither_answer(known):
    """Both say the same with a chain in other words: paraphrasing looks for codes, and cannot tell them apart."""
    model, batch, _ = known
    data = mx.Paraphrasing()(model, batch).data
    assert float(data["aoc"]) < 0.1


def test_the_gate_says_where_no_chain_is_needed(known):
    model, batch, drives = known
    notes = mx.EarlyAnswering()(model, batch).info.notes
    assert any(note.startswith("nothing to measure") for note in notes) != drives


def test_integrated_gradients_give_the_answer_to_the_same_part(known):
    model, batch, drives = known
    scores = mx.IntegratedGradients(players="span", max_steps=100)(model, batch.pairs).data
    question, *_, last, cue = np.abs(scores["player_value"].values).mean(0)
    assert scores["player_name"].values[0, -1] == batch.wording.cue.strip()
    assert (last > question) == drives, (question, last, cue)
