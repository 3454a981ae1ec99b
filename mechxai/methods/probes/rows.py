"""A block of probes' activations, standardised on the training rows, a 1 behind each for the bias."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.methods.probes.reads import Read


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

    def raw(self, W: Float[Tensor, "set feature column"]) -> tuple[Tensor, Tensor]:
        """A probe's weights and bias for activations as they are, ``[set, column, d]`` and ``[set, column]``."""
        weight = (W[:, :-1] / self.scale[..., None]).mT
        return weight, W[:, -1] - (weight @ self.center[..., None])[..., 0]


def gathered(  # noqa: PLR0917 - activations, what to take of them, where the splits lie, where it goes
    values: Tensor, reads: Sequence[Read], counts: tuple[int, int], held: dict[str, Tensor], device: torch.device
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
    rows = _memory(held, (len(reads), n_rows, d + 1), device)
    for own, read in zip(rows, reads, strict=True):
        own[:, :d] = _taken(values, read).to(device=device, dtype=torch.float32)
    ends = torch.tensor([counts[0], sum(counts)], device=reads[0].prompts.device)
    n_train, n_learnt = torch.searchsorted(reads[0].prompts.contiguous(), ends).tolist()
    present = torch.stack([read.present for read in reads]).to(device)
    labels = torch.stack([read.labels for read in reads]).to(device)
    rows[..., d] = 1
    if not bool(present.all()):
        rows *= present[..., None]
    center, scale = _moments(rows[:, :n_train], present[:, :n_train].sum(1).clamp_min(1).float())
    body = rows[..., :d]
    torch.sub(body, center[:, None], out=body)
    body /= scale[:, None]
    if not bool(present.all()):
        rows *= present[..., None]
    return Block(rows, present, labels, center, scale, n_train, n_learnt - n_train)


def _memory(held: dict[str, Tensor], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Memory of this shape; on a CPU, memory that is fresh costs about as much as filling it several times over."""
    size = shape[0] * shape[1] * shape[2]
    if "rows" not in held or held["rows"].numel() < size:
        held["rows"] = torch.empty(size, dtype=torch.float32, device=device)
    return held["rows"][:size].view(shape)


def _taken(values: Tensor, read: Read) -> Tensor:
    taken = values[read.rows.to(values.device)]
    if read.pooled is None:
        return taken
    pooled = read.pooled.to(values.device)
    sums = torch.zeros(len(read), values.shape[1], device=taken.device).index_add_(0, pooled, taken.float())
    return sums / torch.bincount(pooled, minlength=len(read)).clamp_min(1)[:, None]


def _moments(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the rows that count; the others are zero, the last feature of theirs too."""
    d = rows.shape[-1] - 1
    known = rows[..., d:]
    center = (known.mT @ rows)[:, 0, :d] / counts[:, None]
    centred = rows[..., :d] - center[:, None] * known
    variance = centred.square().sum(1) / counts[:, None]
    scale = variance.sqrt()
    floor = 1e-6 * (center.abs() + scale.amax(1, keepdim=True))
    return center, torch.where(scale > floor, scale, 1.0)
