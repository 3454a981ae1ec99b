"""Do scores hold still when the input barely moves, and change when the model is another?"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from mechxai.methods.attribution._lib.adapters.hooked import HookedAdapter
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.evaluation.measures import player_scores, rank_agreement
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.model.backends.randomised import randomised


def max_sensitivity(
    method: Attribution,
    problem: AttributionInput,
    scores: Float[np.ndarray, "prompt player"],
    *,
    radius: float,
    draws: int,
    seed: int,
) -> Float[np.ndarray, " prompt"]:
    """The most that scores move, relative to their length, when every number of the embeddings moves a little.

    NaN for what takes nothing but text.

    Args:
        method: the method.
        problem: its problem.
        scores: what it gave.
        radius: largest move, as a share of the standard deviation of the prompts' embeddings.
        draws: of the move.
        seed: of the draws.

    Cost: ``draws`` times the method.

    Source: Yeh et al. 2019 (arXiv 1901.09392), definition 3.1; the radius is in units of the embeddings.
    """
    if not problem.subject.inside:
        return np.full(len(problem), np.nan)
    most = np.zeros(len(problem))
    size = np.linalg.norm(np.nan_to_num(scores), axis=-1)
    for draw in range(draws):
        moved = replace(problem, embeddings=_moved(problem, radius, (seed, draw)))
        change = np.nan_to_num(player_scores(moved, method.scores(moved).tokens) - scores)
        most = np.maximum(most, np.linalg.norm(change, axis=-1) / np.maximum(size, 1e-12))
    return most


def _moved(problem: AttributionInput, radius: float, seed: tuple[int, int]) -> torch.Tensor:
    reach = radius * float(problem.embeddings[problem.batch.mask].double().std())
    free = problem.players.free(problem.embeddings.device)[..., None]
    shape = problem.embeddings.shape[1:]
    moves = [np.random.default_rng([*seed, row]).uniform(-reach, reach, shape) for row in range(len(problem))]
    return problem.embeddings + torch.from_numpy(np.stack(moves)).to(problem.embeddings) * free


def randomisation_similarity(
    method: Attribution, problem: AttributionInput, scores: Float[np.ndarray, "prompt player"], *, seed: int
) -> Float[np.ndarray, " prompt"]:
    """Spearman's correlation of scores' sizes with those on the same model with random weights.

    Near 1, the scores come of the prompt and the method, not of what the model has learnt.

    Cost: once the method, on a copy of the model.

    Source: Adebayo et al. 2018 (arXiv 1810.03292), cascading randomisation to its end.
    """
    subject = problem.subject
    if not isinstance(subject, HookedAdapter):
        return np.full(len(problem), np.nan)
    elsewhere = method.problem(randomised(subject.model, seed), problem.batch, problem.execution)
    found = player_scores(elsewhere, method.scores(elsewhere).tokens)
    return rank_agreement(np.abs(scores), np.abs(found))
