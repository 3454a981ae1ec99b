"""A lens reading of one prompt: layers upward, tokens to the right, the top token in every cell."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from mechxai.core.errors import check_choice
from mechxai.core.result import Result
from mechxai.figures.axes import Axis, horizontal, pixels, vertical
from mechxai.figures.cells import coordinates, position_of
from mechxai.figures.colors import SEQUENTIAL
from mechxai.figures.heatmap import color_bar
from mechxai.figures.selected_variable import prompt_index
from mechxai.figures.text import number, safe, words
from mechxai.figures.theme import MISSING, dress

_MAX_POSITIONS = 24  # readable side by side; of a longer prompt, the last ones are shown
_HOVER_TOKENS = 5
# variable -> (meaning of the colour, unit); log-probabilities are shown as probabilities
_COLORS = {
    "top_logprob": ("probability of the top token", ""),
    "target_logprob": ("probability of the target", ""),
    "target_rank": ("tokens more probable than the target", "rank"),
    "entropy": ("entropy", "nats"),
    "kl_to_final": ("KL divergence from the model's output", "nats"),
}


def lens_view(result: Result, variable: str, select: Mapping[str, object]) -> go.Figure | None:
    """`lens_grid` for a statistic of every position, and at most a selected prompt; None otherwise."""
    per_position = variable in _COLORS or (not variable and "pos" in result.data["value"].dims)
    return lens_grid(result, variable, select) if per_position and set(select) <= {"prompt"} else None


def lens_grid(result: Result, variable: str = "", select: Mapping[str, object] | None = None) -> go.Figure:
    """One prompt at every layer and position: the top token as text, a statistic as colour, the rest on hovering.

    Args:
        result: of a lens.
        variable: ``top_logprob`` (the default) or ``target_logprob``, both shown as probabilities, ``target_rank``,
            ``entropy`` or ``kl_to_final``.
        select: ``{"prompt": 2}``; the first prompt by default.

    Raises:
        ConfigError: the variable or the prompt does not exist.
    """
    name = variable or "top_logprob"
    check_choice("variable", name, _COLORS)
    prompt = (select or {}).get("prompt", 0)
    data = result.data.isel(prompt=prompt_index(coordinates(result.data["top_text"], "prompt"), prompt))
    positions = [at for at, token in enumerate(data["top_token"].values[0, :, 0]) if token >= 0]
    data = data.isel(pos=positions[-_MAX_POSITIONS:])
    values = _values(data, name)
    layers, tokens = coordinates(data["top_text"], "layer"), [str(token) for token in data["token"].values]
    figure = go.Figure(_cells(data, values, tokens))
    size = (
        pixels(len(tokens), per_cell=66, least=330, most=1500),
        pixels(len(layers), per_cell=30, least=150, most=1100),
    )
    token_axis = Axis("pos", tuple(_cell_text(token, 10) for token in tokens), texts=True)
    meaning, unit = _COLORS[name]
    bar = color_bar(safe(unit or "probability"), size[1])
    high = 1.0 if name.endswith("logprob") else float(np.nanmax(values, initial=0.0)) or 1.0
    figure.update_layout(
        coloraxis={"cmin": 0.0, "cmax": high, "colorscale": SEQUENTIAL, "colorbar": bar},
        plot_bgcolor=MISSING,
        xaxis={**horizontal(token_axis, size[0]), "title": {"text": "tokens of the prompt"}, "tickangle": -45},
        yaxis=vertical(Axis("layer", (*map(str, layers[:-1]), "output"), texts=False), size[1]),
    )
    info = result.info
    notes = [
        " · ".join(
            part
            for part in (str(info.model.get("name", "")), str(info.task.get("name") or ""), f"prompt {prompt}")
            if part
        ),
        f"colour: {meaning}; text: the most probable next token",
        f"the last {len(tokens)} of {len(positions)} positions" if len(tokens) < len(positions) else "",
    ]
    lens = words(str(info.method.get("name", "lens"))).capitalize()
    heading = f"{lens} of {info.method.get('site', 'resid_pre')}: next-token prediction after each layer"
    return dress(figure, heading, notes, size=size, room=(0, 30))


def _values(data: xr.Dataset, name: str) -> np.ndarray:
    """The statistic that is shown as colour, ``[layer, pos]``."""
    array = data[name].isel(k=0) if "k" in data[name].dims else data[name]
    values = array.transpose("layer", "pos").values.astype(float)
    return np.exp(values) if name.endswith("logprob") else values


def _cells(data: xr.Dataset, values: np.ndarray, tokens: list[str]) -> go.Heatmap:
    texts = data["top_text"].transpose("layer", "pos", "k").values
    logprobs = data["top_logprob"].transpose("layer", "pos", "k").values
    layers = coordinates(data["top_text"], "layer")
    labels = [position_of(label) for label in coordinates(data["top_text"], "pos")]
    hovers = [
        [
            _hover(
                data.isel(layer=row, pos=at),
                (texts[row, at], logprobs[row, at]),
                f"layer {layer}, {labels[at]}: {token}",
            )
            for at, token in enumerate(tokens)
        ]
        for row, layer in enumerate(layers)
    ]
    return go.Heatmap(
        z=values,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        text=[[_cell_text(str(cell[0]), 9) for cell in row] for row in texts],
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertext=hovers,
        hoverinfo="text",
    )


def _hover(cell: xr.Dataset, top: tuple[np.ndarray, np.ndarray], place: str) -> str:
    top_tokens = [
        f"{number(float(np.exp(logprob)))}  {_cell_text(str(text), 24)}"
        for text, logprob in list(zip(*top, strict=True))[:_HOVER_TOKENS]
    ]
    target = float(cell["target_logprob"])
    lines = [
        f"<b>{safe(place, 48)}</b>",
        *top_tokens,
        ""
        if np.isnan(target)
        else f"target {number(float(np.exp(target)))}, rank {number(float(cell['target_rank']))}",
        f"entropy {number(float(cell['entropy']), 'nats')}, KL to output {number(float(cell['kl_to_final']), 'nats')}",
    ]
    return "<br>".join(line for line in lines if line)


def _cell_text(token: str, limit: int) -> str:
    """A token as text of a cell: without its leading space; a single space as ``␣``."""
    text = token[1:] if len(token) > 1 and token.startswith(" ") else token
    return safe("␣" if text == " " else text, limit)
