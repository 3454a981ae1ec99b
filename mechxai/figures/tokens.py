"""Scores of tokens as coloured text: for a page, for the terminal, and as a figure of bars or rows."""

import html

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from rich.style import Style
from rich.text import Text

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result
from mechxai.figures.colors import AGAINST, DIVERGING, TOWARDS, diverging
from mechxai.figures.notebook_html import Fragment
from mechxai.figures.text import number, printable, safe, shortened, words
from mechxai.figures.theme import MISSING, dress

_MOST_ROWS = 16
_WIDEST = 60  # tokens in a row of cells
_CELL, _ROW = 58, 34
_WIDE_CELL, _TALL_ROW, _SPAN = 130, 40, 20  # of spans, and characters of one
_CLOSED = 1e-5  # a gap that is rounding


def is_attribution(result: Result) -> bool:
    """Whether a result gives scores to tokens."""
    return {"player_index", "token", "value"} <= set(result.data)


def token_figure(result: Result) -> go.Figure:
    """Bars for one prompt, rows of coloured tokens for several."""
    return token_bars(result) if result.data.sizes["prompt"] == 1 else token_rows(result)


def token_bars(result: Result, prompt: int = 0) -> go.Figure:
    """The score of every player of a prompt, in the order of the text, read from the top."""
    data = result.data.isel(prompt=known_prompt(result, prompt))
    values = data["player_value"].values.astype(float)
    there = ~np.isnan(values)
    names = [safe(name, 24) for name in data["player_name"].values[there]]
    values = values[there]
    places = list(range(len(values)))
    errors = data["standard_error"].values[there] if "standard_error" in data else None
    bars = go.Bar(
        x=values,
        y=places,
        orientation="h",
        marker_color=[TOWARDS if value >= 0 else AGAINST for value in values],
        error_x=None if errors is None else {"type": "data", "array": 1.96 * errors, "thickness": 1, "width": 2},
        hovertext=[f"{name}<br>{number(value, _unit(result))}" for name, value in zip(names, values, strict=True)],
        hoverinfo="text",
    )
    figure = go.Figure(bars)
    figure.update_yaxes(tickmode="array", tickvals=places, ticktext=names, autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text=safe(f"score ({_unit(result)})"), zeroline=True, zerolinecolor="#9aa5b1")
    return dress(figure, _title(result), [_target(data), *_beside(data)], size=(520, max(160, 21 * len(values))))


def token_rows(result: Result) -> go.Figure:
    """A row of coloured tokens (or spans, where they were asked) for every prompt; colours are scaled within each."""
    if result.info.method.get("players") == "span":
        return _span_rows(result)
    data = result.data.isel(prompt=slice(0, _MOST_ROWS), pos=slice(0, _WIDEST))
    rows = [f"{safe(target, 22)}" for target in data["target"].values]
    figure = go.Figure(_cells(data["value"].values, data["token"].values, _unit(result)))
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(rows))), ticktext=rows, autorange="reversed")
    figure.update_yaxes(showgrid=False, showline=False, ticks="")
    figure.update_xaxes(showgrid=False, showline=False, showticklabels=False, ticks="")
    left_out = result.data.sizes["prompt"] - len(rows)
    lines = ["blue: towards the answer, red: against; each row has its own scale"]
    if left_out > 0:
        lines.append(f"{left_out} more prompts are not shown")
    return dress(figure, _title(result), lines, size=(_CELL * data.sizes["pos"], _ROW * len(rows)))


def _span_rows(result: Result) -> go.Figure:
    """A row of named spans for every prompt, its score in each cell, and the mean over prompts on top."""
    data = result.data.isel(prompt=slice(0, _MOST_ROWS))
    values, names = data["player_value"].values.astype(float), data["player_name"].values
    mean = result.data["player_value"].mean("prompt").values.astype(float)
    numbers = [f"{number}" for number in range(1, values.shape[1] + 1)]
    cells = _cells(np.vstack([mean[None], values]), np.vstack([numbers, names]), _unit(result))
    shown = np.vstack([mean[None], values])
    pieces = [["mean"] * len(numbers), *([safe(str(name).strip(), _SPAN) for name in row] for row in names)]
    cells.text = [
        ["" if np.isnan(value) else f"{piece}<br><b>{number(value)}</b>" for piece, value in zip(*pair, strict=True)]
        for pair in zip(pieces, shown, strict=True)
    ]
    figure = go.Figure(cells)
    rows = ["all prompts", *(f"{safe(target, 22)}" for target in data["target"].values)]
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(rows))), ticktext=rows, autorange="reversed")
    figure.update_yaxes(showgrid=False, showline=False, ticks="")
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(numbers))), ticktext=numbers, title_text="span")
    figure.update_xaxes(showgrid=False, showline=False, ticks="")
    lines = [f"in {_unit(result)}; blue: towards the answer, red: against; each row has its own scale"]
    if result.data.sizes["prompt"] > len(data["prompt"]):
        lines.append(f"{result.data.sizes['prompt'] - len(data['prompt'])} more prompts are in the mean, not shown")
    return dress(figure, _title(result), lines, size=(_WIDE_CELL * len(numbers), _TALL_ROW * len(rows)))


