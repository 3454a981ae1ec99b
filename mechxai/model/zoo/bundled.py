"""The bundled models: their folders and cards."""

import json
from pathlib import Path
from typing import Any

from mechxai.core.errors import ArtifactError, unknown

_HERE = Path(__file__).parent


def zoo_names() -> list[str]:
    """Names of the bundled models (``zoo/ioi`` ...), sorted."""
    return sorted(f"zoo/{folder.name}" for folder in _HERE.iterdir() if (folder / "card.json").is_file())


def zoo_language_models() -> list[str]:
    """Names of the bundled models that `mechxai.load` takes: all except classifiers."""
    return [
        name for name in zoo_names() if not any("Classification" in kind for kind in _architectures(zoo_folder(name)))
    ]


def _architectures(folder: Path) -> list[str]:
    return json.loads((folder / "config.json").read_text()).get("architectures", [])


def zoo_folder(name: str) -> Path:
    """The folder of a bundled model.

    Raises:
        ArtifactError: no bundled model has this name; suggests the nearest.
    """
    if name not in zoo_names():
        raise ArtifactError(unknown("bundled model", name, zoo_names()))
    return _HERE / name.removeprefix("zoo/")


def zoo_card(name: str) -> dict[str, Any]:
    """A bundled model's card: its task, training and accuracy; under ``truth`` its known circuit, if it has one."""
    folder = zoo_folder(name)
    card = json.loads((folder / "card.json").read_text())
    truth = folder / "truth.json"
    return {**card, "truth": json.loads(truth.read_text())} if truth.is_file() else card
