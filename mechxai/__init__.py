"""MechXAI: mechanistic interpretability of transformer language models.

Measure which inputs matter, which components carry an answer, what each layer knows, and whether the explanation is
true.

``import mechxai as mx`` loads nothing heavy: a public name is imported when it is first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        public = importlib.import_module("mechxai._public")
        if name in public.PACKAGES:
            return importlib.import_module(f"mechxai.{name}")
        if name == "core":  # for ``except mx.core.errors.MechXAIError``
            importlib.import_module("mechxai.core.errors")
            return importlib.import_module("mechxai.core")
        module = public.public_names().get(name)
        if module is not None:
            return getattr(importlib.import_module(module), name)
    if name == "__all__":
        return __dir__()
    raise AttributeError(f"module 'mechxai' has no attribute {name!r}")


def __dir__() -> list[str]:
    public = importlib.import_module("mechxai._public")
    return sorted([*public.PACKAGES, *public.public_names()])
