"""The shards of an activation store: which prompts go into which, what they hold, files written whole or not at all."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mechxai.core.errors import ArtifactError
from mechxai.core.files import atomic_write, write_atomic
from mechxai.core.site import Site
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import padded

INDEX = "index.json"


@dataclass(frozen=True)
class Filling:
    """What goes into every shard of a store.

    Attributes:
        model: the model that is run.
        rows: token ids of every prompt.
        sites: whole sites, ``pos`` their first axis.
        dtype: to store in.
        batch_size: prompts per forward pass.
        skip_bos: leave the beginning-of-sequence token out.
    """

    model: HookedModel
    rows: Sequence[Sequence[int]]
    sites: Sequence[Site]
    dtype: torch.dtype
    batch_size: int
    skip_bos: bool

    def shard(self, chosen: range) -> dict[str, Tensor]:
        """The tensors of one shard, filled batch by batch into place. Cost: one forward pass per prompt chosen."""
        skips = [self._skip(i) for i in chosen]
        total = sum(len(self.rows[i]) - skip for i, skip in zip(chosen, skips, strict=True))
        found: dict[str, Tensor] = {name: torch.empty(total, dtype=torch.long) for name in ("tokens", "prompt", "pos")}
        at = 0
        for start in range(0, len(chosen), self.batch_size):
            batch = slice(start, start + self.batch_size)
            for key, value in self._batch(chosen[batch], skips[batch]):
                if key not in found:
                    found[key] = torch.empty(total, *value.shape[1:], dtype=self.dtype)
                found[key][at : at + len(value)] = value
            at += sum(len(self.rows[i]) for i in chosen[batch]) - sum(skips[batch])
        return found

    def _batch(self, chosen: range, skips: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
        """What a shard holds of some prompts.

        Yields:
            Name and tensor; one at a time, so that no more than one is held twice.
        """
        device = self.model.device
        tokens = padded([self.rows[i] for i in chosen]).to(device)
        lengths = torch.tensor([len(self.rows[i]) for i in chosen], device=device)
        names = sorted({site.name for site in self.sites})
        layers = sorted({site.layer for site in self.sites if site.layer is not None})
        acts = self.model.cache(tokens, names, layers or None, lengths=lengths, dtype=self.dtype)
        keep = torch.arange(tokens.shape[1], device=device)[None] < lengths[:, None]
        keep[:, 0] &= torch.tensor([skip == 0 for skip in skips], device=device)
        prompt, pos = keep.nonzero().unbind(1)
        yield from (("tokens", tokens[prompt, pos]), ("pos", pos), ("prompt", prompt + chosen[0]))
        for site in self.sites:
            yield str(site), acts[site][prompt, pos]

    def _skip(self, row: int) -> int:
        """How many tokens of a prompt are left out: its beginning-of-sequence token, or none."""
        bos = self.model.text.bos if self.skip_bos else None
        return int(bos is not None and self.rows[row][0] == bos)


def shard_plan(lengths: Sequence[int], batch_size: int, shard_tokens: int) -> list[list[int]]:
    """Prompt ranges [first, last) per shard; the same for the same prompts, so that resuming finds its place."""
    plan, first, held = [], 0, 0
    for start in range(0, len(lengths), batch_size):
        size = sum(lengths[start : start + batch_size])
        if held and held + size > shard_tokens:
            plan.append([first, start])
            first, held = start, 0
        held += size
    return [*plan, [first, len(lengths)]]


def resumed(folder: Path, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The shards that are already there.

    Raises:
        ArtifactError: the folder holds a store of something else.
    """
    if not (folder / INDEX).is_file():
        return []
    before = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    plain = json.loads(json.dumps(header))
    different = [key for key in plain if before.get(key) != plain[key]]
    if different:
        raise ArtifactError(
            f"Writing an activation store into {folder} was asked",
            got=f"a store with another {different[0]}",
            fix="choose another folder, or delete this one",
        )
    # only an unbroken run from the first: later shards are numbered by how many stand before them
    return list(itertools.takewhile(lambda shard: (folder / shard["file"]).is_file(), before["shards"]))


def save_shard(values: dict[str, Tensor], path: Path) -> None:
    """Writes one shard."""
    with atomic_write(path) as part:
        save_file(values, part)


def save_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Writes the index, which makes the shards it names count."""
    write_atomic(folder / INDEX, json.dumps(index, default=str))


def digest(rows: Sequence[Sequence[int]]) -> str:
    """A hash of the prompts."""
    return hashlib.blake2b(repr([list(row) for row in rows]).encode(), digest_size=16).hexdigest()
