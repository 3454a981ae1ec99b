"""Rephrasing stability: whether an attribution scores the same words alike when the prompt is rephrased."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.statistics import bootstrap_weights
from mechxai.core.work_clock import work_seconds
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.evaluation.measures import spearman
from mechxai.methods.attribution._lib.evaluation.settings import with_settings
from mechxai.methods.attribution._lib.input import InputSettings
from mechxai.methods.attribution._lib.method_names import MethodOrName, method_of
from mechxai.methods.attribution._lib.scores import player_scores
from mechxai.methods.attribution.kernel_shap import KernelShap
from mechxai.methods.result_parts import bounded, run_info, token_texts

Word = tuple[str, int]  # its spelling, and how many equal words precede it in the prompt
WordKind = Literal["word", "token"]
_MIN_SHARED = 3
_TINY = 1e-12


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
        cons="rephrasings share few words; stable scores need not be faithful",
    )
)
@dataclass(frozen=True)
class RephrasingStability(Method):
    """Correlations of a method's scores over the words that rephrasings share.

    Attributes:
        of: the method, or its name.
        metric: what is scored; the method uses it too.
        players: ``word`` or ``token``.
        ignore: words that are left out, such as punctuation.
        shuffles: random orders of each prompt's own scores, for the correlation by chance.
        seed: of the shuffles.
    """

    of: MethodOrName = KernelShap()  # noqa: RUF009 - frozen
    metric: AnyMetric = "logit_diff"
    players: WordKind = "word"
    ignore: Sequence[str] = (".", ",", "?", "!")
    shuffles: int = 200
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        method_of(self.of)
        if self.shuffles < 1:
            raise ConfigError(f"shuffles is {self.shuffles}: it must be at least 1")

    def __call__(self, model: Any, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """The agreement of scores of shared words between rephrasings.

        Args:
            model: a `HookedModel`, classifier, encoder, black box, or any other `AttributionModel`.
            batch: the rephrasings of one question, one per row, with the same answer.
            execution: how to run.

        Returns:
            ``stability`` [], the mean Spearman correlation over pairs of rephrasings, with an interval over rephrasings
            (resampled, pairs of the same one left out); ``stability_random`` [], of shuffled scores;
            ``agreement`` [prompt, other]; ``shared`` [prompt, other], number of shared words; ``value`` [word],
            ``spread`` [word], mean (with an interval) and standard deviation over rephrasings of each word's share in
            the summed magnitudes of the scores; ``token`` [prompt, pos].

        Raises:
            ShapeError: fewer than two rephrasings, or no two that share enough words.
        """
        if len(batch) < 2:
            raise ShapeError(f"rephrasing_stability has {len(batch)} rephrasing", fix="Give two or more")
        started = work_seconds()
        settings = InputSettings(self.metric, "zero", self.players, special=False)
        method = with_settings(method_of(self.of), settings)
        inputs = method.inputs(model, batch, execution)
        scores = method.scores(inputs)
        by_player = player_scores(inputs, scores.tokens)
        rows = [
            _word_scores(names, row, self.ignore) for names, row in zip(inputs.players.names, by_player, strict=True)
        ]
        shared, agreement = _pairwise_agreement(rows)
        if not np.isfinite(agreement).any():
            raise ShapeError(f"No two rephrasings share {_MIN_SHARED} words", fix="Rephrase less, or set players=token")
        data = self._stability_variables(rows, agreement)
        words, shares = _word_shares(rows)
        meaning = "Spearman's correlation of scores of shared words"
        data |= {
            "agreement": variable(("prompt", "other"), agreement, "correlation", meaning),
            "shared": variable(("prompt", "other"), shared, "words", "words in both"),
            "spread": variable(("word",), np.nanstd(shares, 0, ddof=1), "fraction", "standard deviation of shares"),
            "token": token_texts(inputs.model.text, inputs.batch.clean, inputs.batch.lengths),
        }
        meaning = "share in the summed magnitudes of its rephrasing's scores"
        data |= bounded("value", ("word",), shares, units="fraction", meaning=meaning)
        numbers = list(range(len(batch)))
        coords = {"prompt": numbers, "other": numbers, "word": words}
        cost = {"forward_passes": inputs.tally.forward / len(batch), "seconds": work_seconds() - started}
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost, notes=scores.notes))

    def _stability_variables(self, rows: Sequence[dict[Word, float]], agreement: np.ndarray) -> dict[str, xr.DataArray]:
        """The mean agreement with its interval, and that of shuffled scores."""
        low, high = _bootstrap_interval(agreement)
        generator = np.random.default_rng(self.seed)
        chance = [
            float(np.nanmean(_pairwise_agreement([_shuffled(row, generator) for row in rows])[1]))
            for _ in range(self.shuffles)
        ]
        mean, meaning = float(np.nanmean(agreement)), "Spearman's correlation of scores of shared words"
        return {
            "stability": variable((), mean, "correlation", f"{meaning}, mean over pairs"),
            "stability_low": variable((), low, "correlation", "95 % bootstrap over rephrasings, low"),
            "stability_high": variable((), high, "correlation", "95 % bootstrap over rephrasings, high"),
            "stability_random": variable((), float(np.mean(chance)), "correlation", f"{meaning}, shuffled"),
        }


def _word_scores(
    names: Sequence[str], scores: Float[np.ndarray, " player"], ignore: Sequence[str]
) -> dict[Word, float]:
    """Scores by word; equal words of a prompt are numbered."""
    by_word: dict[Word, float] = {}
    for name, score in zip(names, scores, strict=False):
        spelling = name.strip().lower()
        if spelling and spelling not in ignore:
            by_word[spelling, sum(other == spelling for other, _ in by_word)] = float(score)
    return by_word


def _pairwise_agreement(rows: Sequence[dict[Word, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Number of words that each two rephrasings share, and the correlation of their scores; NaN on the diagonal."""
    n = len(rows)
    shared, agreement = np.zeros((n, n), dtype=np.int64), np.full((n, n), np.nan)
    for i in range(n):
        for j in range(n):
            both = [word for word in rows[i] if word in rows[j]]
            shared[i, j] = len(both)
            if i != j and len(both) >= _MIN_SHARED:
                agreement[i, j] = spearman(*(np.array([rows[k][word] for word in both]) for k in (i, j)))
    return shared, agreement


