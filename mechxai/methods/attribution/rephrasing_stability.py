"""Does an attribution say the same of the same words when the question is put otherwise?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ShapeError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.statistics import bootstrap_weights
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.evaluation.comparison import EvaluationSettings
from mechxai.methods.attribution._lib.evaluation.measures import player_scores, spearman
from mechxai.methods.attribution._lib.method_names import Named, method_of
from mechxai.methods.attribution.kernel_shap import KernelShap
from mechxai.methods.result_parts import bounded, run_info, token_texts

Word = tuple[str, int]  # as it is written, and the how many-th of its kind in its prompt
_LEAST_SHARED = 3


@final
@register(
    MethodCard(
        name="rephrasing_stability",
        family="attribution",
        kind="rephrasing_stability",
        question="Does an attribution give the same words the same scores when the prompt is rephrased?",
        cost="the method once per rephrasing",
        source="Alvarez-Melis & Jaakkola 2018 (arXiv 1806.08049), here over the words of rephrasings",
        pros="shows how far one explanation of one wording may be trusted",
        cons="what rephrasings share is few words; stable scores need not be true ones",
    )
)
@dataclass(frozen=True)
class RephrasingStability(Method):
    """Correlations of a method's scores over the words that rephrasings share.

    Attributes:
        of: the method, or its name.
        metric: what is scored; also asked of the method.
        players: ``word`` or ``token``.
        ignore: words that count for nothing, such as punctuation.
        shuffles: orders of each prompt's own scores that stand beside, as chance.
        seed: of the shuffles.
    """

    of: Named = KernelShap()  # noqa: RUF009 - frozen
    metric: AnyMetric = "logit_diff"
    players: str = "word"
    ignore: Sequence[str] = (".", ",", "?", "!")
    shuffles: int = 200
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        method_of(self.of)
        check_choice("players", self.players, ("word", "token"))
        if self.shuffles < 1:
            raise ConfigError(f"rephrasing_stability with shuffles={self.shuffles}", allowed="1 or more")

    def __call__(self, model: Any, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """How far scores of shared words agree between rephrasings.

        Args:
            model: a `HookedModel`, or anything else `Explained`.
            batch: the rephrasings of one question, one per row, with the same answer.
            execution: how to run.

        Returns:
            ``stability`` [], the mean Spearman correlation over pairs of rephrasings, with an interval over rephrasings
            (resampled, pairs of the same one left out); ``stability_random`` [], of shuffled scores;
            ``agreement`` [prompt, other]; ``shared`` [prompt, other], how many words; ``value`` [word], ``spread``
            [word], mean (with an interval) and standard deviation over rephrasings of each word's share in the
            sizes of all scores.

        Raises:
            ShapeError: fewer than two rephrasings, or none that share words enough.
        """
        if len(batch) < 2:
            raise ShapeError("Rephrasings of a question", got=f"{len(batch)} prompt", fix="give two or more")
        started = time.perf_counter()
        method = EvaluationSettings(self.metric, "zero", self.players, special=False).put(method_of(self.of))
        problem = method.problem(model, batch, execution)
        scores = method.scores(problem)
        players = player_scores(problem, scores.tokens)
        rows = [_by_word(names, row, self.ignore) for names, row in zip(problem.players.names, players, strict=True)]
        shared, agreement = _pairs(rows)
        if not np.isfinite(agreement).any():
            raise ShapeError(
                "Rephrasings of a question",
                got=f"no two that share {_LEAST_SHARED} words",
                fix="rephrase less, or give players=token",
            )
        low, high = _interval(agreement)
        draws = np.random.default_rng(self.seed)
        chance = [float(np.nanmean(_pairs([_shuffled(row, draws) for row in rows])[1])) for _ in range(self.shuffles)]
        words, shares = _of_words(rows)
        pair, meaning = ("prompt", "other"), "Spearman's correlation of scores of shared words"
        data = {
            "stability": variable((), float(np.nanmean(agreement)), "correlation", f"{meaning}, mean over pairs"),
            "stability_low": variable((), low, "correlation", "95 % bootstrap over rephrasings, low"),
            "stability_high": variable((), high, "correlation", "95 % bootstrap over rephrasings, high"),
            "stability_random": variable((), float(np.mean(chance)), "correlation", f"{meaning}, shuffled"),
            "agreement": variable(pair, agreement, "correlation", meaning),
            "shared": variable(pair, shared, "words", "words in both"),
            "spread": variable(("word",), np.nanstd(shares, 0, ddof=1), "fraction", "standard deviation of shares"),
            "token": token_texts(problem.subject.text, problem.batch.clean, problem.batch.lengths),
        }
        share = "share in the sizes of all scores of its rephrasing"
        data |= bounded("value", ("word",), shares, units="fraction", meaning=share)
        numbers = list(range(len(batch)))
        coords = {"prompt": numbers, "other": numbers, "word": words}
        cost = {
            "forward_passes": problem.tally.forward / len(batch),
            "seconds": time.perf_counter() - started,
        }
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=scores.notes))


def _by_word(names: Sequence[str], scores: Float[np.ndarray, " player"], ignore: Sequence[str]) -> dict[Word, float]:
    """Scores by word; the second of two equal words is another word than the first."""
    found: dict[Word, float] = {}
    for name, score in zip(names, scores, strict=False):
        word = name.strip().lower()
        if word and word not in ignore:
            found[word, sum(known == word for known, _ in found)] = float(score)
    return found


def _pairs(rows: Sequence[dict[Word, float]]) -> tuple[np.ndarray, np.ndarray]:
    """How many words every two rephrasings share, and the correlation of their scores; NaN with themselves."""
    n = len(rows)
    shared, agreement = np.zeros((n, n), dtype=np.int64), np.full((n, n), np.nan)
    for i in range(n):
        for j in range(n):
            both = [word for word in rows[i] if word in rows[j]]
            shared[i, j] = len(both)
            if i != j and len(both) >= _LEAST_SHARED:
                agreement[i, j] = spearman(*(np.array([rows[k][word] for word in both]) for k in (i, j)))
    return shared, agreement


def _shuffled(row: dict[Word, float], draws: np.random.Generator) -> dict[Word, float]:
    return dict(zip(row, draws.permutation(list(row.values())).tolist(), strict=True))


def _interval(agreement: np.ndarray) -> tuple[float, float]:
    """Of the mean over pairs, rephrasings resampled; a pair counts as often as both its rephrasings are drawn."""
    weights = bootstrap_weights(len(agreement))
    known = np.isfinite(agreement)
    filled = np.where(known, agreement, 0.0)
    above = np.einsum("di,ij,dj->d", weights, filled, weights)
    below = np.einsum("di,ij,dj->d", weights, known.astype(float), weights)
    means = above[below > 0] / below[below > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _of_words(rows: Sequence[dict[Word, float]]) -> tuple[list[str], Float[np.ndarray, "prompt word"]]:
    """Words in two rephrasings or more, the largest first; the share of each in the sizes of its prompt's scores."""
    sizes = [max(sum(map(abs, row.values())), 1e-12) for row in rows]
    every = list(dict.fromkeys(word for row in rows for word in row))
    shares = {
        word: np.array([row.get(word, np.nan) / size for row, size in zip(rows, sizes, strict=True)]) for word in every
    }
    common = [word for word in every if np.isfinite(shares[word]).sum() > 1]
    order = sorted(common, key=lambda word: -abs(np.nanmean(shares[word])))
    names = [word if not number else f"{word} ({number + 1})" for word, number in order]
    return names, np.stack([shares[word] for word in order], 1)
