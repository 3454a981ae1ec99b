"""The picture of a lens: what stands in the cells, beside the pointer, and on the axes."""

import numpy as np
import pytest
import xarray as xr

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.result import Result, RunInfo, variable
from tests.figures import examples

WORDS = ("<bos>", " When", "<b>", "\n")


def reading(n_prompts=2, n_layers=3, tokens=WORDS, over=("layer", "pos"), blanks=0):
    """Every layer's top token is ``top<layer>`` with probability a tenth of the layer; padding at the end."""
    shape = (n_prompts, n_layers + 1, len(tokens))
    level = np.broadcast_to(np.arange(n_layers + 1)[None, :, None] / 10 + 0.1, shape).copy()
    top = np.stack([np.log(level), np.log(level / 2)], -1)
    ids = np.broadcast_to(np.arange(2), (*shape, 2)).copy()
    text = np.array([[[[f"top{layer}", "<i>"]] * len(tokens) for layer in range(n_layers + 1)]] * n_prompts)
    if blanks:
        ids[0, :, -blanks:] = -1
    dims = ("prompt", "layer", "pos")
    data = {
        "value": variable(over, np.log(level[0]) if "pos" in over else np.log(level[0, :, 0]), "nats", "logprob"),
        "top_token": variable((*dims, "k"), ids, "token", "ids"),
        "top_text": variable((*dims, "k"), text, "token", "texts"),
        "top_logprob": variable((*dims, "k"), top, "nats", "log-probabilities"),
        "token": variable(("prompt", "pos"), np.array([tokens] * n_prompts), "token", "prompt"),
        **{
            name: variable(dims, level * factor, "nats", name)
            for name, factor in (("target_logprob", -1), ("target_rank", 10), ("entropy", 2), ("kl_to_final", 3))
        },
    }
    coords = {"prompt": range(n_prompts), "layer": range(n_layers + 1), "pos": [f"{at}" for at in range(len(tokens))]}
    info = RunInfo(
        method={"name": "logit_lens", "site": "resid_pre"}, model={"name": "zoo/x"}, task={"name": "ioi"}, kind="lens"
    )
    return Result(xr.Dataset(data, coords=coords), info)


def test_top_tokens_in_the_cells_and_their_probability_as_colour():
    figure = mx.plot(reading())
    (cells,) = figure.data
    assert [row[0] for row in cells.text] == ["top0", "top1", "top2", "top3"]
    np.testing.assert_allclose(cells.z[:, 0], [0.1, 0.2, 0.3, 0.4])
    assert figure.layout.coloraxis.cmax == 1
    assert list(figure.layout.yaxis.ticktext) == ["0", "1", "2", "output"]
    assert list(figure.layout.xaxis.ticktext) == ["&lt;bos&gt;", "When", "&lt;b&gt;", "\\n"]
    assert "logit lens" in figure.layout.title.text.lower()


def test_what_the_pointer_shows_is_escaped():
    (cells,) = mx.plot(reading()).data
    text = cells.hovertext[1][2]
    assert "layer 1, 2: &lt;b&gt;" in text
    assert "0.2  top1" in text
    assert "0.1  &lt;i&gt;" in text
    assert "rank 2" in text
    assert "entropy 0.4 nats, KL to output 0.6 nats" in text
    assert "<i>" not in text


@pytest.mark.parametrize(
    ("name", "expected", "unit"),
    [("entropy", 0.2, "nats"), ("kl_to_final", 0.3, "nats"), ("target_rank", 1.0, "rank")],
)
def test_other_statistics_as_colour(name, expected, unit):
    figure = mx.plot(reading(), name)
    np.testing.assert_allclose(figure.data[0].z[0, 0], expected)
    assert figure.layout.coloraxis.colorbar.title.text == unit
    np.testing.assert_allclose(mx.plot(reading(), "target_logprob").data[0].z[0, 0], np.exp(-0.1))


def test_padding_is_left_out_and_prompts_are_chosen():
    short = reading(blanks=1)
    assert len(mx.plot(short).data[0].z[0]) == 3
    assert len(mx.plot(short, select={"prompt": 1}).data[0].z[0]) == 4
    with pytest.raises(ConfigError, match=r"Prompt 7 does not exist.*0"):
        mx.plot(short, select={"prompt": 7})


def test_long_prompts_show_their_end():
    figure = mx.plot(reading(tokens=tuple(f"w{at}" for at in range(60))))
    assert len(figure.data[0].z[0]) == 24
    assert figure.layout.xaxis.ticktext[-1] == "w59"
    assert "the last 24 of 60 positions" in figure.layout.title.subtitle.text


def test_layers_alone_are_a_trajectory():
    (trace,) = mx.plot(reading(over=("layer",))).data
    assert trace.type == "scatter"
    assert len(trace.y) == 4


def test_of_many_bars_the_longest_are_drawn():
    values = np.zeros(500)
    values[[3, 400]] = [-2.0, 1.0]
    names = [f"m0.n{at}" for at in range(500)]
    data = xr.Dataset(
        {"mean": variable(("component",), values, "logits", "what a component adds")}, coords={"component": names}
    )
    figure = mx.plot(Result(data, examples.info("direct_logit_attribution", "", ())))
    (bars,) = figure.data
    assert len(bars.y) == 60
    assert min(bars.y) == -2
    assert "the 60 largest of 500" in figure.layout.title.subtitle.text