def method_rows(result: Result, prompt: int = 0) -> go.Figure:
    """A row of coloured tokens for every method of a comparison, on one prompt."""
    data = result.data.isel(prompt=known_prompt(result, prompt), pos=slice(0, _WIDEST))
    names = [words(str(name)) for name in data["method"].values]
    tokens = np.tile(data["token"].values, (len(names), 1))
    keep = tokens[0] != ""
    figure = go.Figure(_cells(data["attribution"].values[:, keep], tokens[:, keep], ""))
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(names))), ticktext=names, autorange="reversed")
    figure.update_yaxes(showgrid=False, showline=False, ticks="")
    figure.update_xaxes(showgrid=False, showline=False, showticklabels=False, ticks="")
    lines = [f"prompt {prompt}; blue: towards the answer, red: against; each row has its own scale"]
    title = f"Which tokens mattered, by method, on {result.info.model.get('name')}"
    return dress(figure, title, lines, size=(_CELL * int(keep.sum()), _ROW * len(names)))


def _cells(values: np.ndarray, tokens: np.ndarray, unit: str) -> go.Heatmap:
    """Tokens in cells, coloured by their share of the largest score in the row; none where there is no score."""
    reach = np.nanmax(np.abs(values), axis=1, keepdims=True)
    shares = values / np.where(reach > 0, reach, 1.0)
    shown = np.where(tokens == "", np.nan, np.nan_to_num(shares))
    texts = [[safe(str(token).strip() or token, 9) for token in row] for row in tokens]
    hovers = [
        [_hover(str(token), float(value), unit) for token, value in zip(*pair, strict=True)]
        for pair in zip(tokens, values, strict=True)
    ]
    return go.Heatmap(
        z=shown,
        zmin=-1,
        zmax=1,
        colorscale=DIVERGING,
        showscale=False,
        text=texts,
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertext=hovers,
        hoverinfo="text",
        xgap=1,
        ygap=3,
    )


def _hover(token: str, value: float, unit: str) -> str:
    return f"{safe(token, 24)}<br>{'always stays' if np.isnan(value) else number(value, unit)}"


# Text -----------------------------------------------------------------------------------------------------------------


def token_text(result: Result, prompt: int = 0) -> Text:
    """A prompt as rich text for the terminal, every token on the colour of its score."""
    data = result.data.isel(prompt=known_prompt(result, prompt))
    text = Text()
    for token, _, share in _shares(data):
        style = Style() if np.isnan(share) else Style(color=_ink(share), bgcolor=diverging(share))
        text.append(_spaced(token), style)
    return text


def token_html(result: Result, prompt: int = 0) -> Fragment:
    """A prompt as HTML, every token escaped and on the colour of its score; scores appear on hovering."""
    data = result.data.isel(prompt=known_prompt(result, prompt))
    unit = _unit(result)
    spans = []
    for token, value, share in _shares(data):
        shown = html.escape(_spaced(token))
        if np.isnan(share):
            spans.append(f'<span title="always stays" style="color:{MISSING}">{shown}</span>')
            continue
        score = html.escape(number(value, unit), quote=True)
        own = f"background:{diverging(share)};color:{_ink(share)};border-radius:3px;padding:1px 2px"
        spans.append(f'<span title="{score}" style="{own}">{shown}</span>')
    return Fragment(f'<p class="tokens" style="line-height:2;white-space:pre-wrap">{"".join(spans)}</p>')


def _shares(data: xr.Dataset) -> list[tuple[str, float, float]]:
    """Token, score, and its share of the largest; NaN for tokens without a score."""
    values, tokens = data["value"].values.astype(float), data["token"].values
    reach = float(np.nanmax(np.abs(values))) or 1.0
    pairs = zip(tokens, values, strict=True)
    return [(str(token), float(value), float(value) / reach) for token, value in pairs if token != ""]


def _ink(share: float) -> str:
    return "#ffffff" if abs(share) > 0.7 else "#1f2933"


def _spaced(token: str) -> str:
    """A token as it stands in running text: those of whole words are set apart."""
    seen = printable(token)
    return seen if token[:1].isspace() else f" {seen}"


def known_prompt(result: Result, prompt: int) -> int:
    """The number of a prompt, counted from the first.

    Raises:
        ConfigError: the result has no such prompt.
    """
    n = result.data.sizes["prompt"]
    if not -n <= prompt < n:
        raise ConfigError(f"Prompt {prompt} was asked", got=f"{n} prompts", allowed=f"0 to {n - 1}")
    return prompt % n


def _unit(result: Result) -> str:
    name = "value" if "value" in result.data else "attribution"
    return str(result.data[name].attrs["units"])


def _title(result: Result) -> str:
    what = "span" if result.info.method.get("players") == "span" else "token"
    return f"What {words(str(result.info.method.get('name')))} gives each {what}, on {result.info.model.get('name')}"


def _target(data: xr.Dataset) -> str:
    unit = str(data["target_score"].attrs["units"])
    return (
        f"{shortened(str(data['target'].values), 40)}: {number(float(data['target_score']), unit)}, "
        f"{number(float(data['baseline_score']), unit)} with every player taken away"
    )


def _beside(data: xr.Dataset) -> list[str]:
    gap = float(data["delta"])
    lines = [f"scores miss the difference by {number(gap)}"] if abs(gap) > _CLOSED else []
    return [*lines, "whiskers: what sampling leaves open, 95 %"] if "standard_error" in data else lines
