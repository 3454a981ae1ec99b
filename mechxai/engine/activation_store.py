"""Activations on disk: streamed in shards, resumed where writing stopped, memory-mapped when read.

A store is a folder with ``index.json`` and shards ``00000.safetensors`` ... A shard holds, for some prompts, one row
per real token: the activation of every site and layer, the token, its prompt and its position.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mechxai.core.errors import ArtifactError, ConfigError, ShapeError, SiteError
from mechxai.core.site import Site
from mechxai.engine.progress import Bar
from mechxai.engine.shards import INDEX, Filling, digest, resumed, save_index, save_shard, shard_plan
from mechxai.model.backends.base import as_dtype
from mechxai.model.hooked_model import HookedModel


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
    def write(  # noqa: PLR0913 - the public contract's form
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
        plan = shard_plan([len(row) for row in rows], batch_size, shard_tokens)
        filling = Filling(model, rows, chosen, store_dtype, batch_size, skip_bos)
        header = {
            "model": model.info(),
            "sites": [str(site) for site in chosen],
            "dtype": str(store_dtype).removeprefix("torch."),
            "prompts": digest(rows),
            "skip_bos": skip_bos,
            "n_prompts": len(rows),
            "plan": plan,
        }
        folder = Path(path)
        shards = resumed(folder, header)
        with Bar("activations", len(rows), shown=progress, unit="prompts") as bar:
            bar.advance(sum(shard["n_prompts"] for shard in shards), computed=False)
            for number in range(len(shards), len(plan)):
                first, last = plan[number]
                values = filling.shard(range(first, last))
                name = f"{number:05d}.safetensors"
                save_shard(values, folder / name)
                shards.append({"file": name, "n_tokens": len(values["tokens"]), "n_prompts": last - first})
                save_index(folder, {**header, "shards": shards})
                bar.advance(last - first)
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | Path) -> "ActivationStore":
        """The store in a folder.

        Raises:
            ArtifactError: none there, or writing it was not finished.
        """
        folder = Path(path)
        if not (folder / INDEX).is_file():
            raise ArtifactError(
                f"Activation store {folder} was asked", got="no index.json", fix="make it with ActivationStore.write"
            )
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        done = sum(shard["n_prompts"] for shard in index["shards"])
        if done < index["n_prompts"]:
            raise ArtifactError(
                f"Activation store {folder} was asked",
                got=f"{done} of {index['n_prompts']} prompts written",
                fix="run the same ActivationStore.write again; it resumes",
            )
        lost = [shard["file"] for shard in index["shards"] if not (folder / shard["file"]).is_file()]
        if lost:
            raise ArtifactError(
                f"Activation store {folder} was asked",
                got=f"{lost[0]} is missing",
                fix="run the same ActivationStore.write again; it makes what is missing",
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
        """Batches for training; shuffled shard by shard and within shards when ``seed`` is given.

        Args:
            site: a site in the store.
            size: rows per batch at most; no batch crosses a shard.
            seed: of the order; the order of the store by default.

        Yields:
            Activations, ``[row, *axes]``, and the index of each row.
        """
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
