"""Folders in TransformerLens' format, for models without a Hugging Face class (no LayerNorm, attention only)."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mechxai.core.errors import ArtifactError, ModelSupportError
from mechxai.model.backends.weight_hash import hash_tensors

_FORMAT = "HookedTransformer"


def is_native(folder: Path) -> bool:
    """Whether the folder holds a model in TransformerLens' format."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever reads the folder next says what is wrong with it
        return False
    return isinstance(config, dict) and config.get("architectures") == [_FORMAT]


def save(folder: Path, config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """Writes a model: ``config`` has ``HookedTransformerConfig`` fields, ``state`` is its state dict."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [_FORMAT], **config}, indent=2) + "\n")
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")


def load(folder: Path, backend: str, *, device: torch.device, dtype: torch.dtype) -> tuple[Any, str]:
    """The wrapped object and the hash of its weights.

    Raises:
        ModelSupportError: ``hooked_transformer`` with a TransformerLens that no longer has it, or ``bridge`` with one
            that cannot yet read the format.
        ArtifactError: the weights do not fit the config.
    """
    config = json.loads((folder / "config.json").read_text())
    config.pop("architectures")
    state = load_file(folder / "model.safetensors")
    inner, keys = _bridge(config, state) if backend == "bridge" else _hooked_transformer(config, state, backend)
    missing = [name for name in keys.missing_keys if not name.endswith(("mask", "IGNORE"))]
    if missing or keys.unexpected_keys:
        raise ArtifactError(
            f"The weights in {folder.name} do not fit its config: missing {missing}, unexpected {keys.unexpected_keys}"
        )
    return inner.to(device).to(dtype).eval(), hash_tensors(state)


def _hooked_transformer(config: dict[str, Any], state: dict[str, torch.Tensor], backend: str) -> tuple[Any, Any]:
    try:
        from transformer_lens import HookedTransformer, HookedTransformerConfig  # noqa: PLC0415 - heavy
    except ImportError as error:
        if backend == "auto":
            return _bridge(config, state)
        raise ModelSupportError(
            "backend='hooked_transformer' is not available: TransformerLens 4 no longer has HookedTransformer",
            fix="Use backend='bridge'",
        ) from error
    inner = HookedTransformer(HookedTransformerConfig.from_dict({**config, "device": "cpu"}), move_to_device=False)
    return inner, inner.load_state_dict(state, strict=False)


def _bridge(config: dict[str, Any], state: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - heavy

    try:
        # pyright: ignore, since TransformerLens 3.9 has no such module
        from transformer_lens.utilities import (  # noqa: PLC0415 - heavy
            tl_checkpoint_conversion as conversion,  # pyright: ignore[reportAttributeAccessIssue]
        )
    except ImportError as error:
        raise ModelSupportError(
            "backend='bridge' does not support this model: TransformerLens 3.9 cannot convert its own format",
            fix="Use backend='hooked_transformer', or transformer-lens>=4",
        ) from error
    inner = TransformerBridge.boot_native(config)
    return inner, inner.load_state_dict(conversion.convert_tl_checkpoint(state, inner.cfg), strict=False)


def tokenizer(folder: Path) -> Any:
    """The folder's tokenizer."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
