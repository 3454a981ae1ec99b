"""The tensors of a loaded model: all from the checkpoint, none left over, of the right shape, all finite."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from mechxai.core.errors import ArtifactError, ModelSupportError, NumericsError
from mechxai.model.checkpoint.errors import label

_LISTED = 3
# stored beside the language model by some libraries; the model computes the same without them
_LEFTOVERS = re.compile(
    r"(rotary_emb\.(cos_cached|sin_cached|inv_freq)|\.inv_freq|attn\.bias|attn\.masked_bias|attention\.bias|"
    r"attention\.masked_bias|attention\.attention\.bias|attention\.attention\.masked_bias|position_ids|"
    r"num_batches_tracked)$|(^|\.)(pooler|seq_relationship|mtp)\."
)


def check_tensors(model: Any, info: Mapping[str, Any], name: str, *, unused: tuple[str, ...] = ()) -> None:
    """Refuses a model that is not exactly what its checkpoint stores.

    Args:
        model: the loaded Hugging Face model.
        info: what ``from_pretrained`` returned for ``output_loading_info=True``.
        name: the model's name.
        unused: parts of the model that are never run, whose tensors may be missing (``pooler``).

    Raises:
        ArtifactError: names the missing, unexpected or misshapen tensors.
        NumericsError: names the tensor with NaN or infinite values.
    """
    mismatched = sorted(info["mismatched_keys"])
    misshapen = [f"{key} (stored {_sides(stored)}, wanted {_sides(wanted)})" for key, stored, wanted in mismatched]
    if misshapen:
        raise _faulty(
            name, f"it has tensors of the wrong shape: {_listing(misshapen)}", "Correct config.json or the weights"
        )
    missing = sorted(key for key in info["missing_keys"] if not set(key.split(".")) & set(unused))
    if missing:
        raise _missing(model, name, missing)
    left_over = sorted(key for key in info["unexpected_keys"] if _belongs(model, key))
    if left_over:
        raise _faulty(
            name,
            f"it has tensors that {type(model).__name__} has no place for: {_listing(left_over)}",
            "Correct config.json (the number of layers, biases, tied weights), or remove those tensors",
        )
    check_finite(model, name)


def check_finite(model: Any, name: str) -> None:
    """Refuses NaN and infinite weights.

    Raises:
        NumericsError: names the tensor, how many of its values, and the dtype.
    """
    for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or tensor.is_meta or bool(tensor.sum().isfinite()):
            continue
        n_bad = int((~tensor.isfinite()).sum())
        if n_bad and not _is_buffer_mask(tensor):
            raise NumericsError(
                f"{label(name)} cannot be loaded: {n_bad} of {tensor.numel()} values of {key} are NaN or infinite "
                f"({str(tensor.dtype).removeprefix('torch.')})",
                fix="Copy the weights again; if only this dtype overflows, load with dtype='float32'",
            )


def _is_buffer_mask(tensor: torch.Tensor) -> bool:
    """Whether the infinite values are those of an additive attention mask: 0 and minus infinity only."""
    return bool(((tensor == 0) | (tensor == -torch.inf)).all()) and not tensor.requires_grad


def _missing(model: Any, name: str, missing: list[str]) -> ArtifactError | ModelSupportError:
    backbone = f"{model.base_model_prefix}." if model.base_model is not model else ""
    heads = [key for key in missing if backbone and (".pooler." in key or not key.startswith(backbone))]
    if heads == missing:
        kind = type(model).__name__
        return ModelSupportError(
            f"{label(name)} cannot be loaded as {kind}: its files lack the head ({_listing(heads)}), which would be "
            "random",
            allowed="a checkpoint that was saved with its head",
            fix="Use mx.load_encoder for a model without a head, or save the fine-tuned model, head included",
        )
    return _faulty(name, f"its files lack tensors of the model: {_listing(missing)}", "Copy the weights again")


def _belongs(model: Any, key: str) -> bool:
    """Whether an unexpected tensor is part of this model, rather than of another head beside it."""
    if _LEFTOVERS.search(key) or ("lm_head" in key.split(".") and model.get_output_embeddings() is None):
        return False
    own = {name.partition(".")[0] for name in (*model.state_dict(), *model.base_model.state_dict())}
    return key.partition(".")[0] in own


def _faulty(name: str, problem: str, fix: str) -> ArtifactError:
    return ArtifactError(f"{label(name)} cannot be loaded: {problem}", fix=fix)


def _sides(shape: Any) -> str:
    return "x".join(map(str, shape)) or "a number"


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
