"""Which rows of an activation store each probe reads, and their labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mechxai.core.errors import SiteError, nearest
from mechxai.core.grid import Position
from mechxai.core.probe_dataset import ProbeDataset

EACH, MEAN, TOKENS = "each", "mean", "tokens"
POOLS = (EACH, MEAN, TOKENS)
_BLOCK_SHARE = 4  # of a GPU's free memory, one part in so many for the rows of a block


@dataclass(frozen=True)
class ProbeRows:
    """The rows of one probe, by prompt.

    Attributes:
        name: of the position, as in results.
        rows: rows of the store, ``[row]``; for a mean, all that are averaged.
        prompts: the prompt of each row of the probe, ascending.
        present: whether the row counts: the prompt has that position, and it is labelled.
        labels: of each row, ``[row, target]``.
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
        """Reads of one form can be fitted together: as many rows, split at the same ones."""
        return len(self), self.pooled is not None, self.name == TOKENS


def chosen_positions(dataset: ProbeDataset, pos: Sequence[Position] | None) -> list[Position]:
    """The positions asked for, ``each`` spelt out.

    By default all labelled tokens together where each has its label; else the role at which the label belongs, or each
    position.

    Raises:
        SiteError: a position or role that the prompts do not have.
    """
    default = TOKENS if dataset.per_token else dataset.labelled_at or EACH
    found: list[Position] = []
    for one in (default,) if pos is None else pos:
        if isinstance(one, str) and one not in POOLS and one not in dataset.roles:
            raise SiteError(f"Position {one!r} was asked", allowed=nearest(one, (*POOLS, *dataset.roles)))
        if isinstance(one, int) and not -dataset.n_pos <= one < dataset.n_pos:
            raise SiteError(
                f"Position {one} was asked",
                got=f"prompts of up to {dataset.n_pos} tokens",
                allowed=f"{-dataset.n_pos} to {dataset.n_pos - 1}",
            )
        if one in (MEAN, TOKENS) and (one == TOKENS) != dataset.per_token:
            of = "each token" if dataset.per_token else "each prompt"
            raise SiteError(
                f"Position {one!r} was asked",
                got=f"labels of {of}",
                allowed=f"tokens {TOKENS if dataset.per_token else MEAN!r}",
            )
        found += range(dataset.n_pos) if one == EACH else [one]
    return list(dict.fromkeys(found))


def reads_of(
    dataset: ProbeDataset, positions: Sequence[Position], targets: Tensor, *, bos: int | None
) -> list[ProbeRows]:
    """What the probes of these positions read.

    Args:
        dataset: in the order of the store, every real token of which it holds.
        positions: see `chosen_positions`.
        targets: label vectors, ``[batch, target]`` or ``[batch, pos, target]``.
        bos: a token that means leave out.
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
    """Reads that are fitted together: of one form, as many as a GPU holds; on a CPU one by one, which is no slower.

    Yields:
        Their numbers.
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
