"""Checkpoints with one fault each, made from a whole one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file


def copy(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint."""
    shutil.copytree(source, folder)
    return folder


def set_config(folder: Path, **settings: Any) -> Path:
    """Changes values in config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def edit_tensors(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Rewrites the weights after ``edit`` changed the table of tensors."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
