"""Activations of several probes as one block, standardised on the training rows, with a constant 1 for the bias."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechxai.methods.probes._lib.rows_read import ProbeRows


@dataclass(frozen=True)
class Block:
    """Rows of probes that are fitted together: training rows first, then validation, then test.

    Attributes:
        rows: standardised activations and a constant 1, ``[set, row, feature]``; zero where a row is not present.
        present: which rows have the position and a label, ``[set, row]``.
        labels: ``[set, row, target]``.
        center: training mean, ``[set, d]``.
        scale: training standard deviation, ``[set, d]``; 1 where nothing varies.
        n_train: number of training rows.
        n_validation: number of validation rows.
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
        """Equal weights of the present rows, with sum 1."""
        present = self.present[:, part].float()
        return present / present.sum(1, keepdim=True).clamp_min(1)

    def class_means(self, n_classes: int) -> Float[Tensor, "set klass d"]:
        """The mean training activation of every class of the first target."""
        train = self.parts[0]
        present = self.present[:, train]
        member = torch.stack([present & (self.labels[:, train, 0] == klass) for klass in range(n_classes)], 1).float()
        means = (member @ self.rows[:, train, :-1]) / member.sum(2, keepdim=True).clamp_min(1)
        return means * self.scale[:, None] + self.center[:, None]

    def raw(self, W: Float[Tensor, "set feature column"]) -> tuple[Tensor, Tensor]:
        """A probe's weights and bias for raw activations, ``[set, column, d]`` and ``[set, column]``."""
        weight = (W[:, :-1] / self.scale[..., None]).mT
        return weight, W[:, -1] - (weight @ self.center[..., None])[..., 0]


def activation_block(  # noqa: PLR0917 - activations, their rows, the splits, memory and device
    values: Tensor,
    reads: Sequence[ProbeRows],
    counts: tuple[int, int],
    buffers: dict[str, Tensor],
    device: torch.device,
) -> Block:
    """The block of several probes of one form.

    Args:
        values: a site's activations, ``[store row, d]``, on any device.
        reads: the rows of each probe.
        counts: number of prompts to train on and to validate on.
        buffers: memory of the previous block, which this one overwrites.
        device: the device on which the probes are fitted.
    """
    n_rows, d = len(reads[0]), values.shape[1]
    rows = _memory(buffers, "rows", (len(reads), n_rows, d + 1), device=device)
    ends = torch.tensor([counts[0], sum(counts)], device=reads[0].prompts.device)
    n_train, n_fitted = torch.searchsorted(reads[0].prompts.contiguous(), ends).tolist()
    present = torch.stack([read.present for read in reads]).to(device)
    labels = torch.stack([read.labels for read in reads]).to(device)
    weights = present[:, :n_train].float()
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
    center = torch.empty(len(reads), d, device=device)
    for number, read in enumerate(reads):
        acts = _activations(values, read, buffers).to(device=device, dtype=torch.float32)
        if not bool(read.present.all()):  # rows that are not present may hold anything, even infinity
            acts = acts.masked_fill(~present[number, :, None], 0)
        center[number] = weights[number] @ acts[:n_train]
        torch.sub(acts, center[number], out=rows[number, :, :d])
    rows[..., d] = 1
    body = rows[..., :d]
    scale = (weights[..., None].mT @ body[:, :n_train].square())[:, 0].sqrt()
    floor = 1e-6 * (center.abs() + scale.amax(1, keepdim=True))
    scale = torch.where(scale > floor, scale, 1.0)
    body *= 1 / scale[:, None]
    if not bool(present.all()):
        rows *= present[..., None]
    return Block(rows, present, labels, center, scale, n_train, n_fitted - n_train)


def _memory(buffers: dict[str, Tensor], name: str, shape: tuple[int, ...], *, device: torch.device) -> Tensor:
    """Reused memory of this shape; on a CPU, fresh memory costs about as much as filling it several times."""
    size = math.prod(shape)
    if name not in buffers or buffers[name].numel() < size:
        buffers[name] = torch.empty(size, dtype=torch.float32, device=device)
    return buffers[name][:size].view(shape)


def _activations(values: Tensor, read: ProbeRows, buffers: dict[str, Tensor]) -> Tensor:
    """The activations of one probe, ``[row, d]``; the next call overwrites them."""
    rows = read.rows.to(values.device)
    if read.pooled is None:
        if values.dtype != torch.float32:
            return values[rows]
        place = _memory(buffers, "taken", (len(rows), values.shape[1]), device=values.device)
        return torch.index_select(values, 0, rows, out=place)
    pooled = read.pooled.to(values.device)
    sums = torch.zeros(len(read), values.shape[1], device=values.device).index_add_(0, pooled, values[rows].float())
    return sums / torch.bincount(pooled, minlength=len(read)).clamp_min(1)[:, None]
