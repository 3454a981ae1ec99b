"""The sizes in a configuration: plausible, consistent with one another and with the stored tensors."""

from collections.abc import Mapping
from typing import Any

import torch

from mechxai.core.errors import ArtifactError, ModelSupportError, NoSpaceError
from mechxai.model.backends.memory import available_bytes
from mechxai.model.checkpoint.errors import LoadingErrors, label
from mechxai.model.checkpoint.files import Headers

_LARGEST: Mapping[str, int] = {  # far above every published model
    "num_hidden_layers": 10_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "num_attention_heads": 100_000,
    "num_key_value_heads": 100_000,
    "head_dim": 100_000,
    "vocab_size": 100_000_000,
    "max_position_embeddings": 1_000_000_000,
    "num_local_experts": 100_000,
    "num_experts": 100_000,
}
_ALIASES = {"n_embd": "hidden_size", "d_model": "hidden_size", "dim": "hidden_size", "n_layer": "num_hidden_layers"}
_ALIASES |= {"num_layers": "num_hidden_layers", "n_layers": "num_hidden_layers", "n_head": "num_attention_heads"}
_ALIASES |= {"num_heads": "num_attention_heads", "n_heads": "num_attention_heads", "n_inner": "intermediate_size"}
_ALIASES |= {"n_positions": "max_position_embeddings", "ffn_dim": "intermediate_size"}
_MAY_BE_ZERO = ("num_local_experts", "num_experts")
_PER_LAYER: list[int] = []  # stands for a size of each layer
_OF_STORED = 4  # a model of more than this many times the stored numbers is not what the files hold
_SMALL_MODEL = 100_000  # parameters; below this nothing is absurd


def check_sizes(config: Any, name: str, stored: Headers | None) -> None:
    """Refuses a configuration whose sizes no model, or not this checkpoint, can have; nothing is allocated.

    Args:
        config: a Hugging Face configuration.
        name: the model's name.
        stored: the headers of the checkpoint's files; None where they are not known yet.

    Raises:
        ArtifactError: a size is absurd; names it and its value.
    """
    text = config.get_text_config(decoder=True)
    sizes = {size: _value(text, size) for size in _LARGEST}
    for size, value in sizes.items():
        _check_size(size, value, name)
    _check_heads(text, sizes, name)
    if stored is None:
        return
    n_layers = sizes["num_hidden_layers"] or 0
    if n_layers > len(stored):
        raise _absurd(name, f"num_hidden_layers={n_layers}, but its files hold {len(stored)} tensors in all")
    widest = max((side for tensor in stored.values() for side in tensor.shape), default=0)
    for size in ("hidden_size", "vocab_size"):
        value = sizes[size]
        if value and value > _OF_STORED * max(widest, 1):
            raise _absurd(name, f"{size}={value}, but the widest tensor of its files has {widest} rows")


def check_values(values: Mapping[str, Any], name: str) -> None:
    """Refuses sizes in config.json that are no counts, before transformers computes with them.

    Raises:
        ArtifactError: names the size and its value.
    """
    for size, value in values.items():
        if size in _LARGEST or size in _ALIASES:
            _check_size(size, value, name)
        elif isinstance(value, dict):
            check_values(value, name)


