"""Attention patterns as one offline page with three views: head view, model view and neuron view."""

import base64
import html
import importlib.resources
import json
import os
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import plotly.graph_objects as go

from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.files import write_atomic
from mechxai.core.result import Result
from mechxai.figures.colors import SEQUENTIAL
from mechxai.figures.notebook_html import Page
from mechxai.figures.text import printable, safe
from mechxai.figures.theme import dress
from mechxai.figures.tokens import prompt_number

View = Literal["head", "model", "neuron"]
_DENSE = 160  # up to this many tokens, the page holds all weights
_TOP_WEIGHTS = 24  # of longer prompts, the largest weights of each position
_SIDE = 64  # pixels of a head's thumbnail
_MAX_QUERY_BYTES = 12_000_000
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title><style>{css}</style></head>
<body><main><h1>{title}</h1><p class="quiet">{subtitle}</p>
<nav role="tablist">
<button role="tab" id="tab-head">Head view</button><button role="tab" id="tab-model">Model view</button>
<button role="tab" id="tab-neuron">Neuron view</button></nav>
<div class="controls"><span id="layer-box"><label for="layer">layer</label> <select id="layer"></select></span>
<span id="heads-box"><span class="heads" id="heads"></span></span>
<span id="head-box"><label for="head">head</label> <select id="head"></select></span>
<span id="query-box"><label for="query">query</label> <select id="query"></select></span></div>
<div class="stage" id="stage" tabindex="0" aria-label="attention"><canvas id="canvas"></canvas></div>
<p class="note" id="note"></p></main>
<script type="application/json" id="data">{data}</script><script>{script}</script></body></html>
"""


def attention_html(result: Result, prompt: int = 0, *, view: View = "head") -> Page:
    """One page with the head, model and neuron views of a prompt's attention; it loads nothing from the network.

    For prompts of more than 160 tokens, the page holds the 24 largest weights of each position. It holds queries and
    keys if they take at most 12 MB; choose fewer layers or heads otherwise.

    Args:
        result: of `AttentionPatterns`.
        prompt: number of the prompt.
        view: the view that opens first: ``head``, ``model`` or ``neuron``.

    Raises:
        ConfigError: the view or prompt does not exist, or the result has no attention patterns.
    """
    check_choice("view", view, get_args(View))
    if result.info.kind != "attention":
        raise ConfigError(
            f"attention_html needs attention patterns: this is a result of {result.info.method.get('name')}",
            allowed="results of attention_patterns",
        )
    content = _content(result, prompt_number(result, prompt)) | {"view": view}
    files = importlib.resources.files("mechxai.figures.views")
    page = _PAGE.format(
        policy=_POLICY,
        title=html.escape(f"Attention of {result.info.model.get('name')}"),
        subtitle=html.escape(
            f"Prompt {prompt} of {result.info.task.get('name')}. Attention weights show where a head attends, not "
            "whether that affects the output: compare them with an intervention or a gradient."
        ),
        css=(files / "attention.css").read_text(),
        script=(files / "attention.js").read_text(),
        data=json.dumps(content).replace("<", "\\u003c"),
    )
    return Page(page)


def save_attention(result: Result, path: str | os.PathLike[str], prompt: int = 0, *, view: View = "head") -> Path:
    """Writes the page of `attention_html` and returns its path."""
    return write_atomic(Path(path), attention_html(result, prompt, view=view))


def _content(result: Result, prompt: int) -> dict[str, object]:
    data = result.data.isel(prompt=prompt)
    n = int((data["token"].values != "").sum())
    pattern = np.nan_to_num(data["pattern"].values[:, :, :n, :n])
    content: dict[str, object] = {
        "tokens": [printable(str(token)) for token in data["token"].values[:n]],
        "layers": [int(layer) for layer in data["layer"].values],
        "heads": [int(head) for head in data["head"].values],
        "causal": bool(np.abs(np.triu(pattern, 1)).max(initial=0.0) == 0),
        "start": list(_most_concentrated(pattern)),
        "side": min(_SIDE, n),
        "thumbs": _base64(_bytes(_thumbnails(pattern, min(_SIDE, n)))),
    }
    return content | _weights(pattern) | _queries(result, prompt, n)


def _weights(pattern: np.ndarray) -> dict[str, object]:
    """All weights of a short prompt, or the largest of each position of a long one."""
    n = pattern.shape[-1]
    if n <= _DENSE:
        return {"width": n, "weights": _base64(_bytes(pattern)), "sources": None}
    sources = np.argpartition(-pattern, _TOP_WEIGHTS, axis=-1)[..., :_TOP_WEIGHTS]
    weights = np.take_along_axis(pattern, sources, -1)
    return {"width": _TOP_WEIGHTS, "weights": _base64(_bytes(weights)), "sources": _base64(sources.astype("<u2"))}


def _queries(result: Result, prompt: int, n: int) -> dict[str, object]:
    """Queries and keys in eight bits, with a scale per position."""
    if "query" not in result.data:
        return {
            "query": None,
            "no_query": "This result has no queries and keys. Run attention_patterns with queries=true.",
        }
    query, key = (result.data[name].values[prompt, :, :, :n] for name in ("query", "key"))
    if 2 * query.size > _MAX_QUERY_BYTES:
        note = f"Queries and keys of all heads take {2 * query.size / 1e6:.0f} MB: choose fewer layers or heads."
        return {"query": None, "no_query": note}
    content: dict[str, object] = {"d_head": query.shape[-1], "scale": float(result.data["scale"])}
    for name, values in (("query", query), ("key", key)):
        scale = np.maximum(np.abs(values).max(-1), 1e-12) / 127
        content[name] = _base64(np.round(values / scale[..., None]).astype(np.int8))
        content[f"{name}_scale"] = _base64(scale.astype("<f4"))
    return content


def _most_concentrated(pattern: np.ndarray) -> tuple[int, int]:
    """Layer and head index of the most concentrated attention, without attention to the first token."""
    concentration = pattern[:, :, 1:, 1:].max(-1, initial=0.0).mean(-1) if pattern.shape[-1] > 1 else pattern[..., 0, 0]
    layer, head = np.unravel_index(int(np.argmax(concentration)), concentration.shape)
    return int(layer), int(head)


def _thumbnails(pattern: np.ndarray, side: int) -> np.ndarray:
    """Patterns as images of ``side`` by ``side`` pixels, each the largest weight in its square."""
    edges = np.linspace(0, pattern.shape[-1], side + 1).astype(int)[:-1]
    rows = np.maximum.reduceat(pattern, edges, axis=-2)
    return np.maximum.reduceat(rows, edges, axis=-1)


def _bytes(weights: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(weights, 0, 1)).astype(np.uint8)


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def pattern_figure(result: Result) -> go.Figure:
    """The pattern of the head with the most concentrated attention on the first prompt; `attention_html` shows all."""
    data = result.data.isel(prompt=0)
    n = int((data["token"].values != "").sum())
    pattern = np.nan_to_num(data["pattern"].values[:, :, :n, :n])
    layer, head = _most_concentrated(pattern)
    names = [f"{at}: {safe(token, 14)}" for at, token in enumerate(data["token"].values[:n])]
    trace = go.Heatmap(
        z=pattern[layer, head],
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        colorbar={"title": "attention"},
        hovertemplate="%{y} → %{x}: %{z:.3f}<extra></extra>",
        x=names,
        y=names,
    )
    figure = go.Figure(trace)
    ticks = [names[at] for at in range(0, n, max(1, n // 48))]
    figure.update_xaxes(tickvals=ticks, tickangle=-60, title_text="attended to", showgrid=False)
    figure.update_yaxes(tickvals=ticks, autorange="reversed", title_text="attending")
    name = f"{data['layer'].values[layer]}.{data['head'].values[head]}"
    title = f"Attention of head {name} of {result.info.model.get('name')}"
    lines = ["the head with the most concentrated attention on the first prompt; attention_html shows all heads"]
    side = min(640, max(320, 18 * n))
    return dress(figure, title, lines, size=(side, side), room=(0, 60))
