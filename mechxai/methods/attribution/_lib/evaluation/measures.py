"""Measures of faithfulness and agreement: infidelity, soft comprehensiveness and sufficiency, rank correlation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from mechxai.core.metric import Logprob, Prob
from mechxai.methods.attribution._lib.baselines import baseline_embeddings
from mechxai.methods.attribution._lib.evaluation.curves import random_player_sets
from mechxai.methods.attribution._lib.input import AttributionInput

RankingScores = Float[np.ndarray, "ranking prompt player"]
PlayerScores = Float[np.ndarray, "prompt player"]
_TINY = 1e-12
_MIN_FALL = 1e-6  # fall of the probability without any player, below which the soft measures are undefined


def infidelity(
    inputs: AttributionInput, scores: RankingScores, *, draws: int, seed: int
) -> tuple[Float[np.ndarray, "ranking prompt"], Float[np.ndarray, "ranking prompt"]]:
    """The error of sums of scores as predictions of the loss when those players are deleted.

    Args:
        inputs: the prompts whose players are deleted, in random sets.
        scores: of the players.
        draws: sets per prompt.
        seed: of the sets.

    Returns:
        The mean squared error; and the same after the best scaling of the scores, as a share of the mean squared loss
        (0 is perfect, 1 is no better than scores of zero), which compares scores of different units.

    Cost: ``draws`` forward passes per prompt, whatever the number of rankings.

    Source: Yeh et al. 2019 (arXiv 1901.09392), definition 2.1, with deletions of sets of players as perturbations.
    """
    absent = random_player_sets(inputs, draws, seed)
    loss = (inputs.target_score[None] - inputs.scores_without(absent)).numpy()  # [draw, prompt]
    predicted = np.einsum("dpi,rpi->rdp", absent.numpy().astype(float), np.nan_to_num(scores))
    error = ((predicted - loss) ** 2).mean(1)
    scale = (predicted * loss).sum(1) / np.maximum((predicted**2).sum(1), _TINY)
    scaled = ((scale[:, None] * predicted - loss) ** 2).mean(1)
    return error, scaled / np.maximum((loss**2).mean(0), _TINY)


def soft_faithfulness(
    inputs: AttributionInput, scores: RankingScores, *, draws: int, seed: int
) -> tuple[Float[np.ndarray, "ranking prompt"], Float[np.ndarray, "ranking prompt"]]:
    """Normalised soft comprehensiveness and sufficiency; higher is better for both.

    Each dimension of a player's embedding is kept at random and else set to zero. For sufficiency the probability of
    keeping it is the player's score, rescaled to 0 to 1 within the prompt; for comprehensiveness, one minus that. The
    probability of the answer is compared.

    Cost: ``2 draws`` forward passes per ranking and prompt, and two per prompt.

    Source: Zhao and Aletras 2023 (arXiv 2305.10496), equations 3 to 6.
    """
    long_answers = inputs.batch.answers.shape[2] > 1
    zero = baseline_embeddings(inputs.model, inputs.batch, "zero", embeddings=inputs.embeddings, players=inputs.players)
    zeroed = replace(inputs, metric=Logprob() if long_answers else Prob(), baseline=zero, end_scores=None)
    keep = np.take_along_axis(
        np.nan_to_num(_rescaled(scores)), np.maximum(inputs.players.of_token.numpy(), 0)[None], 2
    )  # [ranking, prompt, pos]
    has_player = (inputs.players.of_token >= 0)[..., None]
    shape = (draws, *inputs.embeddings.shape[1:])
    uniform = torch.stack([_uniform(shape, (seed, row)) for row in range(len(inputs))], 1)  # shared by all rankings
    values = [_soft_measures(zeroed, torch.from_numpy(row), has_player, uniform=uniform) for row in keep]
    stacked = np.stack(values, 1)  # [2, ranking, prompt]
    return stacked[0], stacked[1]


def _soft_measures(inputs: AttributionInput, keep: Tensor, has_player: Tensor, *, uniform: Tensor) -> np.ndarray:
    """Comprehensiveness and sufficiency of one ranking, ``[2, prompt]``."""
    full, empty = _probability(inputs, inputs.target_score), _probability(inputs, inputs.baseline_score)
    baseline_sufficiency = 1 - np.maximum(0, full - empty)
    probabilities = (1 - keep, keep)  # of keeping a dimension
    absent = [(uniform >= probability[None, ..., None]) & has_player[None] for probability in probabilities]
    scores = inputs.scores_without_tokens(torch.cat(absent))
    after = _probability(inputs, scores).reshape(2, len(uniform), -1).mean(1)
    fall = np.maximum(0, full[None] - after)
    largest_fall = np.where(1 - baseline_sufficiency > _MIN_FALL, 1 - baseline_sufficiency, np.nan)
    comprehensiveness = np.clip(fall[0] / largest_fall, 0, 1)
    sufficiency = np.clip((1 - fall[1] - baseline_sufficiency) / largest_fall, 0, 1)
    return np.stack([comprehensiveness, sufficiency])


def _uniform(shape: Sequence[int], seed: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(list(seed)).random(shape, dtype=np.float32))


def _probability(inputs: AttributionInput, scores: Tensor) -> np.ndarray:
    return (scores.exp() if isinstance(inputs.metric, Logprob) else scores).numpy()


def _rescaled(scores: RankingScores) -> RankingScores:
    """Scores rescaled to 0 to 1 within each prompt."""
    low, high = np.nanmin(scores, -1, keepdims=True), np.nanmax(scores, -1, keepdims=True)
    return (scores - low) / np.maximum(high - low, _TINY)


def rank_agreement(left: PlayerScores, right: PlayerScores) -> Float[np.ndarray, " prompt"]:
    """Spearman's correlation of two methods' scores in each prompt; NaN where one of them is constant."""
    correlations = []
    for a, b in zip(left, right, strict=True):
        known = ~np.isnan(a) & ~np.isnan(b)
        correlations.append(spearman(a[known], b[known]))
    return np.array(correlations)


def spearman(left: Float[np.ndarray, " n"], right: Float[np.ndarray, " n"]) -> float:
    """Spearman's correlation; NaN where either side is constant."""
    constant = len(left) < 2 or np.ptp(left) == 0 or np.ptp(right) == 0
    return np.nan if constant else float(np.asarray(spearmanr(left, right))[0])


def top_overlap(left: PlayerScores, right: PlayerScores, share: float) -> Float[np.ndarray, " prompt"]:
    """Share of one ranking's top players that are among the other's, in each prompt."""
    overlaps = []
    for a, b in zip(left, right, strict=True):
        count = int((~np.isnan(a)).sum())
        k = max(1, round(share * count))
        tops = [set(np.argsort(-np.nan_to_num(row, nan=-np.inf), kind="stable")[:k].tolist()) for row in (a, b)]
        overlaps.append(len(tops[0] & tops[1]) / k)
    return np.array(overlaps)
