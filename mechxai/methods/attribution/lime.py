"""A linear model of the score around the prompt, fitted to prompts with players taken away."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from sklearn.linear_model import Ridge
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
        pros="needs scores only; says how well the linear model fits",
        cons="kernel, sampling and ridge are choices that move the scores; does not add up",
    )
)
@dataclass(frozen=True)
class Lime(Attribution):
    """Ridge regression of the score on which players are there, as in the ``lime`` package's text explainer.

    A number of players to take away is drawn from 1 to M, then which; rows are weighted by
    ``sqrt(exp(-d^2 / kernel_width^2))`` with ``d`` a hundred times the cosine distance between the row and the prompt.
    scikit-learn's ``Ridge`` fits.

    Attributes:
        metric: what is scored.
        baseline: what stands in place of a player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        n_samples: rows per prompt, the prompt itself among them (the ``lime`` package takes 5,000).
        kernel_width: of the weights.
        alpha: of the ridge.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        seed: of the sampling; each prompt has its own draws, whatever batch it is in.
    """

    metric: AnyMetric = "logit_diff"
    baseline: str = "pad"
    n_samples: int = 1000
    kernel_width: float = 25.0
    alpha: float = 1.0
    players: str = "token"
    special: bool = False
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("players", self.players, KINDS)
        if self.n_samples < 2 or not self.kernel_width > 0 or not self.alpha >= 0:
            raise ConfigError(
                f"lime with n_samples={self.n_samples}, kernel_width={self.kernel_width}, alpha={self.alpha}",
                allowed="2 or more samples, a positive width, alpha >= 0",
            )

    def scores(self, problem: AttributionInput) -> Scores:
        """The coefficient of every player; ``r_squared`` [prompt] says how much of the score the linear model has."""
        found = prompt_by_prompt(self, problem, self._coefficients)
        values = together([row[:-1] for row in found], problem.players.most)
        fit = torch.stack([row[-1] for row in found])
        meaning = "weighted share of the score's variance that the linear model explains"
        more = {"r_squared": variable(("prompt",), fit.numpy(), "fraction", meaning)}
        poor = int((fit < _POOR_FIT).sum())
        notes = (f"the linear model explains less than half of the score on {poor} of {len(fit)} prompts",) * bool(poor)
        return Scores(of_players(problem, values.nan_to_num()), more=more, notes=notes)

    def _coefficients(self, problem: AttributionInput, number: int) -> Tensor:
        """The coefficients of a prompt's players and, last, the weighted R squared, ``[player + 1]``."""
        present = self._present(problem.players.most, np.random.default_rng([self.seed, number]))
        scores = score_of_present(problem)(present)
        distance = 100 * (1 - np.sqrt(present.mean(1)))  # cosine of a 0-1 row and a row of ones
        weights = np.sqrt(np.exp(-(distance**2) / self.kernel_width**2))
        model = Ridge(alpha=self.alpha).fit(present, scores, sample_weight=weights)
        fit = model.score(present, scores, sample_weight=weights)
        return torch.from_numpy(np.append(model.coef_, fit))

    def _present(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """Who is there, ``[sample, player]``; everyone in the first row."""
        sizes = generator.integers(1, n + 1, self.n_samples - 1)
        order = generator.random((self.n_samples - 1, n)).argsort(1).argsort(1)
        return np.concatenate([np.ones((1, n)), (order >= sizes[:, None]).astype(float)])
