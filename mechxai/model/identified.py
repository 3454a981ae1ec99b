"""The facts that identify a model: its hash as it is now, and what results record of it."""

from collections.abc import Mapping
from typing import Any

import torch

from mechxai.core.architecture import Architecture
from mechxai.core.cached import cached_property
from mechxai.core.display import Displayed, Summary
from mechxai.model.backends.base import Backend, Processing
from mechxai.model.backends.weight_state import current_hash, remember
from mechxai.model.conversion.comparison import Comparison


class Identified(Displayed):
    """A model that knows whether it was changed after loading; see `HookedModel` for its attributes."""

    name: str
    backend: Backend
    processing: Processing
    dtype: torch.dtype
    device: torch.device
    loaded_hash: str
    revision: str | None
    card: Mapping[str, Any]
    comparison: Comparison | None

    def __post_init__(self) -> None:
        remember(self.backend)

    @property
    def weight_hash(self) -> str:
        """A hash of the model as it is now: `loaded_hash`, unless weights, functions, hooks or settings were changed.

        Cost: one read of the weights; where they were changed, a hash of all.
        """
        return current_hash(self.backend, self.loaded_hash)

    @property
    def identity(self) -> str:
        """Everything about the model that decides its numbers, as text. Cost: as `weight_hash`."""
        return repr((self.weight_hash, self.backend.name, self.processing, str(self.dtype)))

    @cached_property
    def architecture(self) -> Architecture:
        """Sizes and block structure."""
        return self.backend.architecture()

    def info(self) -> dict[str, object]:
        """The description of the model that results record."""
        return {
            "name": self.name,
            "backend": self.backend.name,
            "processing": self.processing,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "weight_hash": self.weight_hash,
            "revision": self.revision,
            "architecture": self.architecture.as_dict(),
            "comparison": None if self.comparison is None else self.comparison.as_dict(),
        }

    def summary(self) -> Summary:
        """Name, sizes, and how the model was loaded."""
        a = self.architecture
        sizes = f"{a.n_layers} layers, {a.n_heads} heads, d_model {a.d_model}"
        weights = f"{self.processing}, {str(self.dtype).removeprefix('torch.')}, {self.device}"
        compared = "not compared with Hugging Face" if self.comparison is None else str(self.comparison)
        rows = (("family", a.family), ("sizes", sizes), ("backend", self.backend.name), ("weights", weights))
        return Summary(f"HookedModel {self.name}", (*rows, ("check", compared)))
