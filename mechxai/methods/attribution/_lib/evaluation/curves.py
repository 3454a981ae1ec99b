"""What becomes of the score as players go, or come, in the order of their scores: two curves behind all measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.methods.attribution._lib.input import AttributionInput

_POINTS = tuple(index / 10 for index in range(1, 10))  # of the curves, beside the fractions asked


@dataclass(frozen=True)
class Curves:
    """The score along rankings of the players.

    Attributes:
        deletion: with the first players of the ranking taken away, ``[ranking, prompt, count]``, counts from 0 up to
            all; NaN behind the last count of a prompt and, in long prompts, at counts that were not run.
        insertion: with only the first players there, likewise.
        counts: how many players each prompt has.
    """

    deletion: Float[np.ndarray, "ranking prompt count"]
    insertion: Float[np.ndarray, "ranking prompt count"]
    counts: tuple[int, ...]

    def comprehensiveness(self, fractions: Sequence[float]) -> Float[np.ndarray, "ranking prompt"]:
        """AOPC: the mean loss when the first players go, over the fractions; higher is better."""
        return self.deletion[:, :, 0] - self._at(self.deletion, fractions)

    def sufficiency(self, fractions: Sequence[float]) -> Float[np.ndarray, "ranking prompt"]:
        """AOPC: the mean loss when only the first players stay, over the fractions; lower is better."""
        return self.deletion[:, :, 0] - self._at(self.insertion, fractions)

    def area(self, curve: Float[np.ndarray, "ranking prompt count"]) -> Float[np.ndarray, "ranking prompt"]:
        """The mean height of a curve over the share of players gone or come, by trapezoids."""
        found = np.full(curve.shape[:2], np.nan)
        for prompt, count in enumerate(self.counts):
            known = [k for k in range(count + 1) if not np.isnan(curve[0, prompt, k])]
            found[:, prompt] = np.trapezoid(curve[:, prompt, known], np.array(known) / count, axis=-1)
        return found

    def _at(self, curve: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
        """The mean over the different counts that the fractions come to."""
        means = [curve[:, prompt, sizes(count, fractions)].mean(-1) for prompt, count in enumerate(self.counts)]
        return np.stack(means, 1)


def sizes(count: int, fractions: Sequence[float]) -> list[int]:
    """How many of ``count`` players the fractions come to: at least one, each number once (ERASER's rule)."""
    return sorted({min(count, max(1, ceil(fraction * count))) for fraction in fractions})


def ranks(scores: Float[np.ndarray, "... player"]) -> Int[np.ndarray, "... player"]:
    """The place of every player when they are put in order, the highest score first, missing ones last."""
    return np.argsort(np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=-1, kind="stable"), axis=-1, kind="stable")


def random_scores(problem: AttributionInput, draws: int, seed: int) -> Float[np.ndarray, "draw prompt player"]:
    """Scores that say nothing; each prompt has its own, whatever batch it is in."""
    found = np.full((draws, len(problem), problem.players.most), np.nan)
    for prompt, count in enumerate(problem.players.counts):
        found[:, prompt, :count] = np.random.default_rng([seed, prompt]).random((draws, count))
    return found


def curves(
    problem: AttributionInput, scores: Float[np.ndarray, "ranking prompt player"], fractions: Sequence[float]
) -> Curves:
    """Both curves of every ranking, in one sweep.

    Args:
        problem: whose players come and go.
        scores: of the players, one row per ranking.
        fractions: of the players, at which the curves must be known beside every tenth.

    Cost: about 2 x (9 + fractions) forward passes per ranking and prompt, fewer in short prompts.
    """
    counts, most = problem.players.counts, problem.players.most
    wanted = [[k for k in sizes(count, (*_POINTS, *fractions)) if k < count] for count in counts]
    n_points = max(map(len, wanted))
    points = np.array([[*row, *[0] * (n_points - len(row))] for row in wanted]).reshape(len(counts), n_points)
    place = ranks(scores)[:, None]  # [ranking, 1, prompt, player]
    size = points.T[None, :, :, None]  # [1, point, prompt, 1]
    real = np.arange(most) < np.array(counts)[:, None]
    gone = (place < size) & real
    alone = (place >= size) & real & (size > 0)
    absent = torch.from_numpy(np.stack([gone, alone], 1).reshape(-1, len(counts), most))
    found = problem.without(absent).numpy().reshape(len(scores), 2, n_points, len(counts))
    return _laid_out(problem, found, wanted)


def _laid_out(problem: AttributionInput, found: np.ndarray, wanted: Sequence[Sequence[int]]) -> Curves:
    counts, most = problem.players.counts, problem.players.most
    both = np.full((2, len(found), len(counts), most + 1), np.nan)
    ends = (problem.target_score.numpy(), problem.baseline_score.numpy())
    for prompt, (count, row) in enumerate(zip(counts, wanted, strict=True)):
        for which in (0, 1):
            both[which, :, prompt, 0] = ends[which][prompt]
            both[which, :, prompt, count] = ends[1 - which][prompt]
            both[which, :, prompt, row] = found[:, which, : len(row), prompt].T
    return Curves(both[0], both[1], tuple(counts))


def drawn_subsets(problem: AttributionInput, draws: int, seed: int) -> Bool[Tensor, "draw prompt player"]:
    """Players to take away, each with an even chance, never none and never all where there are two or more."""
    found = torch.zeros(draws, len(problem), problem.players.most, dtype=torch.bool)
    for prompt, count in enumerate(problem.players.counts):
        generator = np.random.default_rng([seed, prompt, 1])
        size = generator.integers(1, max(2, count), draws)
        order = generator.random((draws, count)).argsort(1).argsort(1)
        found[:, prompt, :count] = torch.from_numpy(order < size[:, None])
    return found
