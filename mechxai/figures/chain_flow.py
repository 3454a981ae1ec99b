"""Information flow through the steps of a chain of thought."""

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from mechxai.core.result import Result
from mechxai.figures.colors import AGAINST, TOWARDS
from mechxai.figures.text import words, wrapped
from mechxai.figures.theme import QUIET, dress

_CLEAR = 0.05  # smallest share of the answer that gets a colour
_LABEL_WIDTH = 18  # characters


def flow_figure(result: Result) -> go.Figure:
    """The effect of patching each part of the prompt at all layers, and a heatmap by layer where it was measured."""
    data = result.data
    parts = _labels(data)
    with_layers = "flow" in data
    figure = make_subplots(
        rows=1 + with_layers,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.08,
        row_heights=[0.55, 0.45][: 1 + with_layers],
    )
    values, low, high = (data[f"recovered{end}"].values for end in ("", "_low", "_high"))
    figure.add_bar(
        x=parts,
        y=values,
        marker_color=[TOWARDS if value >= 0 else AGAINST for value in values],
        error_y={"type": "data", "array": high - values, "arrayminus": values - low, "thickness": 1.2, "width": 3},
        hovertemplate="%{x}: %{y:.0%}<extra></extra>",
        showlegend=False,
    )
    figure.update_yaxes(title_text="share of the answer", tickformat=".0%", row=1, col=1)
    if with_layers:
        _layers(figure, data, parts)
    verb = "taken from" if result.info.method.get("direction") == "noise" else "patched into"
    lines = [
        f"each part's activations {verb} the run of another problem, at all layers; below, at a single layer",
        f"95 % over {len(data['prompt'])} pairs of problems",
    ]
    title = f"Information flow to the answer, {result.info.model.get('name')}"
    return dress(figure, title, lines, size=(640, 460 if with_layers else 300))


def _layers(figure: go.Figure, data: xr.Dataset, parts: list[str]) -> None:
    """Adds the heatmap of each layer's effect."""
    figure.add_heatmap(
        x=parts,
        y=data["layer"].values,
        z=data["flow"].values,
        coloraxis="coloraxis",
        hovertemplate="%{x}, layer %{y}: %{z:.0%}<extra></extra>",
        row=2,
        col=1,
    )
    figure.update_yaxes(title_text="layer", dtick=1, row=2, col=1)
    stops = [[0, AGAINST], [0.5, "#f7f7f7"], [1, TOWARDS]]
    bar = {"tickformat": ".0%", "len": 0.45, "y": 0.2}
    figure.update_layout(coloraxis={"colorscale": stops, "cmin": -1, "cmax": 1, "colorbar": bar})


def _labels(data: xr.Dataset) -> list[str]:
    """The name of each part above its text in the first problem, in the colour of the effect."""
    labels = []
    for part, text, share in zip(data["part"].values, data["text"].values[0], data["recovered"].values, strict=True):
        color = TOWARDS if share > _CLEAR else AGAINST if share < -_CLEAR else QUIET
        lines = "<br>".join(wrapped(str(text), _LABEL_WIDTH))
        labels.append(f"{words(str(part)).lower()}<br><span style='color:{color}'>{lines}</span>")
    return labels
