"""The picture of a lens: layers upward, the prompt to the right, the top token written in every cell."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from mechxai.core.errors import ConfigError, nearest
from mechxai.core.result import Result
from mechxai.figures.axes import Axis, below, beside, pixels
from mechxai.figures.cells import coordinates, position_of
from mechxai.figures.colors import SEQUENTIAL
from mechxai.figures.heatmap import color_bar
from mechxai.figures.text import number, safe, words
from mechxai.figures.theme import MISSING, dress

_MOST = 24  # positions that can be read side by side; the last ones are shown
_HOVERED = 5
# variable -> (what the colour means, unit); log-probabilities are shown as probabilities
_COLORS = {
    "top_logprob": ("probability of the top token", ""),
    "target_logprob": ("probability of the target", ""),
    "target_rank": ("tokens more probable than the target", "rank"),
    "entropy": ("entropy", "nats"),
    "kl_to_final": ("KL divergence from the model's output", "nats"),
}


def is_lens(result: Result, variable: str) -> bool:
    """Whether a variable (or what is shown when none is named) of a result is what a lens read at every position."""
    if "top_text" not in result.data:
        return False
    return variable in _COLORS or (not variable and "pos" in result.data["value"].dims)


def lens_grid(result: Result, variable: str = "", select: Mapping[str, object] | None = None) -> go.Figure:
    """One prompt at every layer and position: the top token as text, a statistic as colour, more beside the pointer.

    Args:
        result: of a lens.
        variable: ``top_logprob`` (shown as probability, the default), ``target_logprob`` (likewise), ``target_rank``,
            ``entropy`` or ``kl_to_final``.
        select: ``{"prompt": 2}``; the first prompt by default.

    Raises:
        ConfigError: no such variable or prompt.
    """
    name = variable or "top_logprob"
    if name not in _COLORS:
        raise ConfigError(f"A lens picture of {variable!r} was asked", allowed=nearest(name, _COLORS))
    prompt = (select or {}).get("prompt", 0)
    prompts = coordinates(result.data["top_text"], "prompt")
    if prompt not in prompts:
        raise ConfigError(f"Prompt {prompt!r} was asked", got="no such prompt", allowed=prompts[:40])
    one = result.data.isel(prompt=prompts.index(prompt))
    real = [at for at, token in enumerate(one["top_token"].values[0, :, 0]) if token >= 0]
    one = one.isel(pos=real[-_MOST:])
    values = _values(one, name)
    layers, tokens = coordinates(one["top_text"], "layer"), [str(token) for token in one["token"].values]
    figure = go.Figure(_cells(one, values, tokens))
    size = (
        pixels(len(tokens), per_cell=66, least=330, most=1500),
        pixels(len(layers), per_cell=30, least=150, most=1100),
    )
    words_along = Axis("pos", tuple(_written(token, 10) for token in tokens), texts=True)
    meaning, unit = _COLORS[name]
    bar = color_bar(safe(unit or "probability"), size[1])
    high = 1.0 if name.endswith("logprob") else float(np.nanmax(values, initial=0.0)) or 1.0
    figure.update_layout(
        coloraxis={"cmin": 0.0, "cmax": high, "colorscale": SEQUENTIAL, "colorbar": bar},
        plot_bgcolor=MISSING,
        xaxis={**below(words_along, size[0]), "title": {"text": "prompt, token by token"}, "tickangle": -45},
        yaxis=beside(Axis("layer", (*map(str, layers[:-1]), "output"), texts=False), size[1]),
    )
    info = result.info
    left_out = len(real) - len(tokens)
    notes = [
        " · ".join(
            part
            for part in (str(info.model.get("name", "")), str(info.task.get("name") or ""), f"prompt {prompt}")
            if part
        ),
        f"colour: {meaning}; text: the most probable next token",
        f"the last {len(tokens)} of {len(real)} positions" if left_out else "",
    ]
    lens = words(str(info.method.get("name", "lens"))).capitalize()
    heading = f"{lens} of {info.method.get('site', 'resid_pre')}: what each layer would say if it were the last"
    return dress(figure, heading, notes, size=size, room=(0, 30))


def _values(one: xr.Dataset, name: str) -> np.ndarray:
    """The coloured statistic, ``[layer, pos]``."""
    array = one[name].isel(k=0) if "k" in one[name].dims else one[name]
    values = array.transpose("layer", "pos").values.astype(float)
    return np.exp(values) if name.endswith("logprob") else values


def _cells(one: xr.Dataset, values: np.ndarray, tokens: list[str]) -> go.Heatmap:
    texts = one["top_text"].transpose("layer", "pos", "k").values
    logprobs = one["top_logprob"].transpose("layer", "pos", "k").values
    layers = coordinates(one["top_text"], "layer")
    labels = [position_of(label) for label in coordinates(one["top_text"], "pos")]
    hovers = [
        [
            _hover(
                one.isel(layer=row, pos=at),
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
        text=[[_written(str(cell[0]), 9) for cell in row] for row in texts],
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertext=hovers,
        hoverinfo="text",
    )


def _hover(here: xr.Dataset, top: tuple[np.ndarray, np.ndarray], where: str) -> str:
    ranked = [
        f"{number(float(np.exp(logprob)))}  {_written(str(text), 24)}"
        for text, logprob in list(zip(*top, strict=True))[:_HOVERED]
    ]
    target = float(here["target_logprob"])
    lines = [
        f"<b>{safe(where, 48)}</b>",
        *ranked,
        ""
        if np.isnan(target)
        else f"target {number(float(np.exp(target)))}, rank {number(float(here['target_rank']))}",
        f"entropy {number(float(here['entropy']), 'nats')}, KL to output {number(float(here['kl_to_final']), 'nats')}",
    ]
    return "<br>".join(line for line in lines if line)


def _written(token: str, limit: int) -> str:
    """A token as it is written into a cell: a leading space is no news, other blanks are shown."""
    shown = token[1:] if len(token) > 1 and token.startswith(" ") else token
    return safe("␣" if shown == " " else shown, limit)
