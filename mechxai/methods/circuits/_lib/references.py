"""What stands in for a node's output where an edge is cut: the corrupted run's, zero, a mean, or another prompt's."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.shapes import PromptInts, Rows
from mechxai.model.graph.writes import Blocks, Writes, Written, embedded, writes
from mechxai.model.hooked_model import HookedModel

REFERENCES = ("corrupted", "zero", "mean", "resample")
_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Reference:
    """What nodes write where they are cut off.

    Attributes:
        kind: one of `REFERENCES`.
        mean: of every writer over the real tokens of the corrupted prompts, ``[writer, d_model]``; for ``mean``.
        other: the prompt whose corrupted run stands in for each prompt's; for ``resample``.
    """

    kind: str
    mean: Float[Tensor, "writer d_model"] | None = None
    other: Int[Tensor, " batch"] | None = None

    def written(
        self, model: HookedModel, blocks: Blocks, batch: ContrastBatch, *, rows: Rows, like: Written
    ) -> Written:
        """What stands in for the writers of some prompts, in the shape of ``like``. Cost: a pass for what is run."""
        if self.kind == "zero":
            return torch.zeros_like(like)
        if self.mean is not None:
            return self.mean[:, None, None].expand_as(like)
        tokens = batch.corrupted[rows] if self.other is None else batch.corrupted[self.other[rows]]
        return writes(blocks, embedded(model, tokens[:, : like.shape[2]])).values


def reference(model: HookedModel, blocks: Blocks, batch: ContrastBatch, *, kind: str, seed: int) -> Reference:
    """The reference of a kind. Cost: for ``mean`` a pass per prompt, else none.

    Args:
        model: the model.
        blocks: its blocks.
        batch: the prompts.
        kind: ``corrupted``; ``zero``; ``mean``, over the corrupted prompts' real tokens; ``resample``, the corrupted
            run of another prompt of the same length, drawn at random.
        seed: of the draw.

    Raises:
        ConfigError: ``resample`` where no other prompt has a prompt's length.
    """
    if kind == "mean":
        return Reference(kind, mean=_mean(model, blocks, batch))
    if kind == "resample":
        return Reference(kind, other=_others(batch.lengths, seed))
    return Reference(kind)


def _mean(model: HookedModel, blocks: Blocks, batch: ContrastBatch) -> Float[Tensor, "writer d_model"]:
    total, count = torch.zeros(()), 0
    for _, part in batch.parts(_ROWS_AT_ONCE):
        found: Writes = writes(blocks, embedded(model, part.corrupted))
        total = total.to(found.values) + found.values[:, part.mask].sum(1)
        count += int(part.mask.sum())
    return total / count


def _others(lengths: PromptInts, seed: int) -> Int[Tensor, " batch"]:
    """For every prompt another of its length: the next of them in a random order, so that none stands for itself."""
    chosen = torch.empty_like(lengths)
    generator = torch.Generator().manual_seed(seed)
    for length in lengths.unique():
        rows = (lengths == length).nonzero()[:, 0]
        if len(rows) < 2:
            raise ConfigError(
                "reference=resample was asked",
                got=f"one prompt alone has {int(length)} tokens",
                fix="use prompts of one length (task.template), or reference=corrupted",
            )
        order = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        chosen[order] = order.roll(1)
    return chosen
