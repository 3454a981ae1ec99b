"""The figure of speed-ups over TransformerLens: ``python -m benchmarks.figure``, from ``results/patching.json``."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from benchmarks.machine import ROOT, results
from mechxai.figures.colors import LINES, TOWARDS
from mechxai.figures.export import save_png
from mechxai.figures.theme import INK, dress

_QUIET = "#8a94a0"
_PER_ROW = 66  # pixels
_LOWER = 0.2  # vertical offset of the peers in rows, so that markers do not overlap
_LEGENDS = {"legend": {"y": 1.075}, "legend2": {"y": 1.0, "orientation": "h", "yanchor": "bottom", "x": 0}}


@dataclass(frozen=True)
class _Mark:
    """The marker of a contender."""

    name: str
    label: str
    symbol: str
    color: str
    size: int = 11
    legend: str = "legend2"


_PEERS = (
    _Mark("bridge", "TransformerLens 4 bridge", "diamond", _QUIET, legend="legend"),
    _Mark("nnsight", "nnsight, batched invokes", "triangle-up", LINES[1], legend="legend"),
    _Mark("start_at_layer", "hand-written batches", "square", LINES[4], 10, "legend"),
)
_OURS = (
    _Mark("wave", "MechXAI, level 1", "circle", "#c6dbef"),
    _Mark("suffix", "level 2", "circle", "#9ecae1"),
    _Mark("packed", "level 3", "circle", "#6baed6"),
    _Mark("fused", "level 4", "circle", TOWARDS, 14),
)


def main() -> None:
    """Writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="from the quick results, and next to them")
    quick = parser.parse_args().quick
    payload = json.loads(results("patching.json", quick=quick).read_text())
    target = results("engine_speed.png", quick=True) if quick else ROOT / "docs" / "images" / "engine_speed.png"
    print(f"written to {save_png(drawn(payload), target)}", file=sys.stderr)


def drawn(payload: Mapping[str, Any]) -> go.Figure:
    """One row per sweep and one marker per contender: speed-up over TransformerLens, logarithmic."""
    rows = payload["rows"]
    figure = go.Figure()
    best = [_best(row) for row in rows]
    floors = [_floor(row, payload["conditions"]) for row in rows]
    for y, (ratio, floor) in enumerate(zip(best, floors, strict=True)):
        for reach, color in ((floor, "#d9dee4"), (ratio, TOWARDS)):
            figure.add_scatter(
                x=[1, reach], y=[y, y], mode="lines", line={"color": color, "width": 2}, showlegend=False
            )
        label = f"<b>{ratio:.0f}\u00d7</b>"
        figure.add_annotation(x=_log(ratio), y=y, text=label, yshift=21, showarrow=False, bgcolor="white", borderpad=0)
    for mark in (*_PEERS, *_OURS):
        _add(figure, mark, _points(payload, mark.name))
    tick = {"symbol": "line-ns", "size": 18, "line": {"color": INK, "width": 2.5}}
    places = list(range(len(rows)))
    figure.add_scatter(
        x=floors, y=places, mode="markers", marker=tick, name="least arithmetic at matrix peak", legend="legend2"
    )
    title = (
        f"The same patching sweeps, {min(best):.0f} to {max(best):.0f} times faster than TransformerLens at 16 tokens"
    )
    dress(figure, title, _subtitle(payload), size=(800, _PER_ROW * len(rows)), room=(52, 12))
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    top = max([*floors, *best]) * 1.25
    figure.update_xaxes(
        type="log",
        range=[_log(0.85), _log(top)],
        tickvals=ticks,
        ticktext=[f"{tick}\u00d7" for tick in ticks],
        title="times faster than the sweep of TransformerLens 3.9 (1\u00d7), logarithmic",
    )
    figure.update_yaxes(
        range=[len(rows) - 0.5, -0.5],
        tickvals=places,
        ticktext=[_label(row) for row in rows],
        showgrid=False,
        ticks="",
        showline=False,
        tickfont={"size": 12},
    )
    figure.add_vline(x=1, line={"color": INK, "width": 1})
    return figure.update_layout(_LEGENDS)


def _add(figure: go.Figure, mark: _Mark, points: list[tuple[int, float]]) -> None:
    if points:
        rows, ratios = zip(*points, strict=True)
        y = [row + (_LOWER if mark in _PEERS else 0) for row in rows]
        style = {"symbol": mark.symbol, "color": mark.color, "size": mark.size, "line": {"color": "white", "width": 1}}
        figure.add_scatter(x=ratios, y=y, mode="markers", marker=style, name=mark.label, legend=mark.legend)


def _points(payload: Mapping[str, Any], name: str) -> list[tuple[int, float]]:
    """Row and speed-up of a contender; a contender of another process is matched by the shared reference."""
    others = {row["sweep"]: row["contenders"][name] for row in payload.get(name, {}).get("rows", ())}
    points = []
    for number, row in enumerate(payload["rows"]):
        ours = row["contenders"].get(name, {})
        if ours and "fell_back" not in ours:  # a fallback is the point of another level
            points.append((number, ours["ratio"]))
        elif not ours and row["sweep"] in others:
            seconds = row["contenders"]["TransformerLens"]["seconds"]
            points.append((number, seconds / others[row["sweep"]]["matched_seconds"]))
    return points


def _label(row: Mapping[str, Any]) -> str:
    site, _, over = row["sweep"].partition(", ")
    seconds = row["contenders"]["TransformerLens"]["seconds"]
    over = over.replace(" x ", " \u00d7 ")
    return f"<b>{site}</b>, {over}<br>{row['cells']:,} cells, {seconds:.0f} s in TransformerLens"


def _best(row: Mapping[str, Any]) -> float:
    ours = (row["contenders"].get(mark.name, {}) for mark in _OURS)
    return max(each["ratio"] for each in ours if each and "fell_back" not in each)


def _floor(row: Mapping[str, Any], known: Mapping[str, Any]) -> float:
    peak = max(known["matrix_peak_gflops"].values())
    return row["contenders"]["TransformerLens"]["seconds"] * peak / row["floor_gflop"]


def _subtitle(payload: Mapping[str, Any]) -> list[str]:
    known = payload["conditions"]
    versions = known["versions"]
    shape = str(known["shape"]).partition(", random")[0]
    return [
        f"{shape}; {known['prompts'].partition(':')[0]}; float32, one CPU thread, torch {versions['torch']}; "
        f"{known['repeats'].partition(';')[0]}. TransformerLens is timed on {known['cells_timed'].split()[0]} random "
        f"cells and scaled; the bridge and nnsight run in separate environments, matched by a forward pass "
        f"that all processes share. Values agree to {_error(payload):.0e}.",
    ]


def _error(payload: Mapping[str, Any]) -> float:
    every = [payload["rows"], payload.get("bridge", {}).get("rows", ())]
    errors = [
        each.get("largest_difference", 0.0) for rows in every for row in rows for each in row["contenders"].values()
    ]
    return max(errors)


def _log(number: float) -> float:
    """A position on a logarithmic plotly axis."""
    return float(np.log10(number))


if __name__ == "__main__":
    main()
