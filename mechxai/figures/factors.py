"""The picture of factored neurons: one prompt's tokens to the right, its groups of neurons from the top."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result
from mechxai.figures.cells import coordinates
from mechxai.figures.heatmap import default_scale, heatmap
from mechxai.figures.shown_variable import shown


def is_factors(result: Result, variable: str) -> bool:
    """Whether a variable (or what is shown when none is named) of a result is how neurons' groups fire."""
    return variable in ("", "activity") and {"activity", "layer_share", "token"} <= set(result.data.data_vars)


def factor_figure(result: Result, select: Mapping[str, object] | None = None) -> go.Figure:
    """How strongly each group fires at each token of one prompt, with its share of the activations beside its number.

    Args:
        result: of `NeuronFactors`.
        select: ``{"prompt": 2}``; the first prompt by default.

    Raises:
        ConfigError: no such prompt.
    """
    prompts = coordinates(result.data["activity"], "prompt")
    prompt = (select or {}).get("prompt", prompts[0])
    if prompt not in prompts:
        raise ConfigError(f"Prompt {prompt!r} was asked", got="no such prompt", allowed=prompts[:40])
    at = prompts.index(prompt)
    shares = result.data["share"].values[at]
    tokens = [str(token) for token in result.data["token"].values[at] if str(token)]
    there = np.isfinite(shares)
    data = result.data[["activity"]].isel(pos=slice(len(tokens)), factor=there)
    data = data.assign_coords(
        pos=[f"{pos}: {token.strip() or token}" for pos, token in enumerate(tokens)],
        factor=[f"{factor} ({share:.0%})" for factor, share in enumerate(shares[there])],
    )
    chosen = shown(Result(data, result.info), "activity", {"prompt": prompt})
    return heatmap(chosen, default_scale(chosen))
