"""Activations on disk: streamed in shards, resumed where writing stopped, memory-mapped when read.

A store is a folder with ``index.json`` and shards ``00000.safetensors`` ... A shard holds, for some prompts, one row per
real token: the activation of every site and layer, the token, its prompt and its position.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechxai.core.errors import ArtifactError, ConfigError, ShapeError, SiteError
from mechxai.core.site import Site
from mechxai.engine.progress import Bar
from mechxai.model.backends import as_dtype
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import padded

_INDEX = "index.json"


@dataclass(frozen=True)
class ActivationStore:
    """An activation store opened for reading; made by `write`, found again by `open`.

    Rows are tokens, in the order of the prompts. ``len(store)`` counts them.

    Attributes:
        folder: where it lies.
        index: its contents: model, sites, dtype, shards.
    """

    folder: Path
    index: Mapping[str, Any]

    @classmethod
    def write(
        cls,
        path: str | Path,
        model: HookedModel,
        texts: Sequence[str] | Sequence[Sequence[int]],
        *,
        sites: Sequence[str],
        layers: Sequence[int] | None = None,
        dtype: str | None = None,
        batch_size: int = 16,
        shard_tokens: int = 16_384,
        skip_bos: bool = True,
        progress: bool = False,
    ) -> "ActivationStore":
        """Runs the model over texts and keeps activations of every real token.

        Interrupted, it goes on with the first shard that is missing; finished, it returns at once.

        Args:
            path: the folder.
            model: the model.
            texts: texts, or token ids per prompt.
            sites: site names whose first axis is ``pos``.
            layers: all by default.
            dtype: to store in; the model's by default.
            batch_size: prompts per forward pass.
            shard_tokens: tokens per shard at most (one batch may exceed it); bounds the memory.
            skip_bos: leave the beginning-of-sequence token out.
            progress: show a bar.

        Raises:
            SiteError: a site the model lacks, or one without a ``pos`` axis first (patterns).
            ArtifactError: the folder holds a store of something else.

        Cost: one forward pass per prompt; holds one shard in memory.
        """
        chosen = model.wanted(sites, layers)
        _check_sites(chosen)
        if batch_size < 1 or shard_tokens < 1:
            raise ConfigError(
                "An activation store was asked",
                got=f"batch_size={batch_size}, shard_tokens={shard_tokens}",
                allowed="1 or more",
            )
        rows = [model.text.ids(text) if isinstance(text, str) else list(text) for text in texts]
        if not rows or not all(rows):
            raise ShapeError("An activation store was asked", got="no prompts, or an empty one")
        store_dtype = model.dtype if dtype is None else as_dtype(dtype)
        plan = _shard_plan([len(row) for row in rows], batch_size, shard_tokens)
        header = {
            "model": model.info(),
            "sites": [str(site) for site in chosen],
            "dtype": str(store_dtype).removeprefix("torch."),
            "prompts": _digest(rows),
            "skip_bos": skip_bos,
            "n_prompts": len(rows),
            "plan": plan,
        }
        folder = Path(path)
        shards = _resumed(folder, header)
        with Bar("activations", len(rows), shown=progress) as bar:
            bar.advance(sum(shard["n_prompts"] for shard in shards), computed=False)
            for number in range(len(shards), len(plan)):
                first, last = plan[number]
                values = _shard(model, rows, range(first, last), chosen, store_dtype, batch_size, skip_bos=skip_bos)
                name = f"{number:05d}.safetensors"
                _save_shard(values, folder / name)
                shards.append({"file": name, "n_tokens": len(values["tokens"]), "n_prompts": last - first})
                _save_index(folder, {**header, "shards": shards})
                bar.advance(last - first)
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | Path) -> "ActivationStore":
        """The store in a folder.

        Raises:
            ArtifactError: none there, or writing it was not finished.
        """
        folder = Path(path)
        if not (folder / _INDEX).is_file():
            raise ArtifactError(
                f"Activation store {folder} was asked", got="no index.json", fix="make it with ActivationStore.write"
            )
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        done = sum(shard["n_prompts"] for shard in index["shards"])
        if done < index["n_prompts"]:
            raise ArtifactError(
                f"Activation store {folder} was asked",
                got=f"{done} of {index['n_prompts']} prompts written",
                fix="run the same ActivationStore.write again; it resumes",
            )
        return cls(folder, index)

    def __len__(self) -> int:
        return sum(shard["n_tokens"] for shard in self.index["shards"])

    @property
    def sites(self) -> list[Site]:
        """The sites and layers in the store."""
        return [Site.parse(text) for text in self.index["sites"]]

    def read(self, site: Site | str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows ``start:stop`` of a site's activation, ``[token, *axes]``; only these are read from disk."""
        wanted = Site.parse(site) if isinstance(site, str) else site
        if str(wanted) not in self.index["sites"]:
            raise SiteError(f"{wanted} was asked of the store", got="it is not in it", allowed=self.index["sites"])
        return self._read(str(wanted), start, stop)

    def tokens(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The token ids of the rows."""
        return self._read("tokens", start, stop)

    def prompts(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Which prompt each row belongs to."""
        return self._read("prompt", start, stop)

    def positions(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The position of each row in its prompt."""
        return self._read("pos", start, stop)

    def batches(self, site: Site | str, size: int, *, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of (activation, row index) for training; shuffled shard by shard and within shards when ``seed`` is given."""
        if size < 1:
            raise ConfigError("Batches of a store were asked", got=f"size={size}", allowed="1 or more")
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        bounds = self._bounds()
        order = range(len(bounds)) if generator is None else torch.randperm(len(bounds), generator=generator).tolist()
        for shard in order:
            first, last = bounds[shard]
            values = self.read(site, first, last)
            rows = (
                torch.arange(last - first) if generator is None else torch.randperm(last - first, generator=generator)
            )
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                yield values[part], part + first

    def _bounds(self) -> list[tuple[int, int]]:
        bounds, total = [], 0
        for shard in self.index["shards"]:
            bounds.append((total, total + shard["n_tokens"]))
            total += shard["n_tokens"]
        return bounds

    def _read(self, key: str, start: int, stop: int | None) -> Tensor:
        last = len(self) if stop is None else min(stop, len(self))
        parts = []
        for shard, (low, high) in zip(self.index["shards"], self._bounds(), strict=True):
            if high <= start or low >= last:
                continue
            with safe_open(self.folder / shard["file"], framework="pt") as stored:
                parts.append(stored.get_slice(key)[max(start, low) - low : min(last, high) - low])
        if not parts:
            raise ShapeError(f"Rows {start} to {stop} of the store were asked", allowed=f"0 to {len(self)}")
        return torch.cat(parts)


def _check_sites(sites: Sequence[Site]) -> None:
    for site in sites:
        if site.row.axes[0] != "pos":
            raise SiteError(
                f"Storing {site.name} per token was asked",
                got=f"axes {site.row.axes}",
                allowed="sites whose first axis is pos",
                fix="use model.cache for patterns",
            )


def _shard_plan(lengths: Sequence[int], batch_size: int, shard_tokens: int) -> list[list[int]]:
    """Prompt ranges [first, last) per shard; the same for the same prompts, so that resuming finds its place."""
    plan, first, held = [], 0, 0
    for start in range(0, len(lengths), batch_size):
        size = sum(lengths[start : start + batch_size])
        if held and held + size > shard_tokens:
            plan.append([first, start])
            first, held = start, 0
        held += size
    return [*plan, [first, len(lengths)]]


def _shard(
    model: HookedModel,
    rows: Sequence[Sequence[int]],
    chosen: range,
    sites: Sequence[Site],
    dtype: torch.dtype,
    batch_size: int,
    *,
    skip_bos: bool,
) -> dict[str, Tensor]:
    """One shard's tensors, filled batch by batch into place."""
    bos = model.text.bos if skip_bos else None
    skips = [int(bos is not None and rows[i][0] == bos) for i in chosen]
    total = sum(len(rows[i]) - skip for i, skip in zip(chosen, skips, strict=True))
    found: dict[str, Tensor] = {name: torch.empty(total, dtype=torch.long) for name in ("tokens", "prompt", "pos")}
    at = 0
    for start in range(0, len(chosen), batch_size):
        part = chosen[start : start + batch_size]
        tokens = padded([rows[i] for i in part]).to(model.device)
        lengths = torch.tensor([len(rows[i]) for i in part], device=model.device)
        names, layers = (
            sorted({site.name for site in sites}),
            sorted({site.layer for site in sites if site.layer is not None}),
        )
        acts = model.cache(tokens, names, layers or None, lengths=lengths, dtype=dtype)
        keep = torch.arange(tokens.shape[1], device=model.device)[None] < lengths[:, None]
        keep[:, 0] &= torch.tensor([skip == 0 for skip in skips[start : start + batch_size]], device=model.device)
        prompt, pos = keep.nonzero().unbind(1)
        stop = at + len(pos)
        found["tokens"][at:stop], found["pos"][at:stop], found["prompt"][at:stop] = (
            tokens[prompt, pos].cpu(),
            pos.cpu(),
            prompt.cpu() + part[0],
        )
        for site in sites:
            value = acts[site][prompt, pos].cpu()
            found.setdefault(str(site), torch.empty(total, *value.shape[1:], dtype=dtype))[at:stop] = value
        at = stop
    return found


def _resumed(folder: Path, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not (folder / _INDEX).is_file():
        return []
    before = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    plain = json.loads(json.dumps(header))
    different = [key for key in plain if before.get(key) != plain[key]]
    if different:
        raise ArtifactError(
            f"Writing an activation store into {folder} was asked",
            got=f"a store with another {different[0]}",
            fix="choose another folder, or delete this one",
        )
    return [shard for shard in before["shards"] if (folder / shard["file"]).is_file()]


def _save_shard(values: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file(values, part)
    Path(part).replace(path)


def _save_index(folder: Path, index: Mapping[str, Any]) -> None:
    part = folder / f".{_INDEX}.{os.getpid()}.part"
    part.write_text(json.dumps(index, default=str), encoding="utf-8")
    Path(part).replace(folder / _INDEX)


def _digest(rows: Sequence[Sequence[int]]) -> str:
    return hashlib.blake2b(repr([list(row) for row in rows]).encode(), digest_size=16).hexdigest()
