"""Sensitivity of scores to small changes of the input, and to random weights."""

import numpy as np
import torch
from jaxtyping import Float

from mechxai.methods.attribution._lib.adapters.hooked import HookedAdapter
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.evaluation.measures import rank_agreement
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.scores import player_scores
from mechxai.model.backends.randomised import randomised

_TINY = 1e-12


def max_sensitivity(
    method: Attribution,
    inputs: AttributionInput,
    scores: Float[np.ndarray, "prompt player"],
    *,
    radius: float,
    draws: int,
    seed: int,
) -> Float[np.ndarray, " prompt"]:
    """The largest change of the scores, relative to their norm, under small random moves of the embeddings.

    NaN for a black box, which has no embeddings.

    Args:
        method: the method.
        inputs: its input.
        scores: its scores.
        radius: largest move of a dimension, as a share of the standard deviation of the prompts' embeddings.
        draws: of the move.
        seed: of the draws.

    Cost: ``draws`` times the method.

    Source: Yeh et al. 2019 (arXiv 1901.09392), definition 3.1; the radius is in units of the embeddings.
    """
    if not inputs.model.has_internals:
        return np.full(len(inputs), np.nan)
    largest = np.zeros(len(inputs))
    norm = np.linalg.norm(np.nan_to_num(scores), axis=-1)
    for draw in range(draws):
        moved = inputs.with_embeddings(_moved_embeddings(inputs, radius, (seed, draw)))
        change = np.nan_to_num(player_scores(moved, method.scores(moved).tokens) - scores)
        largest = np.maximum(largest, np.linalg.norm(change, axis=-1) / np.maximum(norm, _TINY))
    return largest


def _moved_embeddings(inputs: AttributionInput, radius: float, seed: tuple[int, int]) -> torch.Tensor:
    limit = radius * float(inputs.embeddings[inputs.batch.mask].double().std())
    has_player = inputs.players.has_player(inputs.embeddings.device)[..., None]
    shape = inputs.embeddings.shape[1:]
    moves = [np.random.default_rng([*seed, row]).uniform(-limit, limit, shape) for row in range(len(inputs))]
    return inputs.embeddings + torch.from_numpy(np.stack(moves)).to(inputs.embeddings) * has_player


def randomisation_similarity(
    method: Attribution, inputs: AttributionInput, scores: Float[np.ndarray, "prompt player"], *, seed: int
) -> Float[np.ndarray, " prompt"]:
    """Spearman's correlation of the scores' magnitudes with those on the same model with random weights.

    Near 1, the scores reflect the prompt and the method, not what the model has learnt. NaN for other models than a
    `HookedModel`.

    Cost: the method once, on a copy of the model.

    Source: Adebayo et al. 2018 (arXiv 1810.03292), cascading randomisation to its end.
    """
    if not isinstance(inputs.model, HookedAdapter):
        return np.full(len(inputs), np.nan)
    random_inputs = method.inputs(randomised(inputs.model.model, seed), inputs.batch, inputs.execution)
    random_scores = player_scores(random_inputs, method.scores(random_inputs).tokens)
    return rank_agreement(np.abs(scores), np.abs(random_scores))
