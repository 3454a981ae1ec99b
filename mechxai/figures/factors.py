"""Neuron factors of one prompt: tokens to the right, groups of neurons from the top."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from mechxai.core.result import Result
from mechxai.figures.cells import coordinates
from mechxai.figures.heatmap import default_scale, heatmap
from mechxai.figures.selected_variable import prompt_index, select_variable


def factor_view(result: Result, variable: str, select: Mapping[str, object]) -> go.Figure | None:
    """`factor_figure` for ``activity`` or no variable, and at most a selected prompt; None otherwise."""
    return factor_figure(result, select) if variable in ("", "activity") and set(select) <= {"prompt"} else None


def factor_figure(result: Result, select: Mapping[str, object] | None = None) -> go.Figure:
    """The activity of each neuron group at each token of one prompt, with the group's share of the activations.

    Args:
        result: of `NeuronFactors`.
        select: ``{"prompt": 2}``; the first prompt by default.

    Raises:
        ConfigError: the prompt does not exist.
    """
    prompts = coordinates(result.data["activity"], "prompt")
    prompt = (select or {}).get("prompt", prompts[0])
    at = prompt_index(prompts, prompt)
    shares = result.data["share"].values[at]
    tokens = [str(token) for token in result.data["token"].values[at] if str(token)]
    finite = np.isfinite(shares)
    data = result.data[["activity"]].isel(pos=slice(len(tokens)), factor=finite)
    data = data.assign_coords(
        pos=[f"{pos}: {token.strip() or token}" for pos, token in enumerate(tokens)],
        factor=[f"{factor} ({share:.0%})" for factor, share in enumerate(shares[finite])],
    )
    selected = select_variable(Result(data, result.info), "activity", {"prompt": prompt})
    return heatmap(selected, default_scale(selected))
