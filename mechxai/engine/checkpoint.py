"""Finished waves on disk, so that an interrupted sweep goes on where it stopped."""

import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechxai.core.files import atomic_write

_log = logging.getLogger("mechxai.engine")


class WaveStore:
    """One file per wave in a folder; whole or not at all.

    Args:
        folder: where; made when first written to.
        key: hash of what decides the values and of the packing; files of another key are not read.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        self.failed: str | None = None

    def load(self, index: int) -> Tensor | None:
        """The values of a finished wave, ``[cell, batch]``, or None."""
        path = self._path(index)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as stored:
                return stored.get_tensor("values") if (stored.metadata() or {}).get("key") == self._key else None
        except (SafetensorError, OSError) as error:
            _log.warning("%s cannot be read (%s); the wave is computed again", path.name, error)
            return None

    def save(self, index: int, values: Tensor) -> None:
        """Keeps a wave. A disk that cannot take it costs the saving, never the run; `failed` then says why."""
        try:
            with atomic_write(self._path(index)) as part:
                save_file({"values": values.cpu().contiguous()}, part, metadata={"key": self._key})
        except (OSError, SafetensorError) as error:
            if self.failed is None:
                _log.warning("finished cells cannot be kept in %s (%s); the run goes on without", self._folder, error)
            self.failed = str(error)

    def _path(self, index: int) -> Path:
        return self._folder / f"{self._key[:12]}-{index:06d}.safetensors"
