"""The checkpoint store: every computation that resumes loads its finished pieces from here, or computes them.

A piece is a safetensors file, written atomically. Its metadata hold the key of the computation and a checksum of the
tensors, so that a piece of another computation or with a flipped bit is never taken for a result. Faults of the disk
follow `FaultPolicy`: a damaged piece is set aside and computed again, and a full disk costs the saving, never the run.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechxai.core.files import atomic_write, set_aside
from mechxai.core.pieces import FaultPolicy, checksum

T = TypeVar("T")


@dataclass(frozen=True)
class Serializer(Generic[T]):
    """How a kind of piece becomes named tensors, and is made from them again."""

    to_tensors: Callable[[T], Mapping[str, Tensor]]
    from_tensors: Callable[[dict[str, Tensor]], T]


TENSORS: Serializer[Mapping[str, Tensor]] = Serializer(lambda tensors: tensors, lambda tensors: tensors)
TENSOR: Serializer[Tensor] = Serializer(lambda tensor: {"values": tensor}, lambda tensors: tensors["values"])
ARRAYS: Serializer[dict[str, np.ndarray]] = Serializer(
    lambda arrays: {name: torch.from_numpy(np.asarray(array, order="C")) for name, array in arrays.items()},
    lambda tensors: {name: tensor.numpy() for name, tensor in tensors.items()},
)


class CheckpointStore(Generic[T]):
    """The finished pieces of one computation in a folder, a file each.

    Args:
        folder: created when the first piece is saved; None saves nothing.
        key: hash of everything that decides the values; pieces with another key are not loaded.
        serializer: how pieces become tensors.
    """

    def __init__(self, folder: Path | None, key: str, serializer: Serializer[T]) -> None:
        self._folder, self._key, self._serializer = folder, key, serializer
        self._policy = FaultPolicy(folder or Path())

    @property
    def failed(self) -> str | None:
        """Why pieces could not be saved, or None."""
        return self._policy.failed

    def load(self, name: str | int) -> T | None:
        """A finished piece; None where it is missing, damaged, or of another key.

        Args:
            name: of the file. The file of a numbered piece also names the key, so that computations can share a folder.
        """
        piece = self._read(name)
        if piece is None or piece[0] != self._key:
            return None
        return self._serializer.from_tensors(piece[1])

    def save(self, name: str | int, value: T) -> None:
        """Saves a piece; where the disk cannot take it, the run continues and `failed` gives the reason."""
        try:
            self.write(name, value)
        except OSError as error:
            self._policy.report_unsaved(error)

    def write(self, name: str | int, value: T) -> None:
        """Saves a piece that the computation cannot continue without.

        Raises:
            OSError: the disk cannot take it.
        """
        path = self._path(name)
        if path is None:
            return
        tensors = {
            key: tensor.detach().cpu().contiguous() for key, tensor in self._serializer.to_tensors(value).items()
        }
        # safetensors writes several metadata entries in random order: one entry keeps equal pieces equal byte for byte
        metadata = {"piece": f"{self._key} {checksum(_bytes(self._key, tensors))}"}
        with atomic_write(path) as part:
            save_file(tensors, part, metadata=metadata)

    def load_or_compute(self, name: str | int, compute: Callable[[], T]) -> tuple[T, bool]:
        """A piece, and whether it was computed now (and saved) rather than loaded."""
        value = self.load(name)
        if value is not None:
            return value, False
        value = compute()
        self.save(name, value)
        return value, True

    def numbers(self) -> list[int]:
        """The numbers of the pieces with this key that are in the folder, sound or not."""
        if self._folder is None:
            return []
        stems = (path.stem.rpartition("-")[2] for path in self._folder.glob(f"{self._key[:12]}-*.safetensors"))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def holds_another(self, name: str | int) -> bool:
        """Whether the file of a piece is sound and belongs to another computation."""
        piece = self._read(name)
        return piece is not None and piece[0] != self._key

    def is_sound(self, name: str | int) -> bool:
        """Whether a piece is there, complete and undamaged; reads it."""
        piece = self._read(name)
        return piece is not None and piece[0] == self._key

    def _read(self, name: str | int) -> tuple[str, dict[str, Tensor]] | None:
        """The key and tensors of a sound piece, or None."""
        path = self._path(name)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as stored:
                metadata = stored.metadata() or {}
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            self._damaged(path, error)
            return None
        key, _, stored_checksum = metadata.get("piece", "").rpartition(" ")
        if stored_checksum != checksum(_bytes(key, tensors)):
            self._damaged(path, "its checksum differs")
            return None
        return key, tensors

    def _damaged(self, path: Path, reason: object) -> None:
        self._policy.report_damage(path.name, reason)
        set_aside(path)

    def _path(self, name: str | int) -> Path | None:
        stem = f"{self._key[:12]}-{name:06d}" if isinstance(name, int) else name
        return None if self._folder is None else self._folder / f"{stem}.safetensors"


def _bytes(key: str, tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """What a checksum covers.

    Yields:
        The key, then of every tensor the name, type and shape, and the numbers.
    """
    yield key.encode()
    for name, tensor in sorted(tensors.items()):
        yield f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().data
