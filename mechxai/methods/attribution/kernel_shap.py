"""Shapley values estimated by a weighted regression on sampled coalitions."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import comb
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import variable
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import BASELINES
from mechxai.methods.attribution._lib.coalitions import score_of_present
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.prompt_by_prompt import prompt_by_prompt
from mechxai.methods.attribution._lib.scores import Scores, of_players, together


@final
@register(
    MethodCard(
        name="kernel_shap",
        family="attribution",
        kind="attribution",
        question="What does each player bring, averaged over sampled coalitions of the others?",
        cost="n_samples forward passes per prompt (2M + 2,048 by default), fewer where that is every coalition",
        source="Lundberg & Lee 2017 (arXiv 1705.07874)",
        pros="needs scores only; adds up; comes with a standard error",
        cons="many passes; coalitions are no natural text; depends on the baseline",
    )
)
@dataclass(frozen=True)
class KernelShap(Attribution):
    """SHAP's ``KernelExplainer`` over players present or absent, with no L1 (SHAP's default keeps ten features).

    It takes coalitions of whole sizes while the budget lasts and samples the rest in complementary pairs; the scores
    are made to add up. Every coalition of a prompt goes through the engine in one sweep.

    Attributes:
        metric: what is scored.
        baseline: what stands in place of a player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        n_samples: coalitions per prompt; 0 for SHAP's ``2M + 2048``.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        seed: of the sampling; each prompt has its own draws, whatever batch it is in.
    """

    metric: AnyMetric = "logit_diff"
    baseline: str = "pad"
    n_samples: int = 0
    players: str = "token"
    special: bool = False
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("players", self.players, KINDS)
        if self.n_samples < 0:
            raise ConfigError(f"kernel_shap with n_samples={self.n_samples}", allowed="0 (2M + 2,048) or more")

    def scores(self, problem: AttributionInput) -> Scores:
        """Shapley estimates; ``standard_error`` [prompt, player] says how far sampling may have moved them."""
        found = prompt_by_prompt(self, problem, self._estimate)
        width = problem.players.most
        values, errors = (together([row[part] for row in found], width) for part in (0, 1))
        meaning = "standard error that sampling coalitions leaves; 0 where all were taken"
        more = {"standard_error": variable(("prompt", "player"), errors.numpy(), problem.metric.unit, meaning)}
        return Scores(of_players(problem, values.nan_to_num()), complete=True, more=more)

    def _estimate(self, problem: AttributionInput, number: int) -> Tensor:
        """The values of a prompt's players and, in a second row, their standard errors, ``[2, player]``."""
        import shap  # noqa: PLC0415 - heavy

        n = problem.players.most
        needed = min(2**n - 2, 2 * n)
        if 0 < self.n_samples < needed:
            raise ConfigError(
                f"kernel_shap with n_samples={self.n_samples} of {n} players",
                allowed=f"{needed} or more, so that the regression is determined",
                fix="more samples, or players=word or span",
            )
        with numpy_seeded(self.seed + number):
            explainer = shap.KernelExplainer(score_of_present(problem), np.zeros((1, n)))
            values = explainer.shap_values(
                np.ones((1, n)), nsamples=self.n_samples or "auto", l1_reg=False, silent=True
            )
        errors = _standard_errors(explainer, values[0]) if n > 1 else np.zeros(n)
        return torch.from_numpy(np.stack([values[0], errors]))


@contextmanager
def numpy_seeded(seed: int) -> Generator[None]:
    """NumPy's global draws from a seed, and the generator as it was afterwards; SHAP takes none of its own.

    Yields:
        Nothing.
    """
    state = np.random.get_state()  # noqa: NPY002 - the generator that SHAP draws from
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _standard_errors(explainer: Any, values: np.ndarray) -> np.ndarray:
    """Of a weighted regression whose rows were sampled: the sandwich of its normal equations, the sum held fixed.

    Rows whose size of coalition was taken whole are no sample and add nothing.
    """
    masks, weights = explainer.maskMatrix, explainer.kernelWeights
    n_rows, n = masks.shape
    if n_rows >= 2**n - 2:
        return np.zeros(n)
    sizes = masks.sum(1)
    whole = {size for size in np.unique(sizes) if (sizes == size).sum() == comb(n, int(size))}
    sampled = ~np.isin(sizes, list(whole))
    change = explainer.fx[0] - explainer.fnull[0]
    target = explainer.ey[:, 0] - explainer.fnull[0] - masks[:, -1] * change
    design = masks[:, :-1] - masks[:, -1:]
    residual = target - design @ values[:-1]
    inverse = np.linalg.pinv(design.T @ (weights[:, None] * design))
    scores = (weights * residual)[:, None] * design * sampled[:, None]
    spread = inverse @ (scores.T @ scores) @ inverse
    variances = np.append(np.diag(spread), spread.sum())  # the last value is the change less all others
    return np.sqrt(np.maximum(variances, 0))
