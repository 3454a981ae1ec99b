"""How much the answer position attends to each token; a look at the mechanism, not an attribution by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from mechxai.core.errors import SiteError, check_choice
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import variable
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.scores import Scores
from mechxai.methods.fields import selected
from mechxai.methods.result_parts import ALONE

FUSIONS = ("mean", "max", "min")


def fused(patterns: Tensor, how: str) -> Tensor:
    """The heads of patterns as one, ``[..., head, dest, src]`` to ``[..., dest, src]``."""
    if how == "mean":
        return patterns.mean(-3)
    return patterns.amax(-3) if how == "max" else patterns.amin(-3)


def own_rows(patterns: Tensor, problem: AttributionInput) -> Tensor:
    """Patterns in float64 with padded sources at zero and every row of a real token adding up to 1."""
    real = problem.batch.mask.to(patterns.device)[None, :, None, None, :]
    kept = patterns.double().masked_fill(~real, 0.0)
    return kept / kept.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def on_special(problem: AttributionInput, weights: Tensor) -> Tensor:
    """The share of each prompt's weights, ``[prompt, pos]``, that lies on tokens that always stay: mostly the first."""
    kept = (problem.players.of_token < 0) & problem.batch.mask.cpu()
    return torch.where(kept, weights.cpu(), 0.0).sum(1)


@final
@register(
    MethodCard(
        name="attention_scores",
        family="attribution",
        kind="attribution",
        question="Which tokens does the answer position attend to?",
        cost="one forward pass per prompt",
        source="Bahdanau et al. 2014 (arXiv 1409.0473); against it: Jain & Wallace 2019 (arXiv 1902.10186)",
        pros="free; shows where information can come from",
        cons="no attribution: not what was read there, nor whether it was used; the first token soaks it up",
    )
)
@dataclass(frozen=True)
class AttentionScores(Attribution):
    """The attention of the answer position, fused over heads and averaged over layers.

    Attributes:
        layers: which; all by default, negative from the last.
        heads: which; all by default.
        fusion: of the heads: ``mean``, ``max`` or ``min``.
        bos: ``drop`` leaves special tokens (the attention sink) out and makes the rest add up to 1; ``keep`` does not.
        metric: only recorded, with its scores, for comparison; attention does not depend on it.
        players: ``token``, ``word`` or ``span``, for ``player_value``.
        special: whether special tokens are scored too.
    """

    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    fusion: str = "mean"
    bos: str = "keep"
    metric: AnyMetric = "logit_diff"
    players: str = "token"
    special: bool = False

    looks_inside: ClassVar[bool] = True

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("players", self.players, KINDS)
        check_choice("fusion", self.fusion, FUSIONS)
        check_choice("bos", self.bos, ("keep", "drop"))

    def scores(self, problem: AttributionInput) -> Scores:
        """The attention to each token; ``on_special`` [prompt] is what goes to tokens without a score.

        Raises:
            SiteError: a layer or head the model does not have.
        """
        a = problem.subject.architecture
        layers = selected("layer", self.layers, a.n_layers)
        heads = [head for head in self.heads if not 0 <= head < a.n_heads]
        if heads:
            raise SiteError(f"Head {heads[0]} was asked", allowed=f"0 to {a.n_heads - 1}")

        def some(rows: Tensor) -> Tensor:
            part = problem.rows_of(rows)
            patterns = part.subject.patterns(part.batch, part.embeddings, layers)
            if self.heads:
                patterns = patterns[:, :, list(self.heads)]
            every = torch.arange(len(part), device=patterns.device)
            of_query = own_rows(patterns, part)[:, every, :, part.batch.answer_pos]  # [row, layer, head, src]
            return fused(of_query[..., None, :], self.fusion)[:, :, 0].mean(1).cpu()

        return weights_scores(problem, problem.in_parts(some), bos=self.bos)


def weights_scores(problem: AttributionInput, weights: Tensor, *, bos: str) -> Scores:
    """Scores from weights of all tokens, ``[prompt, pos]``, with or without those of special tokens."""
    sink = on_special(problem, weights)
    if bos == "drop":
        free = problem.players.of_token >= 0
        weights = torch.where(free, weights, 0.0)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    problem.tally.forward += len(problem)
    problem.tally.worked += len(problem)
    more = {"on_special": variable(("prompt",), sink.numpy(), "probability", "weight on tokens without a score")}
    return Scores(weights, more=more, notes=(ALONE,), units="probability")
