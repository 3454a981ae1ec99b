"""KernelSHAP: Shapley values estimated by a weighted regression on sampled coalitions."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import comb
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric
from mechxai.core.result import variable
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import Baseline
from mechxai.methods.attribution._lib.coalitions import value_function
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.prompt_by_prompt import prompt_by_prompt
from mechxai.methods.attribution._lib.scores import TokenScores, pad_rows, spread_over_tokens


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
        cons="many passes; coalitions are not natural text; depends on the baseline",
    )
)
@dataclass(frozen=True)
class KernelShap(Attribution):
    """SHAP's ``KernelExplainer`` over players present or absent, without L1 (SHAP's default selects ten features).

    It enumerates the coalitions of a size while the budget lasts and samples the rest in complementary pairs; the
    scores are constrained to add up. Every coalition of a prompt runs in one sweep of the engine.

    Attributes:
        metric: what is scored.
        baseline: what replaces an absent player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        n_samples: coalitions per prompt; 0 for SHAP's ``2M + 2048``.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        seed: of the sampling; each prompt draws from a seed of its own, whatever batch it is in.
    """

    metric: AnyMetric = "logit_diff"
    baseline: Baseline = "pad"
    n_samples: int = 0
    players: PlayerKind = "token"
    special: bool = False
    seed: int = 0

    def _check_fields(self) -> None:
        if self.n_samples < 0:
            raise ConfigError(f"n_samples is {self.n_samples}", allowed="0 (for 2M + 2,048) or more")

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """Shapley estimates; ``standard_error`` [prompt, player] is their sampling error."""
        rows = prompt_by_prompt(self, inputs, self._estimate)
        values, errors = (pad_rows([row[part] for row in rows], inputs.players.most) for part in (0, 1))
        meaning = "standard error from sampling coalitions; 0 where all were enumerated"
        variables = {"standard_error": variable(("prompt", "player"), errors.numpy(), inputs.metric.unit, meaning)}
        return TokenScores(spread_over_tokens(inputs, values.nan_to_num()), complete=True, variables=variables)

    def _estimate(self, inputs: AttributionInput, number: int) -> Tensor:
        """The values of a prompt's players and, in a second row, their standard errors, ``[2, player]``."""
        import shap  # noqa: PLC0415 - heavy

        n = inputs.players.most
        needed = min(2**n - 2, 2 * n)
        if 0 < self.n_samples < needed:
            raise ConfigError(
                f"kernel_shap: n_samples is {self.n_samples} and prompt {number} has {n} players",
                allowed=f"{needed} or more samples, so that the regression is determined",
                fix="Use more samples, or players=word or span",
            )
        with numpy_seed(self.seed + number):
            explainer = shap.KernelExplainer(value_function(inputs), np.zeros((1, n)))
            values = explainer.shap_values(
                np.ones((1, n)), nsamples=self.n_samples or "auto", l1_reg=False, silent=True
            )
        errors = _standard_errors(explainer, values[0]) if n > 1 else np.zeros(n)
        return torch.from_numpy(np.stack([values[0], errors]))


@contextmanager
def numpy_seed(seed: int) -> Generator[None]:
    """Seeds NumPy's global generator, which SHAP draws from, and restores it afterwards.

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
    """Standard errors of a weighted regression on sampled rows: the sandwich estimator, with the sum held fixed.

    Rows of a coalition size that was enumerated in full are not sampled and add no error.
    """
    masks, weights = explainer.maskMatrix, explainer.kernelWeights
    n_rows, n = masks.shape
    if n_rows >= 2**n - 2:
        return np.zeros(n)
    sizes = masks.sum(1)
    enumerated = {size for size in np.unique(sizes) if (sizes == size).sum() == comb(n, int(size))}
    sampled = ~np.isin(sizes, list(enumerated))
    change = explainer.fx[0] - explainer.fnull[0]
    target = explainer.ey[:, 0] - explainer.fnull[0] - masks[:, -1] * change
    design = masks[:, :-1] - masks[:, -1:]
    residual = target - design @ values[:-1]
    inverse = np.linalg.pinv(design.T @ (weights[:, None] * design))
    scores = (weights * residual)[:, None] * design * sampled[:, None]
    spread = inverse @ (scores.T @ scores) @ inverse
    variances = np.append(np.diag(spread), spread.sum())  # the last value is the change less all others
    return np.sqrt(np.maximum(variances, 0))
