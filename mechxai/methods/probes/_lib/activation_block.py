"""A block of probes' activations, standardised on the training rows, a 1 behind each for the bias."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.methods.probes._lib.rows_read import ProbeRows


@dataclass(frozen=True)
class Block:
    """Rows of probes that are fitted together; training rows first, then validation, then test.

    Attributes:
        rows: ``[set, row, feature]``, zero where a row does not count.
        present: which count, ``[set, row]``.
        labels: ``[set, row, target]``.
        center: training mean, ``[set, d]``; ``scale`` the standard deviation, 1 where nothing varies.
        n_train: training rows; ``n_validation`` those behind them.
    """

    rows: Float[Tensor, "set row feature"]
    present: Bool[Tensor, "set row"]
    labels: Tensor
    center: Float[Tensor, "set d"]
    scale: Float[Tensor, "set d"]
    n_train: int
    n_validation: int

    @property
    def parts(self) -> tuple[slice, slice, slice]:
        """Training, validation and test rows."""
        end = self.n_train + self.n_validation
        return slice(0, self.n_train), slice(self.n_train, end), slice(end, None)

    def weights(self, part: slice) -> Float[Tensor, "set row"]:
        """Equal weights of the rows that count, of sum 1."""
        known = self.present[:, part].float()
        return known / known.sum(1, keepdim=True).clamp_min(1)

    def class_means(self, n_classes: int) -> Float[Tensor, "set klass d"]:
        """The training rows' mean activation in every class of the first target."""
        train = self.parts[0]
        known = self.present[:, train]
        member = torch.stack([known & (self.labels[:, train, 0] == one) for one in range(n_classes)], 1).float()
        means = (member @ self.rows[:, train, :-1]) / member.sum(2, keepdim=True).clamp_min(1)
        return means * self.scale[:, None] + self.center[:, None]

    def raw(self, W: Float[Tensor, "set feature column"]) -> tuple[Tensor, Tensor]:
        """A probe's weights and bias for activations as they are, ``[set, column, d]`` and ``[set, column]``."""
        weight = (W[:, :-1] / self.scale[..., None]).mT
        return weight, W[:, -1] - (weight @ self.center[..., None])[..., 0]


def gathered(  # noqa: PLR0917 - activations, what to take of them, where the splits lie, where it goes
    values: Tensor, reads: Sequence[ProbeRows], counts: tuple[int, int], held: dict[str, Tensor], device: torch.device
) -> Block:
    """The block of some reads of one form.

    Args:
        values: a site's activations, ``[store row, d]``, wherever they lie.
        reads: what to take of them.
        counts: prompts to train on and to validate on.
        held: memory of the last block, which this one overwrites.
        device: where the probes are fitted.
    """
    n_rows, d = len(reads[0]), values.shape[1]
    rows = _memory(held, "rows", (len(reads), n_rows, d + 1), device=device)
    ends = torch.tensor([counts[0], sum(counts)], device=reads[0].prompts.device)
    n_train, n_learnt = torch.searchsorted(reads[0].prompts.contiguous(), ends).tolist()
    present = torch.stack([read.present for read in reads]).to(device)
    labels = torch.stack([read.labels for read in reads]).to(device)
    weights = present[:, :n_train].float()
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
    center = torch.empty(len(reads), d, device=device)
    for number, read in enumerate(reads):
        taken = _taken(values, read, held).to(device=device, dtype=torch.float32)
        if not bool(read.present.all()):  # what does not count may be anything, even infinite
            taken = taken.masked_fill(~present[number, :, None], 0)
        center[number] = weights[number] @ taken[:n_train]
        torch.sub(taken, center[number], out=rows[number, :, :d])
    rows[..., d] = 1
    body = rows[..., :d]
    scale = (weights[..., None].mT @ body[:, :n_train].square())[:, 0].sqrt()
    floor = 1e-6 * (center.abs() + scale.amax(1, keepdim=True))
    scale = torch.where(scale > floor, scale, 1.0)
    body *= 1 / scale[:, None]
    if not bool(present.all()):
        rows *= present[..., None]
    return Block(rows, present, labels, center, scale, n_train, n_learnt - n_train)


def _memory(held: dict[str, Tensor], name: str, shape: tuple[int, ...], *, device: torch.device) -> Tensor:
    """Memory of this shape; on a CPU, memory that is fresh costs about as much as filling it several times over."""
    size = math.prod(shape)
    if name not in held or held[name].numel() < size:
        held[name] = torch.empty(size, dtype=torch.float32, device=device)
    return held[name][:size].view(shape)


def _taken(values: Tensor, read: ProbeRows, held: dict[str, Tensor]) -> Tensor:
    """The activations of a read, ``[row, d]``; overwritten by the next."""
    rows = read.rows.to(values.device)
    if read.pooled is None:
        if values.dtype != torch.float32:
            return values[rows]
        place = _memory(held, "taken", (len(rows), values.shape[1]), device=values.device)
        return torch.index_select(values, 0, rows, out=place)
    pooled = read.pooled.to(values.device)
    sums = torch.zeros(len(read), values.shape[1], device=values.device).index_add_(0, pooled, values[rows].float())
    return sums / torch.bincount(pooled, minlength=len(read)).clamp_min(1)[:, None]
