"""Measures of whether scores are true to the model: infidelity, soft removal, stability, and what random weights do."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from mechxai.core.metric import Logprob, Prob
from mechxai.methods.attribution._lib.baselines import baseline_embeddings
from mechxai.methods.attribution._lib.evaluation.curves import drawn_subsets
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.scores import by_player

PlayerScores = Float[np.ndarray, "ranking prompt player"]
OfPrompts = Float[np.ndarray, "prompt player"]
_TINY = 1e-12
_LEAST_FALL = 1e-6  # of the probability without any player; below it soft measures have no scale


def infidelity(
    problem: AttributionInput, scores: PlayerScores, *, draws: int, seed: int
) -> tuple[Float[np.ndarray, "ranking prompt"], Float[np.ndarray, "ranking prompt"]]:
    """How far sums of scores are from what the score loses when those players go.

    Args:
        problem: whose players go, in random sets.
        scores: of the players.
        draws: sets per prompt.
        seed: of the sets.

    Returns:
        The mean squared error; and the same after the best scaling of the scores, as a share of the mean squared loss
        (0 is perfect, 1 is no better than scores of zero), which compares scores of different units.

    Cost: ``draws`` forward passes per prompt, whatever the number of rankings.

    Source: Yeh et al. 2019 (arXiv 1901.09392), definition 2.1, with sets of players taken away as perturbations.
    """
    gone = drawn_subsets(problem, draws, seed)
    loss = (problem.target_score[None] - problem.without(gone)).numpy()  # [draw, prompt]
    told = np.einsum("dpi,rpi->rdp", gone.numpy().astype(float), np.nan_to_num(scores))
    error = ((told - loss) ** 2).mean(1)
    scale = (told * loss).sum(1) / np.maximum((told**2).sum(1), _TINY)
    scaled = ((scale[:, None] * told - loss) ** 2).mean(1)
    return error, scaled / np.maximum((loss**2).mean(0), _TINY)


def soft_removal(
    problem: AttributionInput, scores: PlayerScores, *, draws: int, seed: int
) -> tuple[Float[np.ndarray, "ranking prompt"], Float[np.ndarray, "ranking prompt"]]:
    """Normalised soft comprehensiveness and sufficiency; both higher is better.

    Every number of a player's embedding is kept by chance: for sufficiency with the player's score, brought to 0 to 1
    in its prompt, for comprehensiveness with what is left to 1; others are set to zero. The probability of the answer
    is compared.

    Cost: ``2 draws`` forward passes per ranking and prompt, and two per prompt.

    Source: Zhao and Aletras 2023 (arXiv 2305.10496), equations 3 to 6.
    """
    several = problem.batch.answers.shape[2] > 1
    away = {"embeddings": problem.embeddings, "players": problem.players}
    zero = baseline_embeddings(problem.subject, problem.batch, "zero", **away)
    zeroed = replace(problem, metric=Logprob() if several else Prob(), baseline=zero)
    share = _unit(scores)
    kept = np.take_along_axis(
        np.nan_to_num(share), np.maximum(problem.players.of_token.numpy(), 0)[None], 2
    )  # [ranking, prompt, pos]
    free = (problem.players.of_token >= 0)[..., None]
    shape = (draws, *problem.embeddings.shape[1:])
    chance = torch.stack([_uniform(shape, (seed, row)) for row in range(len(problem))], 1)  # the same for every ranking
    found = [_soft(zeroed, torch.from_numpy(row), free, chance) for row in kept]
    values = np.stack(found, 1)  # [2, ranking, prompt]
    return values[0], values[1]


def _soft(problem: AttributionInput, kept: Tensor, free: Tensor, uniform: Tensor) -> np.ndarray:  # noqa: PLR0917 - one call
    """Comprehensiveness and sufficiency of one ranking, ``[2, prompt]``."""
    whole, nothing = _probability(problem, problem.target_score), _probability(problem, problem.baseline_score)
    least = 1 - np.maximum(0, whole - nothing)
    chances = (1 - kept, kept)  # of a number's being kept
    cells = [(uniform >= chance[None, ..., None]) & free[None] for chance in chances]
    scores = problem.without_tokens(torch.cat(cells))
    after = _probability(problem, scores).reshape(2, len(uniform), -1).mean(1)
    fall = np.maximum(0, whole[None] - after)
    room = np.where(1 - least > _LEAST_FALL, 1 - least, np.nan)
    comprehensive = np.clip(fall[0] / room, 0, 1)
    sufficient = np.clip((1 - fall[1] - least) / room, 0, 1)
    return np.stack([comprehensive, sufficient])


def _uniform(shape: Sequence[int], seed: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(list(seed)).random(shape, dtype=np.float32))


def _probability(problem: AttributionInput, scores: Tensor) -> np.ndarray:
    return (scores.exp() if isinstance(problem.metric, Logprob) else scores).numpy()


def _unit(scores: PlayerScores) -> PlayerScores:
    """Scores brought to 0 to 1 in every prompt."""
    low, high = np.nanmin(scores, -1, keepdims=True), np.nanmax(scores, -1, keepdims=True)
    return (scores - low) / np.maximum(high - low, _TINY)


def rank_agreement(left: OfPrompts, right: OfPrompts) -> Float[np.ndarray, " prompt"]:
    """Spearman's correlation of two methods' scores in each prompt; NaN where one of them is the same for all."""
    found = []
    for a, b in zip(left, right, strict=True):
        known = ~np.isnan(a) & ~np.isnan(b)
        found.append(spearman(a[known], b[known]))
    return np.array(found)


def spearman(left: Float[np.ndarray, " n"], right: Float[np.ndarray, " n"]) -> float:
    """Spearman's correlation; NaN where either side is the same for all."""
    flat = len(left) < 2 or np.ptp(left) == 0 or np.ptp(right) == 0
    return np.nan if flat else float(np.asarray(spearmanr(left, right))[0])


def top_overlap(left: OfPrompts, right: OfPrompts, share: float) -> Float[np.ndarray, " prompt"]:
    """Share of the first players of one ranking that are among the first of the other, in each prompt."""
    found = []
    for a, b in zip(left, right, strict=True):
        count = int((~np.isnan(a)).sum())
        k = max(1, round(share * count))
        tops = [set(np.argsort(-np.nan_to_num(one, nan=-np.inf), kind="stable")[:k].tolist()) for one in (a, b)]
        found.append(len(tops[0] & tops[1]) / k)
    return np.array(found)


def player_scores(problem: AttributionInput, tokens: Tensor) -> OfPrompts:
    """Scores of tokens as those of players."""
    return by_player(problem, tokens).numpy()
