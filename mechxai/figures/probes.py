"""Probes: accuracy with controls by layer, and the effect of edits along the probes' directions."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from mechxai.core.result import Result
from mechxai.figures.colors import LINES, faint
from mechxai.figures.text import interval, number, safe, words
from mechxai.figures.theme import INK, QUIET, dress

_CONTROL_BARS = ("#9aa5b1", "#d3d9e0")
_MAX_SITES = 4
_HEIGHT = 250


def probe_bars(result: Result) -> go.Figure | None:
    """Accuracy, its controls and selectivity by layer, one panel per site; None for several positions or many sites."""
    sizes = result.data.sizes
    if sizes.get("pos") != 1 or sizes.get("site", _MAX_SITES + 1) > _MAX_SITES:
        return None
    data = result.data.isel(pos=0)
    main = "accuracy" if "accuracy" in data else "r2"
    rows = (
        (main, LINES[0], "trained model"),
        (f"random_model_{main}", _CONTROL_BARS[0], "random weights"),
        (f"control_{main}", _CONTROL_BARS[1], "control labels"),
        ("selectivity", LINES[2], "selectivity"),
    )
    sites = [str(site) for site in data["site"].values]
    figure = make_subplots(
        rows=len(sites), cols=1, subplot_titles=sites if len(sites) > 1 else None, vertical_spacing=0.26 / len(sites)
    )
    layers = [int(layer) for layer in data["layer"].values]
    for at, _ in enumerate(sites):
        site = data.isel(site=at)
        for name, color, label in rows:
            if name in site:
                figure.add_trace(_bars(site, name, layers, style=(color, label, at == 0)), row=at + 1, col=1)
        if "majority_baseline" in site:
            figure.add_trace(_majority_baseline(site, layers, in_legend=at == 0), row=at + 1, col=1)
    ends = [float(data[name].min()) for name in ("selectivity", "selectivity_low", main) if name in data]
    bottom = min(0.0, *ends)
    figure.update_yaxes(title_text="fraction", range=[bottom * 1.1, 1.06])
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(layers))), ticktext=[str(layer) for layer in layers])
    figure.update_xaxes(title_text="layer", row=len(sites), col=1)
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.05)
    title = f"{_probe(result).capitalize()} probe of {_task(result)}: {words(main)} by layer"
    lines = [
        _description(result, str(data["pos"].values)),
        f"selectivity: {words(main)} minus control {words(main)}; whiskers: 95 % bootstrap interval over test prompts",
    ]
    width = min(900, max(560, 74 * len(layers)))
    room = 56 if len(sites) > 1 else 34
    dress(figure, title, lines, size=(width, _HEIGHT * len(sites)), room=(room, 0))
    return figure.update_layout(legend={"y": 1 + (24 if len(sites) > 1 else 6) / (_HEIGHT * len(sites))})


def causal_lines(result: Result) -> go.Figure:
    """By layer: the probe's accuracy, and for every edit the drop of the metric compared with random directions."""
    data = result.data
    edits = [str(edit) for edit in data["edit"].values]
    layers = [int(layer) for layer in data["layer"].values]
    titles = ["probe accuracy", *(words(edit) for edit in edits)]
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.07)
    for name, color, label, dash in (
        ("accuracy", LINES[2], "accuracy", "solid"),
        ("control_accuracy", QUIET, "accuracy on control labels", "dot"),
    ):
        _line(figure, data, name, style=(color, label, dash, 1))
    for at, _ in enumerate(edits):
        edit = data.isel(edit=at)
        _line(figure, edit, "placebo", style=(QUIET, "random directions" if at == 0 else "", "dot", at + 2))
        _line(figure, edit, "value", style=(LINES[0], "probe direction" if at == 0 else "", "solid", at + 2))
    gap = float(data["baseline_clean"].mean() - data["baseline_corrupted"].mean())
    unit = str(data["value"].attrs["units"])
    values = [data[f"{name}{end}"].values for name in ("value", "placebo") for end in ("", "_low", "_high")]
    ends = [min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))]
    room = 0.08 * (ends[1] - ends[0] or 1.0)
    figure.update_yaxes(range=[ends[0] - room, ends[1] + room])
    figure.update_yaxes(range=[0, 1.05], row=1, col=1)
    figure.update_yaxes(
        title_text=f"drop of {safe(str(result.info.method.get('metric')))} ({safe(unit)})", row=1, col=2
    )
    figure.update_xaxes(title_text="layer", dtick=1 if len(layers) <= 13 else None)
    figure.update_annotations(font_size=13)
    lines = [
        _description(result, str(result.info.method.get("pos") or "")),
        f"gap between clean and corrupted: {number(gap, unit)}; bands: 95 % bootstrap interval over test prompts",
    ]
    title = f"Effect of edits along {_probe(result)} probe directions for {_task(result)}"
    dress(figure, title, lines, size=(230 * len(titles), _HEIGHT), room=(52, 0))
    return figure.update_layout(legend={"y": 1 + 24 / _HEIGHT})


