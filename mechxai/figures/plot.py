"""`plot`: a result as a plotly figure."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import plotly.graph_objects as go

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import Method
from mechxai.core.result import Result
from mechxai.figures.by_kind import kind_figure
from mechxai.figures.heatmap import default_scale, facets, heatmap, slider
from mechxai.figures.line import bars, line
from mechxai.figures.selected_variable import (
    MAX_DIMS,
    SelectedVariable,
    default_variable,
    frame_dim,
    select_variable,
    too_many_dims,
)
from mechxai.figures.theme import dress, headline

FigureKind = Literal["auto", "heatmap", "line", "bar", "slider", "facets"]
_FEW_FRAMES = 4
# Dims whose coordinates have no order, so that a line between them would mean nothing.
_UNORDERED = ("head", "method", "component", "edge", "site")
# Figure kind -> the numbers of dims that it can draw.
_DIMS: Mapping[str, tuple[int, ...]] = {
    "heatmap": (2,),
    "line": (1, 2),
    "bar": (0, 1),
    "slider": (3,),
    "facets": (3,),
}


def plot(
    result: Result,
    variable: str | None = None,
    kind: FigureKind = "auto",
    *,
    select: Mapping[str, object] | None = None,
    center: float | None = None,
    title: str | None = None,
) -> go.Figure:
    """Draws a result, by default in the form that suits its kind.

    With ``kind="auto"`` and neither ``variable`` nor ``select``, the result's kind decides: coloured tokens for
    attributions (bars for a single prompt), a graph for edges and for information flow routes, the top token in every
    cell for a lens, one panel per score for head roles, accuracy with its controls for probes, faithfulness curves
    with random baselines for circuits and attributions, and so on.

    Every other result, and every named variable, is drawn by its number of dims. Two dims make a heatmap (layers
    upward, positions or heads to the right). One dim makes a line with its bootstrap band, or bars with whiskers where
    the coordinates have no order. Three dims make a heatmap with a slider, or several heatmaps side by side when the
    third dim is short. Colours are symmetric around 0 (`SelectedVariable.center` lists the exceptions): blue is
    towards the answer, red against it.

    Args:
        result: the output of any method.
        variable: a variable of ``result.data``; by default ``recovered`` for activation patching and causal tracing,
            else ``value``, else the first variable that can be drawn.
        kind: ``auto``, ``heatmap``, ``line``, ``bar``, ``slider`` or ``facets``.
        select: dims to hold fixed, such as ``{"pos": "S2"}``; a position by its label or its number.
        center: the value of the neutral colour; by default 0, the mean of the clean run for the metric after an
            ablation, or the array's attribute ``neutral``.
        title: replaces the title made from the method, site and variable.

    Returns:
        A new figure with its own size and template; plotly's global defaults are neither read nor changed.

    Raises:
        ConfigError: ``result`` is not a `Result`; the variable, kind or coordinate does not exist; more than three
            dims remain; or the kind does not fit the number of dims.
    """
    _check_result(result)
    check_choice("kind", kind, get_args(FigureKind))
    figure = kind_figure(result, variable or "", select or {}) if kind == "auto" else None
    if figure is None:
        figure = _variable_figure(result, variable or default_variable(result), (kind, center, select or {}))
    if title is not None:
        figure.update_layout(title_text=headline(title, figure.layout.width))
    return figure


def _check_result(result: object) -> None:
    if isinstance(result, Result):
        return
    if isinstance(result, (list, tuple, dict)):
        fix = 'Plot each result, or use mx.report([...], "report.html") for one page'
    elif isinstance(result, (str, bytes)):
        fix = "Load a saved result first: mx.plot(mx.Result.load(path))"
    elif isinstance(result, Method):
        fix = "Run the method first: mx.plot(method(model, batch))"
    elif isinstance(result, ContrastBatch):
        fix = "Run a method on it first: mx.plot(method(model, batch))"
    else:
        fix = "Pass what a method returns: mx.plot(method(model, batch))"
    name = type(result).__name__
    raise ConfigError(f"mx.plot draws a Result, not {'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}", fix=fix)


def _variable_figure(
    result: Result, name: str | None, settings: tuple[str, float | None, Mapping[str, object]]
) -> go.Figure:
    """The heatmap, lines or bars of one variable."""
    kind, center, select = settings
    if name is None:
        return _empty_figure(result)
    selected = select_variable(result, name, select)
    if len(selected.dims) > MAX_DIMS:
        raise too_many_dims(name, selected.array)
    if selected.array.size == 0:
        return _empty_figure(result)
    return _draw(selected, _auto_kind(selected) if kind == "auto" else kind, center)


def _draw(selected: SelectedVariable, kind: str, center: float | None) -> go.Figure:
    if len(selected.dims) not in _DIMS[kind]:
        raise ConfigError(
            f"{selected.name!r} has {len(selected.dims)} dims {selected.dims}: kind={kind!r} cannot draw it",
            allowed=[name for name, counts in _DIMS.items() if len(selected.dims) in counts],
        )
    colored: dict[str, Callable[..., go.Figure]] = {"heatmap": heatmap, "slider": slider, "facets": facets}
    if kind in colored:
        return colored[kind](selected, default_scale(selected, center))
    return line(selected) if kind == "line" else bars(selected)


def _auto_kind(selected: SelectedVariable) -> str:
    dims = selected.dims
    if len(dims) == 3:
        return "facets" if selected.array.sizes[frame_dim(dims)] <= _FEW_FRAMES else "slider"
    if len(dims) == 2:
        return "line" if {"lens", "choice"} & set(dims) else "heatmap"
    is_text = bool(dims) and dims[0] in selected.array.coords and selected.array.coords[dims[0]].dtype.kind in "UOS"
    return "bar" if not dims or dims[0] in _UNORDERED or is_text else "line"


def _empty_figure(result: Result) -> go.Figure:
    figure = go.Figure()
    figure.add_annotation(text="this result holds no numbers to draw", showarrow=False, font={"size": 14})
    figure.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
    return dress(figure, result.info.title, [], size=(400, 120))
