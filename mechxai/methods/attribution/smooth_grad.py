"""The gradient, averaged over small noise, so that no single kink of the model decides."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.embedding_gradients import forward_of, quiet, reduced, seeded
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.prompt_by_prompt import prompt_by_prompt
from mechxai.methods.attribution._lib.scores import Scores, together


@final
@register(
    MethodCard(
        name="smooth_grad",
        family="attribution",
        kind="attribution",
        question="To which tokens is the score most sensitive in the neighbourhood of this prompt?",
        cost="n_samples forward and backward passes per prompt",
        source="Smilkov et al. 2017 (arXiv 1706.03825)",
        pros="less noisy than saliency",
        cons="its noise is a choice; a size without a sense unless times_input",
    )
)
@dataclass(frozen=True)
class SmoothGrad(Attribution):
    """The mean gradient of the score over noisy embeddings.

    Attributes:
        metric: what is scored.
        n_samples: draws of noise.
        noise: standard deviation of the noise, as a share of that of the prompt's embeddings. The paper takes 10 to
            20 % of the range of an image; the range of embeddings is set by a few large dimensions.
        reduce: ``l2``, the mean gradient's length; ``sum``, over dimensions; ``times_input``, its product with the
            embedding, summed.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens are scored too.
        seed: of the noise; each prompt has its own, whatever batch it is in.
    """

    metric: AnyMetric = "logit_diff"
    n_samples: int = 50
    noise: float = 0.15
    reduce: str = "l2"
    players: str = "token"
    special: bool = False
    seed: int = 0

    looks_inside: ClassVar[bool] = True

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("reduce", self.reduce, ("l2", "sum", "times_input"))
        check_choice("players", self.players, KINDS)
        if self.n_samples < 1 or not self.noise > 0:
            raise ConfigError(
                f"smooth_grad with n_samples={self.n_samples}, noise={self.noise}",
                allowed="1 or more samples, a positive noise",
            )

    def scores(self, problem: AttributionInput) -> Scores:
        """The mean gradient, reduced to one number per token; Captum's ``NoiseTunnel`` draws and averages."""
        found = together(prompt_by_prompt(self, problem, self._mean), problem.batch.n_pos)
        units = "" if self.reduce == "times_input" else f"{problem.metric.unit} per unit of embedding"
        return Scores(found, units=units)

    def _mean(self, problem: AttributionInput, number: int) -> Tensor:
        """The score of each token of a prompt, ``[pos]``."""
        from captum.attr import NoiseTunnel, Saliency  # noqa: PLC0415 - heavy

        def run(at_once: int) -> Tensor:
            with quiet(), seeded(self.seed + number):
                found = NoiseTunnel(Saliency(forward_of(problem))).attribute(
                    problem.embeddings.clone(),
                    nt_type="smoothgrad",
                    nt_samples=self.n_samples,
                    nt_samples_batch_size=at_once,
                    stdevs=self.noise * float(problem.embeddings.double().std()),
                    abs=False,
                    additional_forward_args=(torch.zeros(1, dtype=torch.long, device=problem.embeddings.device),),
                )
            return torch.as_tensor(found).detach()

        mean = problem.halving(run, self.n_samples)
        if self.reduce == "times_input":
            return reduced(mean * problem.embeddings, "sum")[0]
        return reduced(mean, self.reduce)[0]
