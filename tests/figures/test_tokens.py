"""Coloured tokens: as bars, rows, HTML and terminal text; nothing in a token can become markup."""

import numpy as np
import pytest
import xarray as xr

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.result import Result, RunInfo, variable
from mechxai.figures.colors import AGAINST, TOWARDS, diverging
from mechxai.figures.text import safe

HOSTILE = "<script>alert(1)</script>"


def attribution(n=1, tokens=("<bos>", " Mary", HOSTILE, "\n")):
    value = np.tile([np.nan, 2.0, -1.0, 0.5], (n, 1))
    of = np.tile([-1, 0, 1, 2], (n, 1))
    text = np.tile(np.array(tokens, dtype=str), (n, 1))
    data = {
        "value": variable(("prompt", "pos"), value, "logits", "score"),
        "player_value": variable(("prompt", "player"), value[:, 1:], "logits", "score"),
        "player_index": variable(("prompt", "pos"), of, "number", "player"),
        "player_name": variable(("prompt", "player"), text[:, 1:], "text", "players"),
        "token": variable(("prompt", "pos"), text, "text", "tokens"),
        "target": variable(("prompt",), np.array([" Mary <b>"] * n), "text", "target"),
        "target_score": variable(("prompt",), np.full(n, 2.0), "logits", "score"),
        "baseline_score": variable(("prompt",), np.full(n, 0.25), "logits", "score"),
        "delta": variable(("prompt",), np.full(n, -0.25), "logits", "gap"),
    }
    info = RunInfo(
        method={"name": "occlusion", "metric": "logit_diff"},
        model={"name": "zoo/ioi"},
        task={"name": "ioi"},
        kind="attribution",
    )
    return Result(xr.Dataset(data, coords={"prompt": list(range(n)), "pos": list("0123")}), info)


def test_one_prompt_is_bars_read_from_the_top():
    figure = mx.plot(attribution())
    (bars,) = figure.data
    assert list(bars.x) == [2.0, -1.0, 0.5]
    assert list(bars.marker.color) == [TOWARDS, AGAINST, TOWARDS]
    assert figure.layout.yaxis.autorange == "reversed"
    assert "sum of the scores minus change of the target's score" in figure.layout.title.subtitle.text


def test_several_prompts_are_rows_scaled_each_by_itself():
    figure = mx.plot(attribution(3))
    (cells,) = figure.data
    assert np.array(cells.z).shape == (3, 4)
    assert np.array(cells.z)[0].tolist() == [0.0, 1.0, -0.5, 0.25]
    assert cells.zmin == -1
    assert cells.zmax == 1
    assert "never removed" in cells.hovertext[0][0]


@pytest.mark.parametrize("n", [1, 3])
def test_tokens_cannot_bring_markup_into_figures(n):
    text = mx.plot(attribution(n)).to_json()
    assert "<script>" not in text
    assert "<b>" not in text.replace("<b>Occlusion: score of each token on zoo/ioi</b>", "")


def test_html_is_escaped_and_coloured():
    page = mx.token_html(attribution())
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert diverging(1.0) in page
    assert diverging(-0.5) in page
    assert "\\n" in page  # a line break is shown, not made
    assert 'title="2 logits"' in page


def test_terminal_text_has_every_token_on_its_colour():
    text = mx.token_text(attribution())
    assert HOSTILE in text.plain
    assert " Mary" in text.plain
    colors = {span.style.bgcolor.name for span in text.spans if span.style.bgcolor}
    assert colors == {diverging(1.0), diverging(-0.5), diverging(0.25)}


def test_colours_of_shares():
    assert diverging(0.0) == "#f7f7f7"
    assert diverging(1.0) == "#053061"
    assert diverging(-1.0) == "#67001f"


def test_a_prompt_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="Prompt 3"):
        mx.token_html(attribution(), prompt=3)


def test_a_comparison_is_curves_and_gains_and_rows(zoo):
    batch = mx.tasks.ioi(zoo, n=3)
    few = {"random_draws": 3, "infidelity_draws": 4, "soft_draws": 0}
    result = mx.CompareAttributions(("occlusion", "saliency"), **few)(zoo, batch)
    figure = mx.plot(result)
    assert {"occlusion", "saliency", "random"} <= {trace.name for trace in figure.data}
    rows = mx.method_rows(result, prompt=1)
    assert list(rows.layout.yaxis.ticktext) == ["occlusion", "saliency"]
    assert [safe(token) for token in batch.strings[1]][1] in rows.data[0].text[0]
    judged = mx.plot(mx.Faithfulness("occlusion", **few, sensitivity_draws=0, randomise=False)(zoo, batch))
    curve = next(trace for trace in judged.data if trace.name == "occlusion")
    assert curve.y[0] == pytest.approx(float(result.data["deletion"].values[0, 0]), abs=1e-4)