def _bars(data: xr.Dataset, name: str, layers: list[int], *, style: tuple[str, str, bool]) -> go.Bar:
    color, label, in_legend = style
    values = data[name].values.astype(float)
    ends = [data[f"{name}_{end}"].values.astype(float) for end in ("low", "high") if f"{name}_{end}" in data]
    whiskers = None
    if ends:
        arms = {"array": ends[1] - values, "arrayminus": values - ends[0]}
        whiskers = {"type": "data", **arms, "color": INK, "thickness": 1.1, "width": 2}
    bounds = [interval(*(float(end[at]) for end in ends)) if ends else "" for at in range(len(values))]
    return go.Bar(
        x=list(range(len(layers))),
        y=values,
        name=label,
        legendgroup=label,
        showlegend=in_legend,
        marker_color=color,
        error_y=whiskers,
        hovertext=[
            f"<b>layer {layer}</b><br>{label} {number(value)}" + (f"<br>95 % {bound}" if bound else "")
            for layer, value, bound in zip(layers, values.tolist(), bounds, strict=True)
        ],
        hoverinfo="text",
    )


def _majority_baseline(data: xr.Dataset, layers: list[int], *, in_legend: bool) -> go.Scatter:
    """The accuracy of always giving the most frequent label, as steps across the layers."""
    return go.Scatter(
        x=[at + end for at in range(len(layers)) for end in (-0.5, 0.5)],
        y=np.repeat(data["majority_baseline"].values.astype(float), 2),
        mode="lines",
        line={"color": INK, "width": 1.3, "dash": "dash"},
        name="majority baseline",
        legendgroup="majority",
        showlegend=in_legend,
        hoverinfo="name+y",
    )


def _line(figure: go.Figure, data: xr.Dataset, name: str, *, style: tuple[str, str, str, int]) -> None:
    color, label, dash, column = style
    layers = [int(layer) for layer in data["layer"].values]
    values = data[name].values.astype(float)
    if f"{name}_low" in data:
        edge = {"x": layers, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(go.Scatter(y=data[f"{name}_low"].values, **edge), row=1, col=column)
        fill = {"fill": "tonexty", "fillcolor": faint(color)}
        figure.add_trace(go.Scatter(y=data[f"{name}_high"].values, **fill, **edge), row=1, col=column)
    figure.add_trace(
        go.Scatter(
            x=layers,
            y=values,
            mode="lines+markers",
            line={"color": color, "width": 2.2, "dash": dash},
            marker={"size": 6},
            name=label,
            showlegend=bool(label),
            hovertext=[f"layer {layer}: {number(value)}" for layer, value in zip(layers, values.tolist(), strict=True)],
            hoverinfo="text",
        ),
        row=1,
        col=column,
    )


def _probe(result: Result) -> str:
    return words(str(result.info.method.get("probe")))


def _task(result: Result) -> str:
    return safe(words(str(result.info.task.get("name", "the labels"))))


def _description(result: Result, pos: str) -> str:
    info: Mapping[str, object] = result.info.model
    site = result.info.method.get("site")
    names = ", ".join(map(str, site)) if isinstance(site, (list, tuple)) else str(site or "")
    parts = [str(info.get("name", "")), names, f"position {pos}" if pos else "", f"{result.info.task.get('n')} prompts"]
    return safe(" · ".join(part for part in parts if part), 120)
