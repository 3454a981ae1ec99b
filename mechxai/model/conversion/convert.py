"""Conversion of a Hugging Face model into TransformerLens' objects; what cannot be converted is refused by name."""

import importlib.util
import json
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mechxai.core.errors import ModelSupportError
from mechxai.model.backends.base import Backend, modules
from mechxai.model.backends.bridge import BridgeBackend
from mechxai.model.backends.hooked_transformer import HookedTransformerBackend

# the errors that TransformerLens raises for a model that it does not know, or knows another form of
CONVERSION_ERRORS = (
    NotImplementedError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    RuntimeError,
    ImportError,
    AssertionError,
    ArithmeticError,
)
_UNKNOWN = ("is not currently supported", "Could not determine supported architecture")
_REASON_LENGTH = 160  # characters of an error of TransformerLens that are shown


def has_hooked_transformer() -> bool:
    """Whether this TransformerLens has ``HookedTransformer``; version 4 does not."""
    return importlib.util.find_spec("transformer_lens.HookedTransformer") is not None


class HookedTransformerParts:
    """A Hugging Face model as configuration and weights of a ``HookedTransformer``.

    The conversion reads the model and does not change it.

    Raises:
        CannotConvert: TransformerLens cannot convert this model.
    """

    def __init__(self, hf_model: Any, *, processing: str, device: torch.device, dtype: torch.dtype) -> None:
        from transformer_lens import loading_from_pretrained  # noqa: PLC0415 - heavy

        family = type(hf_model).__name__
        config = hf_model.config.to_dict()
        config.setdefault("n_ctx", config.get("n_positions") or config.get("max_position_embeddings"))
        config["architectures"] = [family]
        self.family, self.folded, self.dtype = family, processing == "folded", dtype
        # TransformerLens branches on the path of a folder, so it gets one whose name means nothing
        with tempfile.TemporaryDirectory(prefix="mx") as folder, plain_errors("hooked_transformer", family):
            (Path(folder) / "config.json").write_text(json.dumps(config))
            self.cfg = loading_from_pretrained.get_pretrained_model_config(
                folder, hf_cfg=config, fold_ln=self.folded, device=str(device), dtype=dtype
            )
            self.state = loading_from_pretrained.get_pretrained_state_dict(folder, self.cfg, hf_model, dtype=dtype)
        self.cfg.model_name = family
        self.cfg.d_mlp = config.get("n_inner") or self.cfg.d_mlp  # TransformerLens takes 4 * d_model for every GPT-2
        self.generation_config = hf_model.generation_config

    def backend(self, tokenizer: Any, device: torch.device) -> Backend:
        """The model; uses up the weights.

        Raises:
            CannotConvert: the weights do not fit TransformerLens' model.
        """
        from transformer_lens import HookedTransformer  # noqa: PLC0415 - heavy

        cfg = self.cfg
        layer_norm = cfg.normalization_type in ("LN", "LNPre")
        with plain_errors("hooked_transformer", self.family):
            inner = HookedTransformer(cfg, tokenizer, move_to_device=False)
            inner.load_and_process_state_dict(
                self._taken_state(),  # not kept here, so that weights are freed as they are folded
                fold_ln=self.folded,
                center_writing_weights=self.folded and layer_norm,
                center_unembed=self.folded and not _softcapped(cfg),
                fold_value_biases=self.folded,
            )
            inner.to(device)
            inner.generation_config = self.generation_config  # its ends of text
            return HookedTransformerBackend(inner.to(self.dtype).eval())

    def _taken_state(self) -> dict[str, torch.Tensor]:
        state, self.state = self.state, {}
        return state


def bridge(hf_model: Any, tokenizer: Any, *, processing: str, device: torch.device, dtype: torch.dtype) -> Backend:
    """A ``TransformerBridge``, which takes the Hugging Face model over and changes it.

    Raises:
        CannotConvert: TransformerLens cannot convert this model.
    """
    from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - heavy

    with plain_errors("bridge", type(hf_model).__name__):
        convert_weights(hf_model.modules(), device=device, dtype=dtype)
        inner = TransformerBridge.boot_transformers(
            "local", hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
        )
        if processing == "folded":
            inner.enable_compatibility_mode(disable_warnings=True)
        return BridgeBackend(inner.eval())


def converted(backend: Backend, *, device: torch.device, dtype: torch.dtype) -> None:
    """Moves a model to another device and converts it to another dtype, in place."""
    if backend.name == "hooked_transformer":
        backend.inner.to(device)
        backend.inner.to(dtype)
        return
    convert_weights(modules(backend), device=device, dtype=dtype)
    backend.inner.cfg.dtype, backend.inner.cfg.device = dtype, str(device)


def convert_weights(every_module: Iterable[Any], *, device: torch.device, dtype: torch.dtype) -> None:
    """Moves and converts weights and stored buffers; computed buffers, such as rotary frequencies, keep their dtype.

    A bridge also holds views of its weights as attributes; these become views of the new weights.
    """
    every_module = list(every_module)
    new: dict[int, torch.Tensor] = {}
    for module in every_module:
        for parameter in module._parameters.values():
            if parameter is not None and parameter.data_ptr() not in new:
                old = parameter.data
                parameter.data = old.to(device, dtype if parameter.is_floating_point() else parameter.dtype)
                new[old.data_ptr()] = parameter.data
        for name, buffer in module._buffers.items():
            if buffer is not None:
                stored = buffer.is_floating_point() and name not in module._non_persistent_buffers_set
                module._buffers[name] = buffer.to(device, dtype if stored else buffer.dtype)
    for module in every_module:
        _renew_views(module, new)


def _renew_views(module: Any, new: Mapping[int, torch.Tensor]) -> None:
    """Attributes that were views of old weights, by address, become views of the new ones."""
    for name, value in vars(module).items():
        weight = new.get(value.data_ptr()) if isinstance(value, torch.Tensor) else None
        if weight is not None and (weight.dtype, weight.device) != (value.dtype, value.device):
            module.__dict__[name] = weight.as_strided(value.shape, value.stride())


class CannotConvert(ModelSupportError):  # noqa: N818 - reads as the sentence it is
    """TransformerLens cannot convert a model, or cannot run it afterwards.

    Args:
        backend: ``hooked_transformer`` or ``bridge``.
        family: class of the Hugging Face model.
        reason: what TransformerLens does: "does not know this architecture", "stops with ...".
    """

    def __init__(self, backend: str, family: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"backend={backend!r} does not support {family}: TransformerLens {reason}")


@contextmanager
def plain_errors(backend: str, family: str) -> Iterator[None]:
    """Turns what TransformerLens raises into a `CannotConvert`; a lack of memory stays as it is."""
    try:
        yield
    except (ModelSupportError, torch.OutOfMemoryError):
        raise
    except CONVERSION_ERRORS as error:
        raise CannotConvert(backend, family, _reason(error)) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if any(words in text for words in _UNKNOWN):
        return "does not know this architecture"
    named = f"stops with {type(error).__name__}{': ' if text else ''}{text}"
    return textwrap.shorten(named, _REASON_LENGTH, placeholder=" ...")


def _softcapped(cfg: Any) -> bool:
    cap = getattr(cfg, "output_logits_soft_cap", None)
    return cap is not None and cap > 0