def _shuffled(row: dict[Word, float], generator: np.random.Generator) -> dict[Word, float]:
    return dict(zip(row, generator.permutation(list(row.values())).tolist(), strict=True))


def _bootstrap_interval(agreement: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over pairs, with rephrasings resampled; a pair weighs the product of its two draws."""
    weights = bootstrap_weights(len(agreement))
    known = np.isfinite(agreement)
    filled = np.where(known, agreement, 0.0)
    numerator = np.einsum("di,ij,dj->d", weights, filled, weights)
    denominator = np.einsum("di,ij,dj->d", weights, known.astype(float), weights)
    means = numerator[denominator > 0] / denominator[denominator > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _word_shares(rows: Sequence[dict[Word, float]]) -> tuple[list[str], Float[np.ndarray, "prompt word"]]:
    """Words of at least two rephrasings, the largest first, and each one's share in its prompt's summed magnitudes."""
    totals = [max(sum(map(abs, row.values())), _TINY) for row in rows]
    words = list(dict.fromkeys(word for row in rows for word in row))
    shares = {
        word: np.array([row.get(word, np.nan) / total for row, total in zip(rows, totals, strict=True)])
        for word in words
    }
    common = [word for word in words if np.isfinite(shares[word]).sum() > 1]
    order = sorted(common, key=lambda word: -abs(np.nanmean(shares[word])))
    names = [spelling if not number else f"{spelling} ({number + 1})" for spelling, number in order]
    return names, np.stack([shares[word] for word in order], 1)
