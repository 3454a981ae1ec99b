"""LIME: a linear model of the score around the prompt, fitted to prompts with players deleted."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from sklearn.linear_model import Ridge
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

_POOR_FIT = 0.5


@final
@register(
    MethodCard(
        name="lime",
        family="attribution",
        kind="attribution",
        question="Which linear model of its players is nearest to the score around this prompt?",
        cost="n_samples forward passes per prompt",
        source="Ribeiro et al. 2016 (arXiv 1602.04938)",
        pros="needs scores only; reports how well the linear model fits",
        cons="depends on kernel, sampling and ridge; does not add up",
    )
)
@dataclass(frozen=True)
class Lime(Attribution):
    """Ridge regression of the score on the presence of players, as in the ``lime`` package's text explainer.

    Each row deletes a number of players drawn from 1 to M, then chosen at random; rows are weighted by
    ``sqrt(exp(-d^2 / kernel_width^2))`` with ``d`` a hundred times the cosine distance between the row and the prompt.
    scikit-learn's ``Ridge`` fits.

    Attributes:
        metric: what is scored.
        baseline: what replaces a deleted player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        n_samples: rows per prompt, the prompt itself among them (the ``lime`` package takes 5,000).
        kernel_width: of the weights.
        alpha: of the ridge.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        seed: of the sampling; each prompt draws from a seed of its own, whatever batch it is in.
    """

    metric: AnyMetric = "logit_diff"
    baseline: Baseline = "pad"
    n_samples: int = 1000
    kernel_width: float = 25.0
    alpha: float = 1.0
    players: PlayerKind = "token"
    special: bool = False
    seed: int = 0

    def _check_fields(self) -> None:
        if self.n_samples < 2:
            raise ConfigError(f"n_samples is {self.n_samples}: it must be at least 2")
        if not self.kernel_width > 0:
            raise ConfigError(f"kernel_width is {self.kernel_width}: it must be positive")
        if not self.alpha >= 0:
            raise ConfigError(f"alpha is {self.alpha}: it must be at least 0")

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The coefficient of every player; ``r_squared`` [prompt] is the fit of the linear model."""
        rows = prompt_by_prompt(self, inputs, self._coefficients)
        values = pad_rows([row[:-1] for row in rows], inputs.players.most)
        fit = torch.stack([row[-1] for row in rows])
        meaning = "weighted share of the score's variance that the linear model explains"
        variables = {"r_squared": variable(("prompt",), fit.numpy(), "fraction", meaning)}
        n_poor = int((fit < _POOR_FIT).sum())
        note = f"the linear model explains less than half of the score on {n_poor} of {len(fit)} prompts"
        notes = (note,) if n_poor else ()
        return TokenScores(spread_over_tokens(inputs, values.nan_to_num()), variables=variables, notes=notes)

    def _coefficients(self, inputs: AttributionInput, number: int) -> Tensor:
        """The coefficients of a prompt's players and, last, the weighted R squared, ``[player + 1]``."""
        coalitions = self._coalitions(inputs.players.most, np.random.default_rng([self.seed, number]))
        scores = value_function(inputs)(coalitions)
        distance = 100 * (1 - np.sqrt(coalitions.mean(1)))  # cosine of a 0-1 row and a row of ones
        weights = np.sqrt(np.exp(-(distance**2) / self.kernel_width**2))
        model = Ridge(alpha=self.alpha).fit(coalitions, scores, sample_weight=weights)
        fit = model.score(coalitions, scores, sample_weight=weights)
        return torch.from_numpy(np.append(model.coef_, fit))

    def _coalitions(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """Random coalitions, 1 where a player is present, ``[sample, player]``; all players in the first row."""
        n_absent = generator.integers(1, n + 1, self.n_samples - 1)
        order = generator.random((self.n_samples - 1, n)).argsort(1).argsort(1)
        return np.concatenate([np.ones((1, n)), (order >= n_absent[:, None]).astype(float)])
