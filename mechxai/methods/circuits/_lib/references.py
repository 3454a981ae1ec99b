"""Reference activations that replace a node's output at a cut edge: corrupted run, zero, mean, or another prompt's."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.shapes import PromptInts, Rows
from mechxai.methods.circuits._lib.prepared_graph import PreparedGraph
from mechxai.model.graph.writes import Writes, Written, embedded, writes

ReferenceKind = Literal["corrupted", "zero", "mean", "resample"]
_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Reference:
    """The output that readers see in place of a writer whose edge is cut.

    Attributes:
        kind: where the output comes from.
        mean: for ``mean``, every writer's mean over the real tokens of the corrupted prompts, ``[writer, d_model]``.
        resampled: for ``resample``, the row of the prompt whose corrupted run replaces each prompt's, ``[prompt]``.
    """

    kind: ReferenceKind
    mean: Float[Tensor, "writer d_model"] | None = None
    resampled: Int[Tensor, " batch"] | None = None

    def written(self, prepared: PreparedGraph, *, rows: Rows, like: Written) -> Written:
        """The reference output of every writer for some prompts.

        Args:
            prepared: the graph and all prompts.
            rows: the prompts.
            like: a tensor of the output's shape, ``[writer, prompt, pos, d_model]``.

        Cost: one pass per prompt for ``corrupted`` and ``resample``, none for ``zero`` and ``mean``.
        """
        if self.kind == "zero":
            return torch.zeros_like(like)
        if self.mean is not None:
            return self.mean[:, None, None].expand_as(like)
        corrupted = prepared.batch.corrupted
        tokens = corrupted[rows] if self.resampled is None else corrupted[self.resampled[rows]]
        return writes(prepared.blocks, embedded(prepared.model, tokens[:, : like.shape[2]])).values


def reference(prepared: PreparedGraph, kind: ReferenceKind, *, seed: int) -> Reference:
    """The reference of a kind. Cost: for ``mean`` a pass per prompt, else none.

    Args:
        prepared: the graph and the prompts.
        kind: ``corrupted``; ``zero``; ``mean``, over the corrupted prompts' real tokens; ``resample``, the corrupted
            run of another prompt of the same length, drawn at random.
        seed: of the draw.

    Raises:
        ConfigError: ``resample`` where no other prompt has a prompt's length.
    """
    if kind == "mean":
        return Reference(kind, mean=_mean(prepared))
    if kind == "resample":
        return Reference(kind, resampled=_resampled(prepared.batch.lengths, seed))
    return Reference(kind)


def _mean(prepared: PreparedGraph) -> Float[Tensor, "writer d_model"]:
    total, count = torch.zeros(()), 0
    for _, sub_batch in prepared.batch.parts(_ROWS_AT_ONCE):
        run: Writes = writes(prepared.blocks, embedded(prepared.model, sub_batch.corrupted))
        total = total.to(run.values) + run.values[:, sub_batch.mask].sum(1)
        count += int(sub_batch.mask.sum())
    return total / count


def _resampled(lengths: PromptInts, seed: int) -> Int[Tensor, " batch"]:
    """For every prompt the next one of its length in a random order, so that no prompt replaces itself."""
    replacement = torch.empty_like(lengths)
    generator = torch.Generator().manual_seed(seed)
    for length in lengths.unique():
        rows = (lengths == length).nonzero()[:, 0]
        if len(rows) < 2:
            raise ConfigError(
                f"reference=resample replaces a prompt by another of its length, but one prompt alone has {int(length)}"
                " tokens",
                fix="Use prompts of one length (task.template), or reference=corrupted",
            )
        order = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        replacement[order] = order.roll(1)
    return replacement
