"""The rows of an activation store that each probe reads, and their labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mechxai.core.errors import SiteError, unknown
from mechxai.core.grid import Position
from mechxai.core.probe_dataset import ProbeDataset

EACH, MEAN, TOKENS = "each", "mean", "tokens"
POOLS = (EACH, MEAN, TOKENS)
_BLOCK_SHARE = 4  # a block takes a quarter of a GPU's free memory


@dataclass(frozen=True)
class ProbeRows:
    """The rows of one probe, by prompt.

    Attributes:
        name: name of the position, as in results.
        rows: rows of the store, ``[row]``; for a mean, all rows that are averaged.
        prompts: the prompt of each row of the probe, ascending.
        present: whether the prompt has that position and a label there.
        labels: labels of each row, ``[row, target]``.
        pooled: for a mean, the row of the probe that each of ``rows`` belongs to.
    """

    name: Position
    rows: Tensor
    prompts: Tensor
    present: Tensor
    labels: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def form(self) -> tuple[int, bool, bool]:
        """Probes of equal form can be fitted together: they have as many rows, split at the same indices."""
        return len(self), self.pooled is not None, self.name == TOKENS


def chosen_positions(dataset: ProbeDataset, pos: Sequence[Position] | None) -> list[Position]:
    """The positions of a method's ``pos`` field, with ``each`` expanded.

    The default is ``tokens`` for labels of tokens; otherwise the role at which the label belongs, or each position.

    Raises:
        SiteError: a position or role that the prompts do not have.
    """
    default = TOKENS if dataset.per_token else dataset.labelled_at or EACH
    positions: list[Position] = []
    for position in (default,) if pos is None else pos:
        if isinstance(position, str) and position not in POOLS and position not in dataset.roles:
            raise SiteError(unknown("position", position, (*POOLS, *dataset.roles)))
        if isinstance(position, int) and not -dataset.n_pos <= position < dataset.n_pos:
            raise SiteError(
                f"Position {position} is out of range: the prompts have up to {dataset.n_pos} tokens",
                allowed=f"{-dataset.n_pos} to {dataset.n_pos - 1}",
            )
        if position in (MEAN, TOKENS) and (position == TOKENS) != dataset.per_token:
            unit, other = ("token", TOKENS) if dataset.per_token else ("prompt", MEAN)
            raise SiteError(
                f"pos={position!r} does not fit this dataset, which has one label for each {unit}",
                fix=f"Use pos={other!r}, or a position or role",
            )
        positions += range(dataset.n_pos) if position == EACH else [position]
    return list(dict.fromkeys(positions))


def reads_of(
    dataset: ProbeDataset, positions: Sequence[Position], targets: Tensor, *, bos: int | None
) -> list[ProbeRows]:
    """The rows that the probes at these positions read.

    Args:
        dataset: its prompts in the order of the store, which holds every real token.
        positions: see `chosen_positions`.
        targets: label vectors, ``[batch, target]`` or ``[batch, pos, target]``.
        bos: the beginning-of-sequence token, which means leave out.
    """
    starts = dataset.lengths.cumsum(0) - dataset.lengths
    return [_read(dataset, position, targets, starts, bos) for position in positions]


def _read(dataset: ProbeDataset, position: Position, targets: Tensor, starts: Tensor, bos: int | None) -> ProbeRows:  # noqa: PLR0917
    prompts = torch.arange(len(dataset), device=dataset.tokens.device)
    if position == TOKENS:
        prompt, pos = dataset.labelled.nonzero().unbind(1)
        present = torch.ones_like(prompt, dtype=torch.bool)
        return ProbeRows(position, starts[prompt] + pos, prompt, present, targets[prompt, pos])
    if position == MEAN:
        real = dataset.mask.clone()
        if bos is not None:
            real[:, 0] &= (dataset.tokens[:, 0] != bos) | (dataset.lengths == 1)
        prompt, pos = real.nonzero().unbind(1)
        return ProbeRows(position, starts[prompt] + pos, prompts, dataset.labelled, targets, prompt)
    at, present = dataset.layout.positions(position)
    if dataset.per_token:
        present, labels = present & dataset.labelled.gather(1, at[:, None])[:, 0], targets[prompts, at]
    else:
        present, labels = present & dataset.labelled, targets
    return ProbeRows(position, starts + at, prompts, present, labels)


def blocks(reads: Sequence[ProbeRows], n_features: int, device: torch.device) -> Iterator[list[int]]:
    """Splits the probes into blocks of one form: as many as fit on a GPU; on a CPU one by one, which is no slower.

    Yields:
        The indices of the probes in each block.
    """
    most = 1
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        most = max(1, free // _BLOCK_SHARE // (4 * n_features * max(len(read) for read in reads)))
    forms = dict.fromkeys(read.form for read in reads)
    for form in forms:
        same = [number for number, read in enumerate(reads) if read.form == form]
        for first in range(0, len(same), most):
            yield same[first : first + most]
