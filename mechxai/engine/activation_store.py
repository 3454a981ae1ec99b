"""The activation store: activations on disk, written in shards, resumable, and memory-mapped when read.

A store is a folder with ``index.json`` and shards ``00000.safetensors`` ... A shard holds, for some prompts, one row
per real token: the activation of every site and layer, the token, its prompt and its position.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mechxai.core.errors import ArtifactError, ConfigError, ShapeError, SiteError
from mechxai.core.site import Site
from mechxai.engine.progress import ProgressBar
from mechxai.engine.shards import (
    INDEX,
    ShardContents,
    finished_shards,
    prompts_hash,
    read_index,
    save_index,
    shard_files,
    shard_plan,
)
from mechxai.model.backends.base import as_dtype
from mechxai.model.hooked_model import HookedModel

_REPAIR = "Run the same ActivationStore.write again: it goes on at the first missing or damaged shard"


@dataclass(frozen=True)
class ActivationStore:
    """Activations of many prompts on disk: `write` creates a store, `open` opens it for reading.

    Rows are tokens, in the order of the prompts. ``len(store)`` is the number of rows.

    Attributes:
        folder: the folder of the store.
        index: the contents of ``index.json``: model, sites, dtype, shards.
    """

    folder: Path
    index: Mapping[str, Any]
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

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
        """Runs the model on texts and stores the activations of every token that is not padding.

        An interrupted call resumes at the first missing shard; a finished store returns at once.

        Args:
            path: the folder of the store.
            model: the model.
            texts: texts, or token ids per prompt.
            sites: site names whose first axis is ``pos``.
            layers: layers of the sites; all by default.
            dtype: type of the stored activations; the model's by default.
            batch_size: prompts per forward pass.
            shard_tokens: maximum number of tokens per shard (one batch may exceed it); bounds the memory.
            skip_bos: leave the beginning-of-sequence token out.
            progress: show a progress bar.

        Raises:
            SiteError: a site that the model lacks, or whose first axis is not ``pos`` (patterns).
            ArtifactError: the folder holds a store with other contents.

        Cost: one forward pass per prompt; holds one shard in memory.
        """
        chosen = model.wanted(sites, layers)
        _check_sites(chosen)
        if batch_size < 1 or shard_tokens < 1:
            raise ConfigError(f"batch_size={batch_size}, shard_tokens={shard_tokens}: both must be at least 1")
        rows = [model.text.ids(text) if isinstance(text, str) else list(text) for text in texts]
        if not rows or not all(rows):
            raise ShapeError("texts holds no prompts, or an empty one")
        store_dtype = model.dtype if dtype is None else as_dtype(dtype)
        plan = shard_plan([len(row) for row in rows], batch_size, shard_tokens)
        contents = ShardContents(model, rows, chosen, store_dtype, batch_size, skip_bos)
        header = {
            "model": {name: value for name, value in model.info().items() if name != "comparison"},
            "sites": [str(site) for site in chosen],
            "dtype": str(store_dtype).removeprefix("torch."),
            "prompts": prompts_hash(rows),
            "skip_bos": skip_bos,
            "n_prompts": len(rows),
            "plan": plan,
        }
        folder = Path(path)
        files, shards = shard_files(folder, header), finished_shards(folder, header)
        with ProgressBar("activations", len(rows), shown=progress, unit="prompts") as bar:
            bar.advance(sum(shard["n_prompts"] for shard in shards), computed=False)
            for number in range(len(shards), len(plan)):
                first, last = plan[number]
                values = contents.shard(range(first, last))
                files.write(f"{number:05d}", values)
                shards.append(
                    {"file": f"{number:05d}.safetensors", "n_tokens": len(values["tokens"]), "n_prompts": last - first}
                )
                save_index(folder, {**header, "shards": shards})
                bar.advance(last - first)
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | Path) -> "ActivationStore":
        """Opens the store in a folder.

        Raises:
            ArtifactError: the folder holds no store, or an unfinished one.
        """
        folder = Path(path)
        if not (folder / INDEX).is_file():
            raise ArtifactError(
                f"{folder} is no activation store: it has no index.json", fix="Create it with ActivationStore.write"
            )
        index = read_index(folder)
        if index is None:
            raise ArtifactError(f"The index of activation store {folder} is damaged", fix=_REPAIR)
        done = sum(shard["n_prompts"] for shard in index["shards"])
        if done < index["n_prompts"]:
            raise ArtifactError(
                f"Activation store {folder} is unfinished: {done} of {index['n_prompts']} prompts written",
                fix=_REPAIR,
            )
        missing = [shard["file"] for shard in index["shards"] if not (folder / shard["file"]).is_file()]
        if missing:
            raise ArtifactError(
                f"{missing[0]} of activation store {folder} is missing",
                fix=_REPAIR,
            )
        return cls(folder, index)

    def __len__(self) -> int:
        return sum(shard["n_tokens"] for shard in self.index["shards"])

    @property
    def sites(self) -> list[Site]:
        """The stored sites, each with its layer."""
        return [Site.parse(text) for text in self.index["sites"]]

    def read(self, site: Site | str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows ``start:stop`` of a site's activation, ``[token, *axes]``.

        The first reading of a shard compares its checksum, which reads it whole; later ones read these rows only.

        Raises:
            ArtifactError: a shard is damaged.
        """
        name = str(Site.parse(site) if isinstance(site, str) else site)
        if name not in self.index["sites"]:
            raise SiteError(f"{name} is not in the store", allowed=self.index["sites"])
        return self._read(name, start, stop)

    def tokens(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The token id of each row."""
        return self._read("tokens", start, stop)

    def prompts(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The prompt of each row."""
        return self._read("prompt", start, stop)

    def positions(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The position of each row in its prompt."""
        return self._read("pos", start, stop)

    def batches(self, site: Site | str, size: int, *, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches for training; a ``seed`` shuffles the shards and the rows within each.

        Args:
            site: a site in the store.
            size: maximum number of rows per batch; no batch crosses a shard.
            seed: seed of the order; the order of the store by default.

        Yields:
            Activations, ``[row, *axes]``, and the index of each row.
        """
        if size < 1:
            raise ConfigError(f"size={size}: a batch holds at least 1 row")
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

    def _check(self, file: str) -> None:
        """Compares a shard with its checksum, once for each store that is open.

        Raises:
            ArtifactError: it is damaged.
        """
        if file in self._checked:
            return
        files = shard_files(self.folder, {key: value for key, value in self.index.items() if key != "shards"})
        if not files.is_sound(Path(file).stem):
            raise ArtifactError(f"{file} of activation store {self.folder} is damaged", fix=_REPAIR)
        self._checked.add(file)

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
            self._check(shard["file"])
            try:
                with safe_open(self.folder / shard["file"], framework="pt") as stored:
                    parts.append(stored.get_slice(key)[max(start, low) - low : min(last, high) - low])
            except SafetensorError as error:
                raise ArtifactError(f"{shard['file']} of {self.folder} holds no {key}", fix=_REPAIR) from error
        if not parts:
            raise ShapeError(f"Rows {start} to {stop} are not in the store, which has rows 0 to {len(self)}")
        return torch.cat(parts)


def _check_sites(sites: Sequence[Site]) -> None:
    for site in sites:
        if site.row.axes[0] != "pos":
            raise SiteError(
                f"{site.name} cannot be stored per token: its axes are {site.row.axes}",
                allowed="sites whose first axis is pos",
                fix="Use model.cache for patterns",
            )
