"""Token attributions as coloured text (HTML or terminal) and as figures of bars or rows."""

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

_MAX_ROWS = 16
_MAX_TOKENS = 60  # in a row
_CELL, _ROW = 58, 34  # pixels
_SPAN_CELL, _SPAN_ROW, _SPAN_TEXT = 130, 40, 20  # pixels, pixels, characters
_ROUNDING = 1e-5  # a smaller gap is a rounding error


def token_figure(result: Result) -> go.Figure:
    """Bars for a single prompt, a row of coloured tokens per prompt for several."""
    return token_bars(result) if result.data.sizes["prompt"] == 1 else token_rows(result)


def token_bars(result: Result, prompt: int = 0) -> go.Figure:
    """The score of every player of a prompt as bars, in the order of the text from the top."""
    data = result.data.isel(prompt=prompt_number(result, prompt))
    values = data["player_value"].values.astype(float)
    has_score = ~np.isnan(values)
    names = [safe(name, 24) for name in data["player_name"].values[has_score]]
    values = values[has_score]
    places = list(range(len(values)))
    errors = data["standard_error"].values[has_score] if "standard_error" in data else None
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
    return dress(
        figure, _title(result), [_target(data), *_accuracy_notes(data)], size=(520, max(160, 21 * len(values)))
    )


def token_rows(result: Result) -> go.Figure:
    """A row of coloured tokens (or spans) for every prompt; each row has its own colour scale."""
    if result.info.method.get("players") == "span":
        return _span_rows(result)
    data = result.data.isel(prompt=slice(0, _MAX_ROWS), pos=slice(0, _MAX_TOKENS))
    rows = [f"{safe(target, 22)}" for target in data["target"].values]
    figure = go.Figure(_cells(data["value"].values, data["token"].values, _unit(result)))
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(rows))), ticktext=rows, autorange="reversed")
    figure.update_yaxes(showgrid=False, showline=False, ticks="")
    figure.update_xaxes(showgrid=False, showline=False, showticklabels=False, ticks="")
    hidden = result.data.sizes["prompt"] - len(rows)
    lines = ["blue: towards the answer, red: against; each row has its own scale"]
    if hidden > 0:
        lines.append(f"{hidden} more prompts are not shown")
    return dress(figure, _title(result), lines, size=(_CELL * data.sizes["pos"], _ROW * len(rows)))


def _span_rows(result: Result) -> go.Figure:
    """A row of spans for every prompt with the score in each cell, and the mean over prompts on top."""
    data = result.data.isel(prompt=slice(0, _MAX_ROWS))
    values, names = data["player_value"].values.astype(float), data["player_name"].values
    mean = result.data["player_value"].mean("prompt").values.astype(float)
    numbers = [f"{at}" for at in range(1, values.shape[1] + 1)]
    scores = np.vstack([mean[None], values])
    trace = _cells(scores, np.vstack([numbers, names]), _unit(result))
    spans = [["mean"] * len(numbers), *([safe(str(name).strip(), _SPAN_TEXT) for name in row] for row in names)]
    trace.text = [
        ["" if np.isnan(value) else f"{span}<br><b>{number(value)}</b>" for span, value in zip(*row, strict=True)]
        for row in zip(spans, scores, strict=True)
    ]
    figure = go.Figure(trace)
    rows = ["all prompts", *(f"{safe(target, 22)}" for target in data["target"].values)]
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(rows))), ticktext=rows, autorange="reversed")
    figure.update_yaxes(showgrid=False, showline=False, ticks="")
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(numbers))), ticktext=numbers, title_text="span")
    figure.update_xaxes(showgrid=False, showline=False, ticks="")
    lines = [f"in {_unit(result)}; blue: towards the answer, red: against; each row has its own scale"]
    if result.data.sizes["prompt"] > len(data["prompt"]):
        lines.append(
            f"{result.data.sizes['prompt'] - len(data['prompt'])} more prompts count in the mean but are not shown"
        )
    return dress(figure, _title(result), lines, size=(_SPAN_CELL * len(numbers), _SPAN_ROW * len(rows)))


def method_rows(result: Result, prompt: int = 0) -> go.Figure:
    """A row of coloured tokens for every method of a comparison, on one prompt."""
    data = result.data.isel(prompt=prompt_number(result, prompt), pos=slice(0, _MAX_TOKENS))
    names = [words(str(name)) for name in data["method"].values]
    tokens = np.tile(data["token"].values, (len(names), 1))
    is_token = tokens[0] != ""
    figure = go.Figure(_cells(data["attribution"].values[:, is_token], tokens[:, is_token], ""))
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(names))), ticktext=names, autorange="reversed")
    figure.update_yaxes(showgrid=False, showline=False, ticks="")
    figure.update_xaxes(showgrid=False, showline=False, showticklabels=False, ticks="")
    lines = [f"prompt {prompt}; blue: towards the answer, red: against; each row has its own scale"]
    title = f"Token attributions by method on {result.info.model.get('name')}"
    return dress(figure, title, lines, size=(_CELL * int(is_token.sum()), _ROW * len(names)))


