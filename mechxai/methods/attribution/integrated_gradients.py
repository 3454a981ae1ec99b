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
        cost="n_steps forward and backward passes per prompt, more where they do not add up",
        source="Sundararajan et al. 2017 (arXiv 1703.01365)",
        pros="adds up (completeness), and reports where it does not; signed",
        cons="depends on the baseline; the path runs through embeddings of no token",
    )
)
@dataclass(frozen=True)
class IntegratedGradients(Attribution):
    """``(e - e') . integral of dF/de`` along the straight line from the baseline's embeddings ``e'``, by Captum.

    Captum's Gauss-Legendre rule (exact for polynomials up to degree ``2 n_steps - 1``). Where the scores of a prompt
    miss the change of the score by more than ``tolerance``, the part of the path that misses most is halved and each
    half gets ``n_steps`` points, again and again until ``max_steps`` points are used.

    Attributes:
        metric: what is scored.
        baseline: where the path begins: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual`` or ``blank``.
        n_steps: points of the whole path in the first attempt, then of each part.
        max_steps: points at most, over all attempts.
        tolerance: largest convergence delta, as a share of the score's change.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens have a path too; else they stay as they are and get no score.
    """

    metric: AnyMetric = "logit_diff"
    baseline: Baseline = "pad"
    n_steps: int = 50
    max_steps: int = 1600
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
        """The scores of a prompt and, in a second row, the number of points, ``[2, pos]``."""
        parts = [self._part(inputs, 0.0, 1.0, change=change)]
        steps = self.n_steps
        allowed = self.tolerance * max(abs(change), _MIN_CHANGE)
        while abs(sum(part.gap for part in parts)) > allowed and steps + 2 * self.n_steps <= self.max_steps:
            worst = max(parts, key=lambda part: abs(part.gap))
            middle = (worst.start + worst.stop) / 2
            first = _score(inputs, middle) - _score(inputs, worst.start)
            parts.remove(worst)
            parts.append(self._part(inputs, worst.start, middle, change=first))
            parts.append(self._part(inputs, middle, worst.stop, change=worst.change - first))
            steps += 2 * self.n_steps
        scores = torch.stack([part.scores for part in parts]).sum(0)
        return torch.stack([scores, torch.full_like(scores, steps)])

    def _part(self, inputs: AttributionInput, start: float, stop: float, *, change: float) -> "_Part":
        """A part of the path; ``change`` is that of the score along it."""
        scores = self._integral(inputs, start, stop)
        return _Part(start, stop, change, scores, float(scores.sum()) - change)

    def _integral(self, inputs: AttributionInput, start: float, stop: float) -> Tensor:
        """The score of each token along a part of the path, ``[pos]``."""
        from captum.attr import IntegratedGradients as Captum  # noqa: PLC0415 - heavy

        def run(at_once: int) -> Tensor:
            with captum_gradients():
                return Captum(captum_forward(inputs)).attribute(
                    _point(inputs, stop),
                    _point(inputs, start),
                    additional_forward_args=(torch.zeros(1, dtype=torch.long, device=inputs.embeddings.device),),
                    n_steps=self.n_steps,
                    method="gausslegendre",
                    internal_batch_size=at_once,
                )

        return reduce_vectors(inputs.halving_on_oom(run, self.n_steps).detach(), "sum")[0]


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of the path from the baseline (0) to the prompt (1).

    Attributes:
        start: where it begins.
        stop: where it ends.
        change: of the score between them.
        scores: of each token, ``[pos]``.
        gap: what the scores' sum exceeds the change by.
    """

    start: float
    stop: float
    change: float
    scores: Tensor
    gap: float


def _point(inputs: AttributionInput, share: float) -> Tensor:
    """The embeddings at a share of the path; its ends are exact."""
    if share in (0.0, 1.0):
        return inputs.embeddings if share else inputs.baseline
    return inputs.baseline + share * (inputs.embeddings - inputs.baseline)


def _score(inputs: AttributionInput, share: float) -> float:
    """The score at a share of the path of a single prompt."""
    return float(inputs.scores(_point(inputs, share))[0])
