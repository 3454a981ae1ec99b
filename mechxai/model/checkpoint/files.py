"""The files of a checkpoint folder: present, whole, and of a format that is read, before anything is loaded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from mechxai.core.errors import ArtifactError, ModelSupportError
from mechxai.model.checkpoint.errors import CONVERT, LOADABLE


class StoredTensor(NamedTuple):
    """What the header of a file says about a tensor.

    Attributes:
        shape: the tensor's sides.
        dtype: as safetensors names it: ``F32``, ``BF16``, ``I8`` ...
    """

    shape: tuple[int, ...]
    dtype: str


Headers = Mapping[str, StoredTensor]  # of all tensors of a checkpoint, by name

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_OTHER_FORMATS = {"*.h5": "TensorFlow", "*.msgpack": "Flax", "*.onnx": "ONNX"}
_LFS_POINTER = b"version https://git-lfs"


def check_folder(folder: Path, name: str) -> Headers:
    """Shapes and dtypes of all stored tensors, from the files' headers; no weight is read.

    Raises:
        ArtifactError: the folder lacks config.json or safetensors, or a file is damaged or missing.
        ModelSupportError: the folder holds an adapter, a GGUF file, or weights in another format only.
    """
    if folder.is_file():
        _refuse_format(folder.parent, name, only=folder.name)
        raise ArtifactError(f"Model {name!r} cannot be loaded: it is a file, not a folder", allowed=LOADABLE)
    _check_adapter(folder, name)
    if not (folder / "config.json").is_file():
        _refuse_format(folder, name)
        raise ArtifactError(f"Model {name!r} cannot be loaded: its folder has no config.json", allowed=LOADABLE)
    read_json(folder / "config.json", name)
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_symlink() and not single.exists():
        raise ArtifactError(
            f"Model {name!r} cannot be loaded: {single.name} is a link to {single.readlink()}, which does not exist",
            fix="Copy or download the file again",
        )
    if single.is_file():
        return stored_tensors(single, name)
    if index.is_file():
        return sharded_tensors(index, name)
    _refuse_format(folder, name)
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    beside = f" (it has {', '.join(others)})" if others else ""
    raise ArtifactError(
        f"Model {name!r} cannot be loaded: its folder has no model.safetensors{beside}",
        allowed=LOADABLE,
        fix="Copy the weights, model.safetensors or its shards with model.safetensors.index.json, into the folder",
    )


def stored_tensors(path: Path, name: str) -> Headers:
    """Shapes and dtypes of the tensors in one safetensors file, from its header.

    Raises:
        ArtifactError: the file is truncated or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            return {key: StoredTensor(tuple(part.get_shape()), part.get_dtype()) for key, part in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as file:
            pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
        reason = "a Git LFS pointer, not the weights" if pointer else f"truncated or damaged ({error})"
        raise ArtifactError(
            f"Model {name!r} cannot be loaded: {path.name} ({path.stat().st_size} bytes) is {reason}",
            fix="Run git lfs pull" if pointer else "Copy or download the file again",
        ) from error


def sharded_tensors(path: Path, name: str) -> Headers:
    """Shapes and dtypes of the tensors in several files, which an index lists and which stand beside it.

    Raises:
        ArtifactError: a file is missing, truncated or damaged, or lacks a tensor that the index places there.
    """
    folder, places = path.parent, read_json(path, name).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ArtifactError(f"Model {name!r} cannot be loaded: model.safetensors.index.json has no weight_map")
    files = sorted({str(file) for file in places.values()})
    absent = [file for file in files if not (folder / file).is_file()]
    if absent:
        raise ArtifactError(
            f"Model {name!r} cannot be loaded: its index names {', '.join(absent)}, which the folder lacks",
            fix="Copy or download the missing files",
        )
    headers = {file: stored_tensors(folder / file, name) for file in files}
    lost = [tensor for tensor, file in places.items() if tensor not in headers[str(file)]]
    if lost:
        raise ArtifactError(
            f"Model {name!r} cannot be loaded: {places[lost[0]]} lacks the tensor {lost[0]} that the index places "
            f"there ({len(lost)} in all)",
            fix="Copy or download the files again",
        )
    return {tensor: header for file in files for tensor, header in headers[file].items()}


def _check_adapter(folder: Path, name: str) -> None:
    if (folder / "adapter_config.json").is_file():
        raise adapter_error(folder / "adapter_config.json", name)


def adapter_error(path: Path, name: str) -> ModelSupportError:
    """The error of an adapter, from its ``adapter_config.json``."""
    base = read_json(path, name).get("base_model_name_or_path")
    return ModelSupportError(
        f"Model {name!r} cannot be loaded: it holds an adapter ({path.name}) of the model {base!r}",
        fix="Load the model and its adapter with peft, call merge_and_unload(), write the merged model with "
        "save_pretrained, and pass that folder",
    )


def _refuse_format(folder: Path, name: str, only: str = "") -> None:
    """Refuses weights that stand in another format than safetensors."""

    def first(pattern: str) -> str | None:
        return next((file.name for file in sorted(folder.glob(pattern)) if not only or file.name == only), None)

    gguf = first("*.gguf")
    if gguf:
        raise ModelSupportError(
            f"Model {name!r} cannot be loaded: {gguf} is a GGUF file; weights are read from safetensors only",
            fix="Use the original checkpoint, or convert it: from_pretrained(folder, gguf_file=...) of transformers, "
            "then save_pretrained",
        )
    pickled = next(filter(None, map(first, _PICKLED)), None)
    if pickled:
        raise ArtifactError(
            f"Model {name!r} cannot be loaded: its weights are pickled ({pickled}); weights are read from safetensors "
            "only, because a pickle can run code",
            allowed=LOADABLE,
            fix=CONVERT,
        )
    for pattern, library in _OTHER_FORMATS.items():
        other = first(pattern)
        if other:
            raise ModelSupportError(
                f"Model {name!r} cannot be loaded: its weights are in {library}'s format ({other})", fix=CONVERT
            )


def read_json(path: Path, name: str) -> dict[str, Any]:
    """The table in a JSON file.

    Raises:
        ArtifactError: the file is damaged or holds no table.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"Model {name!r} cannot be loaded: {path.name} is not valid JSON ({error})", fix="Copy the file again"
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"Model {name!r} cannot be loaded: {path.name} holds a {type(value).__name__}, not a table")
    return value
