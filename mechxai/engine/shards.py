"""The shards of an activation store: the prompts of each, their tensors, and the index of the finished ones."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mechxai.core.errors import ArtifactError
from mechxai.core.files import set_aside, write_atomic
from mechxai.core.pieces import sealed, unsealed
from mechxai.core.site import Site
from mechxai.engine.checkpoint import TENSORS, CheckpointStore
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import padded

INDEX = "index.json"


@dataclass(frozen=True)
class ShardContents:
    """Computes the tensors of each shard of a store.

    Attributes:
        model: the model.
        rows: token ids of every prompt.
        sites: whole sites whose first axis is ``pos``.
        dtype: type of the stored activations.
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
        """The tensors of one shard, filled batch by batch. Cost: one forward pass per prompt of the shard."""
        skips = [self._skip(i) for i in chosen]
        total = sum(len(self.rows[i]) - skip for i, skip in zip(chosen, skips, strict=True))
        tensors: dict[str, Tensor] = {
            name: torch.empty(total, dtype=torch.long) for name in ("tokens", "prompt", "pos")
        }
        at = 0
        for start in range(0, len(chosen), self.batch_size):
            batch = slice(start, start + self.batch_size)
            for key, value in self._batch(chosen[batch], skips[batch]):
                if key not in tensors:
                    tensors[key] = torch.empty(total, *value.shape[1:], dtype=self.dtype)
                tensors[key][at : at + len(value)] = value
            at += sum(len(self.rows[i]) for i in chosen[batch]) - sum(skips[batch])
        return tensors

    def _batch(self, chosen: range, skips: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of some prompts.

        Yields:
            Name and tensor, one at a time, so that at most one is in memory twice.
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
        """The number of tokens left out of a prompt: 1 for its beginning-of-sequence token, or 0."""
        bos = self.model.text.bos if self.skip_bos else None
        return int(bos is not None and self.rows[row][0] == bos)


def shard_plan(lengths: Sequence[int], batch_size: int, shard_tokens: int) -> list[list[int]]:
    """The prompt range [first, last) of each shard; deterministic, so that an interrupted store resumes."""
    plan, first, n_tokens = [], 0, 0
    for start in range(0, len(lengths), batch_size):
        size = sum(lengths[start : start + batch_size])
        if n_tokens and n_tokens + size > shard_tokens:
            plan.append([first, start])
            first, n_tokens = start, 0
        n_tokens += size
    return [*plan, [first, len(lengths)]]


def shard_files(folder: Path, header: Mapping[str, Any]) -> CheckpointStore[Mapping[str, Tensor]]:
    """The checkpoint store that writes the shards."""
    key = hashlib.blake2b(json.dumps(header, default=str).encode(), digest_size=16).hexdigest()
    return CheckpointStore(folder, key, TENSORS)


def finished_shards(folder: Path, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The index entries of the shards that are already on disk, up to the first missing or damaged one.

    Raises:
        ArtifactError: the folder holds a store with other contents.
    """
    index = read_index(folder)
    if index is None:
        set_aside(folder / INDEX)
        return []
    expected = json.loads(json.dumps(header))
    different = [key for key in expected if index.get(key) != expected[key]]
    if different:
        raise ArtifactError(
            f"{folder} holds a store with another {different[0]}", fix="Choose another folder, or delete this one"
        )
    files = shard_files(folder, header)
    # only an unbroken run from the first: the number of a shard is the number of shards before it
    return list(itertools.takewhile(lambda shard: files.is_sound(Path(shard["file"]).stem), index["shards"]))


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of a store; None where it is missing, damaged or no index."""
    try:
        index = unsealed((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return index if index is not None and _is_index(index) else None


def _is_index(content: Mapping[str, Any]) -> bool:
    """Whether an index, which may come from elsewhere, names sites and the shards of its own folder in order."""
    shards, sites = content.get("shards"), content.get("sites")
    if not isinstance(shards, list) or not isinstance(sites, list) or not isinstance(content.get("n_prompts"), int):
        return False
    counts = [[shard.get(name) for name in ("n_tokens", "n_prompts")] for shard in shards if isinstance(shard, dict)]
    names = [shard.get("file") for shard in shards if isinstance(shard, dict)]
    return (
        names == [f"{number:05d}.safetensors" for number in range(len(shards))]
        and all(isinstance(count, int) and count >= 0 for pair in counts for count in pair)
        and all(isinstance(site, str) for site in sites)
    )


def save_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Writes the index; shards count as finished once it names them."""
    write_atomic(folder / INDEX, sealed(index))


def prompts_hash(rows: Sequence[Sequence[int]]) -> str:
    """A hash of the prompts' token ids."""
    return hashlib.blake2b(repr([list(row) for row in rows]).encode(), digest_size=16).hexdigest()