def check_total(auto: Any, config: Any, *, name: str, stored: Headers, dtype: torch.dtype) -> None:
    """Refuses a model that is far larger than the checkpoint or than the free memory; it is built without memory.

    Quantised weights are left to their library.

    Raises:
        ArtifactError: says how many parameters the configuration and the files have, or which weights are integers.
        NoSpaceError: says how many bytes the weights take, and how many are free.
    """
    if getattr(config, "quantization_config", None) is not None:
        return
    integers = sorted(key for key, tensor in stored.items() if key.endswith(".weight") and tensor.dtype[0] in "IU")
    if integers:
        raise ArtifactError(
            f"{label(name)} cannot be loaded: {integers[0]} holds whole numbers ({stored[integers[0]].dtype}), and "
            f"config.json names no quantisation that gives their scale ({len(integers)} such tensors in all)",
            fix="Copy config.json again, with its quantization_config, or use the checkpoint before quantisation",
        )
    with LoadingErrors(name), torch.device("meta"):
        model = auto.from_config(config)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    n_stored = sum(int(torch.Size(tensor.shape).numel()) for tensor in stored.values())
    if n_parameters > max(_OF_STORED * n_stored, _SMALL_MODEL):
        raise _absurd(name, f"a model of {n_parameters} parameters, but its files hold {n_stored}")
    need = n_parameters * dtype.itemsize + sum(buffer.nbytes for buffer in model.buffers())
    free = available_bytes(torch.device("cpu"))
    if need > free:
        raise NoSpaceError(
            f"{label(name)} cannot be loaded: its weights take {need / 2**30:.1f} GiB in "
            f"{str(dtype).removeprefix('torch.')}, in which they are read; {free / 2**30:.1f} GiB are free",
            fix="Use a machine with more memory, or a smaller model",
        )


def _value(config: Any, size: str) -> Any:
    """A size of the configuration; None where it has none, or one for each layer, or computes it (XLNet: -1)."""
    if size == "max_position_embeddings" and isinstance(getattr(type(config), size, None), property):
        return None
    try:
        return getattr(config, size, None)
    except RuntimeError:  # transformers refuses to give one value for sizes that differ between layers
        return _PER_LAYER if size == "head_dim" else None


def _check_size(size: str, value: Any, name: str) -> None:
    if value is None or isinstance(value, list | tuple | dict):  # a value for each layer
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise _absurd(name, f"{size}={value!r}, which is not a whole number")
    if value < 0 or (value == 0 and size not in _MAY_BE_ZERO):
        raise _absurd(name, f"{size}={value}, which must be above 0")
    most = _LARGEST[_ALIASES.get(size, size)]
    if value > most:
        raise _absurd(name, f"{size}={value}, more than any model has ({most} at most)")


def _check_heads(text: Any, sizes: Mapping[str, Any], name: str) -> None:
    width, heads, shared = sizes["hidden_size"], sizes["num_attention_heads"], sizes["num_key_value_heads"]
    if not isinstance(width, int) or not isinstance(heads, int):
        return
    has_head_dim = any(_value(text, size) is not None for size in ("head_dim", "d_kv", "kv_channels", "qk_head_dim"))
    if not has_head_dim and width % heads:
        raise _absurd(name, f"hidden_size={width} and num_attention_heads={heads}, which does not divide it")
    if isinstance(shared, int) and heads % shared:
        raise _absurd(name, f"num_attention_heads={heads} and num_key_value_heads={shared}, which does not divide it")


def _absurd(name: str, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{label(name)} cannot be loaded: its config.json says {problem}",
        fix="Correct config.json, or copy it again from the checkpoint's source",
    )


def check_kind(config: Any, name: str) -> None:
    """Refuses encoder-decoder models, by their configuration alone.

    Raises:
        ModelSupportError: names the family.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise ModelSupportError(
            f"{label(name)} cannot be loaded: it is an encoder-decoder model ({config.model_type})",
            allowed="causal and masked language models (mx.load), classifiers and encoders of a single stack "
            "(mx.load_classifier, mx.load_encoder)",
            fix="Use mx.black_box to explain its outputs without looking inside",
        )


def check_quantisation(config: Any, name: str) -> None:
    """Refuses a quantisation that transformers does not know: it would read the packed numbers as weights.

    Raises:
        ModelSupportError: names the method.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING  # noqa: PLC0415 - heavy

    settings = getattr(config, "quantization_config", None)
    settings = settings if isinstance(settings, dict) else getattr(settings, "__dict__", {})
    method = str(getattr(settings.get("quant_method"), "value", settings.get("quant_method")))
    known = method in AUTO_QUANTIZER_MAPPING or method.startswith("bitsandbytes") or "load_in_8bit" in settings
    if settings and not known:
        raise ModelSupportError(
            f"{label(name)} cannot be loaded: transformers does not know its quantisation, quant_method={method!r}",
            fix="Use the checkpoint before quantisation",
        )
