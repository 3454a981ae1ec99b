"""Routes drawn: every edge above the threshold where it belongs, wide by its importance, and nothing else."""

import numpy as np
import pytest
import xarray as xr

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.result import Result, variable
from mechxai.figures.colors import TOWARDS
from mechxai.figures.routes import routes_figure
from tests.figures.examples import info, sweep

NAN = np.nan


def routes():
    """One layer over three tokens, followed from the last: half of it stays, the first token brings 0.3, itself 0.1."""
    nodes, unit = ("prompt", "layer", "dest_pos"), "fraction"
    arrays = {
        "node": (("prompt", "stream", "pos"), [[[0.3, 0.0, 0.6], [0.0, 0.0, 1.0]]], "fraction"),
        "node_mid": (("prompt", "layer", "pos"), [[[0.0, 0.0, 1.0]]], "fraction"),
        "attention": ((*nodes, "src_pos"), [[[[NAN] * 3, [NAN] * 3, [0.3, 0.01, 0.1]]]], unit),
        "head_importance": ((*nodes, "head"), [[[[NAN] * 2, [NAN] * 2, [0.01, 0.4]]]], unit),
        "residual_attention": (nodes, [[[NAN, NAN, 0.5]]], unit),
        "mlp": (nodes, [[[NAN, NAN, 0.8]]], unit),
        "residual_mlp": (nodes, [[[NAN, NAN, 0.2]]], unit),
        "token": (("prompt", "pos"), [["<bos>", " Mary", " <b>"]], "text"),
        "start": (("prompt",), [2], "position"),
    }
    data = {name: variable(dims, np.array(values), units, name) for name, (dims, values, units) in arrays.items()}
    return Result(xr.Dataset(data), info("information_flow_routes", "", (), threshold=0.02))


def drawn(figure):
    """(x, y) of both ends -> width, of every edge."""
    found = {}
    for trace in figure.data:
        if trace.mode == "lines":
            x, y = np.array(trace.x, float), np.array(trace.y, float)
            for at in np.split(np.arange(len(x)), np.nonzero(np.isnan(x))[0]):
                own = at[~np.isnan(x[at])]
                if len(own):
                    ends = tuple((float(x[one]), float(y[one])) for one in own[[0, -1]])
                    found[ends, trace.line.color] = trace.line.width
    return found


def test_edges_by_hand():
    found = drawn(mx.plot(routes()))
    across, own = found[((0, 0), (2, 0.5)), TOWARDS], found[((2, 0), (2, 0.5)), TOWARDS]
    assert across > own
    assert {ends for ends, _ in found} == {((0, 0), (2, 0.5)), ((2, 0), (2, 0.5)), ((2, 0.5), (2, 1))}
    assert len(found) == 5, "two of attention, two of the residual stream, one MLP; none below the threshold"


def test_what_is_said():
    figure = mx.plot(routes())
    texts = [text for trace in figure.data if trace.mode == "markers" for text in trace.hovertext]
    assert "<b>attention, layer 0</b><br>0: &lt;bos&gt; to 2: &lt;b&gt;<br>importance 0.3, flow 0.3" in texts
    assert "<b>MLP, layer 0</b><br>2: &lt;b&gt;<br>importance 0.8, flow 0.8" in texts
    (top,) = (text for text in texts if "after the last layer" in text)
    assert top.endswith("flow 1<br>most important heads: 0.1 0.4, 0.0 0.01")
    assert figure.layout.title.text == '<b>Information flow routes into position 2, "&lt;b&gt;"</b>'
    assert list(figure.layout.xaxis.ticktext) == ["0: &lt;bos&gt;", "1: Mary", "2: &lt;b&gt;"]


def test_the_strongest_edges_and_no_more():
    figure = routes_figure(routes(), n=1)
    assert ((2, 0), (2, 0.5)) not in {ends for ends, color in drawn(figure) if color == TOWARDS}
    assert "the 1 attention edges with the largest flow, of 2" in figure.layout.title.subtitle.text


def test_one_variable_alone_is_drawn_as_any_other():
    assert mx.plot(routes(), "node", select={"prompt": 0}).data[0].type == "heatmap"


def test_refused():
    with pytest.raises(ConfigError, match=r"activation_patching.*information_flow_routes"):
        routes_figure(sweep())
    with pytest.raises(ConfigError, match="Prompt 1 is out of range"):
        routes_figure(routes(), 1)


def test_a_long_prompt_shows_what_its_edges_of_attention_join(monkeypatch):
    monkeypatch.setattr("mechxai.figures.routes._ALL_TOKENS", 2)
    figure = mx.plot(routes())
    assert list(figure.layout.xaxis.ticktext) == ["0: &lt;bos&gt;", "2: &lt;b&gt;"]
    assert ((0, 0), (1, 0.5)) in {ends for ends, _ in drawn(figure)}
