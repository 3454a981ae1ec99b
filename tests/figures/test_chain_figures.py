"""Figures and tables of chains of thought show what was measured, and escape what models write."""

import numpy as np
import pytest

import mechxai as mx
from mechxai.core.reasoning import Problem, ReasoningBatch
from mechxai.figures.plot import plot
from mechxai.report.by_kind import result_tables
from mechxai.report.chain_tables import chain_tables
from tests.methods.cot.scripted import OPTIONS, Scripted, problem, reads_last, reads_question


@pytest.fixture
def batch():
    return ReasoningBatch(
        (problem("1 and 2 and 3?", (" 1 plus 2 is 3.", " 3 plus 3 is 6.")), problem("4 and 1?", (" 4 plus 1 is 5.",)))
    )


@pytest.mark.parametrize("method", [mx.EarlyAnswering, mx.AddingMistakes, mx.FillerTokens])
def test_a_curve_beside_its_controls(batch, method):
    result = method()(Scripted(batch, reads_last), batch)
    figure = plot(result)
    curve = next(one for one in figure.data if one.type == "scatter" and one.mode == "lines+markers")
    np.testing.assert_array_equal(curve.y, result.data["agreement"].values)
    right = next(one for one in figure.data if one.name == "right")
    assert right.x[0] == float(result.data["accuracy"])
    assert list(figure.layout.yaxis2.ticktext) == ["with the chain", "irrelevant chain", "another's chain", "no chain"]
    assert str(result.info.model["name"]) in figure.layout.title.text


def test_the_gate_stands_under_the_title(batch):
    figure = plot(mx.EarlyAnswering()(Scripted(batch, reads_question), batch))
    assert "nothing to measure" in figure.layout.title.subtitle.text


def test_what_became_of_errors_and_of_suggestions(batch):
    planted = plot(mx.PlantedError(step="last")(Scripted(batch, reads_last), batch))
    assert list(planted.layout.yaxis.ticktext)[:3] == ["follows the error", "keeps its answer", "another answer"]
    biased = plot(mx.BiasingFeature()(Scripted(batch, reads_last), batch))
    assert "moved to the suggested answer" in list(biased.layout.yaxis.ticktext)


def test_votes(batch):
    drawn = lambda question, seed: f" 3 plus 3 is {5 + seed % 2}."  # noqa: E731
    result = mx.SelfConsistency(samples=4)(Scripted(batch, reads_last, drawn), batch)
    figure = plot(result)
    assert sum(sum(one.y) for one in figure.data if one.type == "bar") == 2
    line = next(one for one in figure.data if one.type == "scatter" and one.mode == "lines+markers")
    assert list(line.x) == [1, 2, 3, 4]
    assert figure.layout.barmode == "stack"


def test_what_flows_is_coloured_over_the_chain_and_escaped():
    model = mx.load("zoo/cot", device="cpu")
    result = mx.ChainFlow()(model, mx.tasks.cot_arithmetic(model, n=3, steps=3, split="held_out"))
    shown = result.data["text"].copy()
    shown[0, 0] = "<b>bold</b>"
    figure = plot(mx.Result(result.data.assign(text=shown), result.info))
    bars = next(one for one in figure.data if one.type == "bar")
    np.testing.assert_array_equal(bars.y, result.data["recovered"].values)
    assert "&lt;b&gt;bold" in bars.x[0]
    assert "<span style='color:#2166ac'>" in bars.x[3]
    assert len(figure.data) == 2
    alone = plot(mx.ChainFlow(by_layer=False)(model, mx.tasks.cot_arithmetic(model, n=3, steps=3)))
    assert len(alone.data) == 1


def test_tables_say_what_was_measured_and_what_was_written(batch):
    result = mx.PlantedError(step="last")(Scripted(batch, reads_last), batch)
    tables = result_tables(result, {})
    (measured, texts) = tables.values()
    rows = {row["measure"]: row for row in measured}
    assert rows["follows"]["mean"] == "1.00"
    assert rows["accuracy with the chain (or the majority of chains)"]["95 %"] == "0.34 to 1.00"
    assert texts[0]["question"] == "1 and 2 and 3?"
    assert texts[0]["planted error"].startswith("3 plus 3 is ")
    unknown = ReasoningBatch((Problem("Why?", " 1", options=OPTIONS),))
    bare = mx.EarlyAnswering()(Scripted(unknown, reads_last), unknown)
    assert {row["measure"]: row["mean"] for row in next(iter(chain_tables(bare).values()))}["area over the curve"] == (
        "unknown"
    )
