"""Attention weights as scores: fusing heads, normalising rows, and leaving out the attention sink."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.result import variable
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.scores import TokenScores
from mechxai.methods.result_parts import ALONE

HeadFusion = Literal["mean", "max", "min"]
SinkRule = Literal["keep", "drop"]  # of special tokens, on which attention piles up
_TINY = torch.finfo(torch.float64).tiny


def fuse_heads(patterns: Float[Tensor, "*axes head dest src"], fusion: HeadFusion) -> Float[Tensor, "*axes dest src"]:
    """The mean, maximum or minimum of the patterns over heads."""
    if fusion == "mean":
        return patterns.mean(-3)
    return patterns.amax(-3) if fusion == "max" else patterns.amin(-3)


def without_padding(
    patterns: Float[Tensor, "layer batch head dest src"], inputs: AttributionInput
) -> Float[Tensor, "layer batch head dest src"]:
    """Patterns in float64 with padded sources at zero; the row of every real token sums to 1."""
    real = inputs.batch.mask.to(patterns.device)[None, :, None, None, :]
    weights = patterns.double().masked_fill(~real, 0.0)
    return weights / weights.sum(-1, keepdim=True).clamp(min=_TINY)


def weight_on_special(inputs: AttributionInput, weights: Float[Tensor, "prompt pos"]) -> Float[Tensor, " prompt"]:
    """The share of each prompt's weights on tokens without a player, mostly the first token."""
    no_player = (inputs.players.of_token < 0) & inputs.batch.mask.cpu()
    return torch.where(no_player, weights.cpu(), 0.0).sum(1)


def weight_scores(inputs: AttributionInput, weights: Float[Tensor, "prompt pos"], *, bos: SinkRule) -> TokenScores:
    """Token scores from attention weights.

    Args:
        inputs: of the method; counts a forward pass per prompt.
        weights: of all tokens.
        bos: ``drop`` sets the weights of special tokens to zero and rescales the others to sum to 1.
    """
    on_special = weight_on_special(inputs, weights)
    if bos == "drop":
        weights = torch.where(inputs.players.of_token >= 0, weights, 0.0)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=_TINY)
    inputs.tally.forward += len(inputs)
    inputs.tally.worked += len(inputs)
    meaning = "weight on tokens without a score"
    variables = {"on_special": variable(("prompt",), on_special.numpy(), "probability", meaning)}
    return TokenScores(weights, variables=variables, notes=(ALONE,), units="probability")
