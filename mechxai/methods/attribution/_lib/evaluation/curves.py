"""Deletion and insertion curves: the score as players are deleted, or inserted, in the order of their ranking."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.methods.attribution._lib.input import AttributionInput

_CURVE_FRACTIONS = tuple(index / 10 for index in range(1, 10))  # points of the curves, beside those of the measures


@dataclass(frozen=True)
class PerturbationCurves:
    """The score along rankings of the players.

    Attributes:
        deletion: with the top players of the ranking deleted, ``[ranking, prompt, count]``, counts from 0 to all; NaN
            behind the last count of a prompt and, in long prompts, at counts that were not run.
        insertion: with only the top players present, ``[ranking, prompt, count]``.
        counts: number of players of each prompt.
    """

    deletion: Float[np.ndarray, "ranking prompt count"]
    insertion: Float[np.ndarray, "ranking prompt count"]
    counts: tuple[int, ...]

    def comprehensiveness(self, fractions: Sequence[float]) -> Float[np.ndarray, "ranking prompt"]:
        """AOPC: mean loss over the fractions when the top players are deleted; higher is better."""
        return self.deletion[:, :, 0] - self._mean_at(self.deletion, fractions)

    def sufficiency(self, fractions: Sequence[float]) -> Float[np.ndarray, "ranking prompt"]:
        """AOPC: mean loss over the fractions when only the top players are present; lower is better."""
        return self.deletion[:, :, 0] - self._mean_at(self.insertion, fractions)

    def area(self, curve: Float[np.ndarray, "ranking prompt count"]) -> Float[np.ndarray, "ranking prompt"]:
        """The area under a curve over the share of players deleted or inserted, by the trapezoidal rule."""
        areas = np.full(curve.shape[:2], np.nan)
        for prompt, count in enumerate(self.counts):
            known = known_counts(curve[:, prompt], count)
            areas[:, prompt] = np.trapezoid(curve[:, prompt, known], np.array(known) / count, axis=-1)
        return areas

    def _mean_at(self, curve: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
        """The mean over the distinct counts of the fractions."""
        means = [curve[:, prompt, top_counts(count, fractions)].mean(-1) for prompt, count in enumerate(self.counts)]
        return np.stack(means, 1)


def known_counts(curve: Float[np.ndarray, "ranking count"], count: int) -> list[int]:
    """The counts, up to ``count`` players, at which the curves of a prompt were computed."""
    return [k for k in range(count + 1) if not np.isnan(curve[0, k])]


def top_counts(count: int, fractions: Sequence[float]) -> list[int]:
    """The fractions of ``count`` players as distinct numbers of players, each at least one (ERASER's rule)."""
    return sorted({min(count, max(1, ceil(fraction * count))) for fraction in fractions})


def ranks(scores: Float[np.ndarray, "... player"]) -> Int[np.ndarray, "... player"]:
    """The rank of every player from 0, the highest score first, NaN last."""
    return np.argsort(np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=-1, kind="stable"), axis=-1, kind="stable")


def random_scores(inputs: AttributionInput, draws: int, seed: int) -> Float[np.ndarray, "draw prompt player"]:
    """Uniform random scores; each prompt draws from a seed of its own, whatever batch it is in."""
    scores = np.full((draws, len(inputs), inputs.players.most), np.nan)
    for prompt, count in enumerate(inputs.players.counts):
        scores[:, prompt, :count] = np.random.default_rng([seed, prompt]).random((draws, count))
    return scores


def perturbation_curves(
    inputs: AttributionInput, scores: Float[np.ndarray, "ranking prompt player"], fractions: Sequence[float]
) -> PerturbationCurves:
    """The deletion and insertion curves of every ranking, in one sweep.

    Args:
        inputs: the prompts whose players are deleted and inserted.
        scores: of the players, one row per ranking.
        fractions: of the players, at which the curves are computed beside every tenth.

    Cost: about 2 x (9 + fractions) forward passes per ranking and prompt, fewer in short prompts.
    """
    counts, most = inputs.players.counts, inputs.players.most
    points = [[k for k in top_counts(count, (*_CURVE_FRACTIONS, *fractions)) if k < count] for count in counts]
    n_points = max(map(len, points))
    padded = np.array([[*row, *[0] * (n_points - len(row))] for row in points]).reshape(len(counts), n_points)
    rank = ranks(scores)[:, None]  # [ranking, 1, prompt, player]
    size = padded.T[None, :, :, None]  # [1, point, prompt, 1]
    exists = np.arange(most) < np.array(counts)[:, None]
    deleted = (rank < size) & exists
    not_inserted = (rank >= size) & exists & (size > 0)
    absent = torch.from_numpy(np.stack([deleted, not_inserted], 1).reshape(-1, len(counts), most))
    values = inputs.scores_without(absent).numpy().reshape(len(scores), 2, n_points, len(counts))
    return _curves_by_count(inputs, values, points)


def _curves_by_count(
    inputs: AttributionInput, values: np.ndarray, points: Sequence[Sequence[int]]
) -> PerturbationCurves:
    """Both curves indexed by count, from the scores at each prompt's points, with their known ends."""
    counts, most = inputs.players.counts, inputs.players.most
    both = np.full((2, len(values), len(counts), most + 1), np.nan)  # deletion, insertion
    ends = (inputs.target_score.numpy(), inputs.baseline_score.numpy())
    for prompt, (count, row) in enumerate(zip(counts, points, strict=True)):
        for curve in (0, 1):
            both[curve, :, prompt, 0] = ends[curve][prompt]
            both[curve, :, prompt, count] = ends[1 - curve][prompt]
            both[curve, :, prompt, row] = values[:, curve, : len(row), prompt].T
    return PerturbationCurves(both[0], both[1], tuple(counts))


def random_player_sets(inputs: AttributionInput, draws: int, seed: int) -> Bool[Tensor, "draw prompt player"]:
    """Random sets of players of uniform size, never empty and never all where there are two or more players."""
    sets = torch.zeros(draws, len(inputs), inputs.players.most, dtype=torch.bool)
    for prompt, count in enumerate(inputs.players.counts):
        generator = np.random.default_rng([seed, prompt, 1])
        size = generator.integers(1, max(2, count), draws)
        order = generator.random((draws, count)).argsort(1).argsort(1)
        sets[:, prompt, :count] = torch.from_numpy(order < size[:, None])
    return sets
