"""Circuit figures: the place of every edge, its width by size, its colour by sign."""

import numpy as np
import pytest
import xarray as xr

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.result import Result, variable
from mechxai.figures.circuit import circuit_figure
from mechxai.figures.text import number
from tests.figures.examples import head_roles, info, sweep

EDGES = [
    ("embed", "a0.h1.q", 4.0), ("embed", "a0.h1.v", 2.0), ("a0.h1", "m0", -1.0), ("m0", "a1.h3.k", 1.0),
    ("a1.h3", "logits", 3.0), ("embed", "a1.g0.k", 0.5), ("embed", "logits", 0.0),
]  # fmt: skip


def edges(listed=EDGES):
    src, dest, values = ([edge[at] for edge in listed] for at in range(3))
    coords = {"edge": [f"{a} -> {b}" for a, b, _ in listed], "src": ("edge", src), "dest": ("edge", dest)}
    data = {"value": variable(("edge",), np.array(values), "logits", "effect of the edge")}
    return Result(xr.Dataset(data, coords=coords), info("edge_patching", "edges", ("edge",)))


def lines(figure):
    return [trace for trace in figure.data if trace.mode == "lines"]


def test_edges_by_hand():
    figure = mx.plot(edges())
    drawn = {trace.text: trace for trace in lines(figure)}
    assert len(drawn) == 6, "an edge with score 0 is not drawn"
    widest = drawn["embed to a0.h1 (query): 4 logits"]
    assert widest.line.width == max(trace.line.width for trace in drawn.values())
    against = drawn[f"a0.h1 to m0: {number(-1.0, 'logits')}"]
    assert against.line.color != widest.line.color
    for trace in drawn.values():
        assert trace.y[-1] > trace.y[0], "layers go upward"
    query, value = widest.x[-1], drawn["embed to a0.h1 (value): 2 logits"].x[-1]
    assert query < value, "queries left, values right"
    (nodes,) = (trace for trace in figure.data if trace.mode == "markers+text")
    assert set(nodes.text) == {"embed", "0.1", "m0", "1.0", "1.3", "logits"}
    heights = dict(zip(nodes.text, nodes.y, strict=True))
    assert heights["embed"] < heights["0.1"] < heights["m0"] < heights["1.3"] < heights["logits"]


def test_only_the_largest_edges_are_drawn():
    figure = circuit_figure(edges(), n=2)
    assert len(lines(figure)) == 2
    assert "the 2 largest of 7 edges" in figure.layout.title.subtitle.text


def test_roles_are_written_beside_their_heads():
    roles = head_roles()
    roles.data["role"].values[:] = ""
    roles.data["role"].values[1, 3] = "name_mover"
    figure = circuit_figure(edges(), roles=roles)
    assert [note.text for note in figure.layout.annotations] == ["name mover"]


def test_results_without_edges_are_refused():
    with pytest.raises(ConfigError, match="evaluate_circuit"):
        circuit_figure(sweep())


def test_the_curve_and_random_circuits():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=8)
    result = mx.EvaluateCircuit(truth="visible_swap")(model, batch)
    figure = mx.plot(result)
    names = [trace.name for trace in figure.data if trace.name]
    assert names == ["random circuits", "edge attribution"]
    assert figure.layout.xaxis.type == "log"
    assert "AUROC 0.99" in figure.layout.title.subtitle.text or "AUROC 1" in figure.layout.title.subtitle.text
    alone = mx.plot(mx.EvaluateCircuit(random_draws=0)(model, batch))
    assert [trace.name for trace in alone.data if trace.name] == ["edge attribution"]
    assert len(lines(circuit_figure(result))) > 5
