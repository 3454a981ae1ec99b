"""The gradient integrated from a baseline to the prompt: scores that add up to the change of the score."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import variable
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import BASELINES
from mechxai.methods.attribution._lib.embedding_gradients import forward_of, quiet, reduced
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.prompt_by_prompt import prompt_by_prompt
from mechxai.methods.attribution._lib.scores import Scores, together

_TINY = 1e-3  # a change of the score below this cannot be shared out to within a percentage


@final
@register(
    MethodCard(
        name="integrated_gradients",
        family="attribution",
        kind="attribution",
        question="How much of the score's change from a baseline does each token bring?",
        cost="n_steps forward and backward passes per prompt, doubled until they add up",
        source="Sundararajan et al. 2017 (arXiv 1703.01365)",
        pros="adds up (completeness), and says where it does not; signed",
        cons="depends on the baseline; the path runs through embeddings of no token",
    )
)
@dataclass(frozen=True)
class IntegratedGradients(Attribution):
    """``(e - e') . integral of dF/de`` along the straight line from the baseline's embeddings ``e'``, by Captum.

    Captum's Gauss-Legendre rule (exact for polynomials up to degree ``2 n_steps - 1``); a prompt whose scores miss the
    change of the score by more than ``tolerance`` is done again with twice the steps, up to ``max_steps``.

    Attributes:
        metric: what is scored.
        baseline: where the path begins: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual`` or ``blank``.
        n_steps: points of the path to begin with.
        max_steps: points of the path at most.
        tolerance: largest convergence delta, as a share of the score's change.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens have a path too; else they stay as they are and get no score.
    """

    metric: AnyMetric = "logit_diff"
    baseline: str = "pad"
    n_steps: int = 50
    max_steps: int = 800
    tolerance: float = 0.05
    players: str = "token"
    special: bool = False

    looks_inside: ClassVar[bool] = True

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("players", self.players, KINDS)
        if not 1 <= self.n_steps <= self.max_steps or not self.tolerance > 0:
            raise ConfigError(
                f"integrated_gradients with n_steps={self.n_steps}, max_steps={self.max_steps}",
                got=f"tolerance={self.tolerance}",
                allowed="1 <= n_steps <= max_steps, a positive tolerance",
            )

    def scores(self, problem: AttributionInput) -> Scores:
        """The integral for every token, and the steps it took."""
        change = problem.target_score - problem.baseline_score
        found = prompt_by_prompt(self, problem, lambda one, number: self._converged(one, float(change[number])))
        tokens = together([row[0] for row in found], problem.batch.n_pos)
        steps = torch.stack([row[1, 0] for row in found]).long()
        more = {"n_steps": variable(("prompt",), steps.numpy(), "steps", "points of the path")}
        return Scores(tokens, complete=True, more=more)

    def _converged(self, problem: AttributionInput, change: float) -> Tensor:
        """The scores of a prompt and, in a second row, the number of steps, ``[2, pos]``."""
        steps = self.n_steps
        while True:
            found = self._integral(problem, steps)
            delta = abs(float(found.sum()) - change)
            if delta <= self.tolerance * max(abs(change), _TINY) or 2 * steps > self.max_steps:
                return torch.stack([found, torch.full_like(found, steps)])
            steps *= 2

    def _integral(self, problem: AttributionInput, steps: int) -> Tensor:
        """The score of each token, ``[pos]``."""
        from captum.attr import IntegratedGradients as Captum  # noqa: PLC0415 - heavy

        def run(at_once: int) -> Tensor:
            with quiet():
                return Captum(forward_of(problem)).attribute(
                    problem.embeddings,
                    problem.baseline,
                    additional_forward_args=(torch.zeros(1, dtype=torch.long, device=problem.embeddings.device),),
                    n_steps=steps,
                    method="gausslegendre",
                    internal_batch_size=at_once,
                )

        return reduced(problem.halving(run, steps).detach(), "sum")[0]
