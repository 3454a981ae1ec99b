"""Integrated gradients: the gradient integrated from a baseline to the prompt, with scores that add up."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError, NumericsError
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric
from mechxai.core.result import variable
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import Baseline
from mechxai.methods.attribution._lib.embedding_gradients import captum_forward, captum_gradients, reduce_vectors
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.prompt_by_prompt import prompt_by_prompt
from mechxai.methods.attribution._lib.scores import TokenScores, pad_rows

_MIN_CHANGE = 1e-3  # the tolerance is a share of the score's change, or of this if the change is smaller


@final
@register(
    MethodCard(
        name="integrated_gradients",
        family="attribution",
        kind="attribution",
        question="How much of the score's change from a baseline does each token bring?",
        cost="n_steps forward and backward passes per prompt, doubled until they add up",
        source="Sundararajan et al. 2017 (arXiv 1703.01365)",
        pros="adds up (completeness), and reports where it does not; signed",
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
        n_steps: points of the path in the first attempt.
        max_steps: points of the path at most.
        tolerance: largest convergence delta, as a share of the score's change.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens have a path too; else they stay as they are and get no score.
    """

    metric: AnyMetric = "logit_diff"
    baseline: Baseline = "pad"
    n_steps: int = 50
    max_steps: int = 3200
    tolerance: float = 0.05
    players: PlayerKind = "token"
    special: bool = False

    needs_internals: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def _check_fields(self) -> None:
        if not 1 <= self.n_steps <= self.max_steps:
            raise ConfigError(
                f"n_steps is {self.n_steps} and max_steps is {self.max_steps}", allowed="1 <= n_steps <= max_steps"
            )
        if not self.tolerance > 0:
            raise ConfigError(f"tolerance is {self.tolerance}: it must be positive")

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The integral for every token, and the number of steps of each prompt.

        Raises:
            NumericsError: the scores of a model that routes tokens to experts do not add up.
        """
        change = inputs.target_score - inputs.baseline_score
        rows = prompt_by_prompt(
            self, inputs, lambda prompt, number: self._converged_scores(prompt, float(change[number]))
        )
        tokens = pad_rows([row[0] for row in rows], inputs.batch.n_pos)
        steps = torch.stack([row[1, 0] for row in rows]).long()
        self._check_gap(inputs, torch.stack([row[0].sum() for row in rows]) - change, change, steps=steps)
        variables = {"n_steps": variable(("prompt",), steps.numpy(), "steps", "points of the path")}
        return TokenScores(tokens, complete=True, variables=variables)

    def _check_gap(self, inputs: AttributionInput, gap: Tensor, change: Tensor, *, steps: Tensor) -> None:
        """Refuses scores that miss the change because the routing changes along the path, unseen by gradients."""
        share = gap.abs() / change.abs().clamp(min=_MIN_CHANGE)
        if not inputs.model.architecture.n_experts or not bool((share > self.tolerance).any()):
            return
        prompt = int(share.argmax())
        raise NumericsError(
            f"Integrated gradients of prompt {prompt} sum to {float((gap + change)[prompt]):.3g} after "
            f"{int(steps[prompt])} steps, but the score changes by {float(change[prompt]):.3g}: this model routes "
            "tokens to experts, and gradients miss the jump where the routing changes along the path",
            fix="Use kernel_shap or occlusion, which compare scores only",
        )

    def _converged_scores(self, inputs: AttributionInput, change: float) -> Tensor:
        """The scores of a prompt and, in a second row, the number of steps, ``[2, pos]``."""
        steps = self.n_steps
        while True:
            scores = self._integral(inputs, steps)
            delta = abs(float(scores.sum()) - change)
            if delta <= self.tolerance * max(abs(change), _MIN_CHANGE) or 2 * steps > self.max_steps:
                return torch.stack([scores, torch.full_like(scores, steps)])
            steps *= 2

    def _integral(self, inputs: AttributionInput, steps: int) -> Tensor:
        """The score of each token, ``[pos]``."""
        from captum.attr import IntegratedGradients as Captum  # noqa: PLC0415 - heavy

        def run(at_once: int) -> Tensor:
            with captum_gradients():
                return Captum(captum_forward(inputs)).attribute(
                    inputs.embeddings,
                    inputs.baseline,
                    additional_forward_args=(torch.zeros(1, dtype=torch.long, device=inputs.embeddings.device),),
                    n_steps=steps,
                    method="gausslegendre",
                    internal_batch_size=at_once,
                )

        return reduce_vectors(inputs.halving_on_oom(run, steps).detach(), "sum")[0]
