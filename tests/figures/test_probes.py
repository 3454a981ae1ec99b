"""Figures of probes: what is drawn, named and explained."""

import pytest

import mechxai as mx


@pytest.fixture(scope="module")
def numbers(zoo):
    return mx.tasks.subject_number(zoo, n=60)


def test_bars_by_layer_with_controls_beside_them(zoo, numbers):
    figure = mx.plot(mx.LinearProbes(site=["resid_mid", "resid_post"])(zoo, numbers))
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [bar.name for bar in bars[:4]] == ["trained model", "random weights", "control labels", "selectivity"]
    assert len(bars) == 8
    assert [bar.showlegend for bar in bars] == [True] * 4 + [False] * 4
    assert bars[0].error_y.array is not None
    assert list(figure.layout.xaxis2.ticktext) == ["0", "1", "2", "3"]
    assert figure.layout.yaxis.title.text == "fraction"
    assert "subject number" in figure.layout.title.text


def test_a_map_of_layers_and_positions(zoo, numbers):
    result = mx.LinearProbes(pos=["SUBJECT", "END", 1], random_model=False)(zoo, numbers)
    figure = mx.plot(result)
    assert figure.data[0].type == "heatmap"
    assert figure.data[0].z.shape == (4, 3)
    selectivity = mx.plot(result, "selectivity")
    assert selectivity.data[0].type == "heatmap"


def test_edits_beside_random_directions(zoo, numbers):
    result = mx.ProbeCausalCheck(placebos=2)(zoo, numbers)
    figure = mx.plot(result)
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert named == ["accuracy", "accuracy on control labels", "random directions", "probe direction"]
    assert figure.layout.yaxis2.title.text == "drop of logit_diff (logits)"
    assert "gap between clean and corrupted" in figure.layout.title.subtitle.text


def test_a_report_says_what_was_done(zoo, numbers, tmp_path):
    result = mx.LinearProbes(random_model=False)(zoo, numbers)
    text = mx.report([result], tmp_path / "r.html").read_text()
    assert "A logistic probe was trained on resid_post" in text
    assert "control: shuffle" in text
