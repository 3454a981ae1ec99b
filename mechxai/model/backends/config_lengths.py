"""The lengths in a configuration at which a model computes differently: windows, chunks, rotary tables."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mechxai.model.backends.base import Backend

_WINDOW_WORDS = ("window", "chunk", "local_attention")
_OTHER_WORDS = ("layer", "pattern")  # numbers of layers with windows
_THRESHOLD_WORDS = ("position_embeddings", "floor_scale", "seq_len", "sequence_length", "context_length", "n_positions")


@dataclass(frozen=True)
class ConfigLengths:
    """Lengths in tokens, within the model's context.

    Attributes:
        windows: of sliding or chunked attention, ascending.
        rotary: the longest text with the first rotary table; longer texts have another. None where there is one table.
        rotary_restarts: whether Hugging Face's ``generate`` runs a text that outgrows ``rotary`` again from its start;
            otherwise it keeps keys of the first table.
    """

    windows: tuple[int, ...] = ()
    rotary: int | None = None
    rotary_restarts: bool = False


def config_lengths(backend: Backend) -> ConfigLengths:
    """The lengths that the configuration of a model names, those inside its context."""
    n_ctx = backend.architecture().n_ctx
    config = hugging_face_config(backend)
    if config is None:
        cfg = backend.inner.cfg
        window = getattr(cfg, "window_size", None) if getattr(cfg, "use_local_attn", False) else None
        return ConfigLengths((window,) if window and window < n_ctx else ())
    entries = list(config_entries(config.to_dict()))
    windows = {value for key, value in entries if _names_window(key) and is_length(value)}
    kinds = {value for key, value in entries if key in ("rope_type", "type")}
    rotary = None
    if kinds & {"dynamic", "longrope"}:
        named = [value for key, value in entries if key == "original_max_position_embeddings" and is_length(value)]
        rotary = min([*named, n_ctx])
    inside = tuple(sorted(window for window in windows if window < n_ctx))
    if rotary is None or rotary >= n_ctx:
        return ConfigLengths(inside)
    return ConfigLengths(inside, rotary, _restarts(backend.inner.original_model))


def hugging_face_config(backend: Backend) -> Any:
    """The configuration of the Hugging Face language model under a bridge; None for other models."""
    config: Any = getattr(getattr(backend.inner, "original_model", None), "config", None)
    if not hasattr(config, "to_dict"):
        return None
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def _restarts(hf_model: Any) -> bool:
    """Whether the model's class drops the cache at its rotary length, as Phi-3 does."""
    prepares = type(hf_model).__dict__.get("prepare_inputs_for_generation")
    try:
        return prepares is not None and "original_max_position_embeddings" in inspect.getsource(prepares)
    except OSError:
        return False


def _names_window(key: str) -> bool:
    return any(word in key for word in _WINDOW_WORDS) and not any(word in key for word in _OTHER_WORDS)


def names_length(key: str) -> bool:
    """Whether a setting is a window, or a number of tokens or positions from which a model computes differently."""
    return _names_window(key) or any(word in key for word in _THRESHOLD_WORDS)


def is_length(value: object) -> bool:
    """Whether the value of a setting can be a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def config_entries(tree: Any) -> Iterator[tuple[str, Any]]:
    """Walks through the nested dictionaries of a configuration.

    Yields:
        Keys and their values that are no dictionaries.
    """
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from config_entries(value)
        else:
            yield str(key), value
