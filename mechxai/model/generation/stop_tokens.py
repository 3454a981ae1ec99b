"""The tokens that end a continuation, and settings of Hugging Face's ``generate`` that are not applied."""

import logging
from typing import Any
from weakref import WeakSet

from mechxai.model.backends.base import Backend
from mechxai.model.text import TextCodec

_log = logging.getLogger("mechxai.model")
_PLAIN = {  # setting -> values without effect on the likeliest token
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "bad_words_ids": (None,),
    "sequence_bias": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "num_beams": (None, 1),
    "guidance_scale": (None, 1.0),
}
_ANNOUNCED: WeakSet[Any] = WeakSet()


def stop_ids(backend: Backend, text: TextCodec) -> frozenset[int]:
    """The ends of text in the model's generation settings (a number or a list), and the tokenizer's special tokens."""
    ends = getattr(_settings(backend), "eos_token_id", None)
    listed = [ends] if isinstance(ends, int) else [int(end) for end in ends] if ends is not None else []
    return text.special_ids() | frozenset(listed)


def announce_settings(backend: Backend, name: str) -> None:
    """Logs, once per model, generation settings that Hugging Face's ``generate`` applies and this decoder does not."""
    if backend.inner in _ANNOUNCED:
        return
    _ANNOUNCED.add(backend.inner)
    settings = _settings(backend)
    changed = {key: getattr(settings, key, None) for key in _PLAIN}
    changed = {key: value for key, value in changed.items() if value not in _PLAIN[key]}
    if changed:
        listed = ", ".join(f"{key}={value}" for key, value in changed.items())
        _log.warning("%s: generation settings of its folder are not applied (%s)", name, listed)


def _settings(backend: Backend) -> Any:
    """Hugging Face's generation settings of a model, where it has some."""
    inner = backend.inner
    return getattr(getattr(inner, "original_model", inner), "generation_config", None)