def _cells(values: np.ndarray, tokens: np.ndarray, unit: str) -> go.Heatmap:
    """Tokens in cells, coloured by the score as a share of the row's largest; no colour without a score."""
    largest = np.nanmax(np.abs(values), axis=1, keepdims=True)
    shares = values / np.where(largest > 0, largest, 1.0)
    colors = np.where(tokens == "", np.nan, np.nan_to_num(shares))
    texts = [[safe(str(token).strip() or token, 9) for token in row] for row in tokens]
    hovers = [
        [_hover(str(token), float(value), unit) for token, value in zip(*pair, strict=True)]
        for pair in zip(tokens, values, strict=True)
    ]
    return go.Heatmap(
        z=colors,
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
    return f"{safe(token, 24)}<br>{'never removed' if np.isnan(value) else number(value, unit)}"


# Text -----------------------------------------------------------------------------------------------------------------


def token_text(result: Result, prompt: int = 0) -> Text:
    """A prompt as rich text for the terminal, with the score as each token's background colour."""
    data = result.data.isel(prompt=prompt_number(result, prompt))
    text = Text()
    for token, _, share in _shares(data):
        style = Style() if np.isnan(share) else Style(color=_text_color(share), bgcolor=diverging(share))
        text.append(_spaced(token), style)
    return text


def token_html(result: Result, prompt: int = 0) -> Fragment:
    """A prompt as HTML: every token escaped, with the score as its background colour and on hovering."""
    data = result.data.isel(prompt=prompt_number(result, prompt))
    unit = _unit(result)
    spans = []
    for token, value, share in _shares(data):
        text = html.escape(_spaced(token))
        if np.isnan(share):
            spans.append(f'<span title="never removed" style="color:{MISSING}">{text}</span>')
            continue
        score = html.escape(number(value, unit), quote=True)
        style = f"background:{diverging(share)};color:{_text_color(share)};border-radius:3px;padding:1px 2px"
        spans.append(f'<span title="{score}" style="{style}">{text}</span>')
    return Fragment(f'<p class="tokens" style="line-height:2;white-space:pre-wrap">{"".join(spans)}</p>')


def _shares(data: xr.Dataset) -> list[tuple[str, float, float]]:
    """Token, score, and score as a share of the largest; NaN for tokens without a score."""
    values, tokens = data["value"].values.astype(float), data["token"].values
    largest = float(np.nanmax(np.abs(values))) or 1.0
    pairs = zip(tokens, values, strict=True)
    return [(str(token), float(value), float(value) / largest) for token, value in pairs if token != ""]


def _text_color(share: float) -> str:
    return "#ffffff" if abs(share) > 0.7 else "#1f2933"


def _spaced(token: str) -> str:
    """A token as it stands in running text: those of whole words are set apart."""
    seen = printable(token)
    return seen if token[:1].isspace() else f" {seen}"


def prompt_number(result: Result, prompt: int) -> int:
    """The number of a prompt counted from the first; ``prompt`` may be negative to count from the last.

    Raises:
        ConfigError: the prompt does not exist.
    """
    n = result.data.sizes["prompt"]
    if not -n <= prompt < n:
        raise ConfigError(f"Prompt {prompt} is out of range: this result has {n} prompts (0-{n - 1})")
    return prompt % n


def _unit(result: Result) -> str:
    name = "value" if "value" in result.data else "attribution"
    return str(result.data[name].attrs["units"])


def _title(result: Result) -> str:
    player = "span" if result.info.method.get("players") == "span" else "token"
    method = words(str(result.info.method.get("name"))).capitalize()
    return f"{method}: score of each {player} on {result.info.model.get('name')}"


def _target(data: xr.Dataset) -> str:
    unit = str(data["target_score"].attrs["units"])
    return (
        f"{shortened(str(data['target'].values), 40)}: {number(float(data['target_score']), unit)}, "
        f"{number(float(data['baseline_score']), unit)} with all players removed"
    )


def _accuracy_notes(data: xr.Dataset) -> list[str]:
    gap = float(data["delta"])
    lines = [f"sum of the scores minus change of the target's score: {number(gap)}"] if abs(gap) > _ROUNDING else []
    return [*lines, "whiskers: 95 % sampling error"] if "standard_error" in data else lines
