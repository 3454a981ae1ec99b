"""SmoothGrad: the gradient of the score, averaged over noise added to the embeddings."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.embedding_gradients import (
    captum_forward,
    captum_gradients,
    reduce_vectors,
    torch_seed,
)
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.prompt_by_prompt import prompt_by_prompt
from mechxai.methods.attribution._lib.scores import TokenScores, pad_rows

SmoothGradReduction = Literal["l2", "sum", "times_input"]


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
        cons="depends on the noise level; a magnitude without a sign unless times_input",
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
        reduce: ``l2``, the mean gradient's norm; ``sum``, over dimensions; ``times_input``, its product with the
            embedding, summed.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens are scored too.
        seed: of the noise; each prompt draws from a seed of its own, whatever batch it is in.
    """

    metric: AnyMetric = "logit_diff"
    n_samples: int = 50
    noise: float = 0.15
    reduce: SmoothGradReduction = "l2"
    players: PlayerKind = "token"
    special: bool = False
    seed: int = 0

    needs_internals: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def _check_fields(self) -> None:
        if self.n_samples < 1:
            raise ConfigError(f"n_samples is {self.n_samples}: it must be at least 1")
        if not self.noise > 0:
            raise ConfigError(f"noise is {self.noise}: it must be positive")

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The mean gradient, reduced to one number per token; Captum's ``NoiseTunnel`` draws and averages."""
        values = pad_rows(prompt_by_prompt(self, inputs, self._mean_gradient), inputs.batch.n_pos)
        units = "" if self.reduce == "times_input" else f"{inputs.metric.unit} per unit of embedding"
        return TokenScores(values, units=units)

    def _mean_gradient(self, inputs: AttributionInput, number: int) -> Tensor:
        """The score of each token of a prompt, ``[pos]``."""
        from captum.attr import NoiseTunnel, Saliency  # noqa: PLC0415 - heavy

        def run(at_once: int) -> Tensor:
            with captum_gradients(), torch_seed(self.seed + number):
                gradient = NoiseTunnel(Saliency(captum_forward(inputs))).attribute(
                    inputs.embeddings.clone(),
                    nt_type="smoothgrad",
                    nt_samples=self.n_samples,
                    nt_samples_batch_size=at_once,
                    stdevs=self.noise * float(inputs.embeddings.double().std()),
                    abs=False,
                    additional_forward_args=(torch.zeros(1, dtype=torch.long, device=inputs.embeddings.device),),
                )
            return torch.as_tensor(gradient).detach()

        mean = inputs.halving_on_oom(run, self.n_samples)
        if self.reduce == "times_input":
            return reduce_vectors(mean * inputs.embeddings, "sum")[0]
        return reduce_vectors(mean, self.reduce)[0]
