"""Hugging Face checkpoints: the model and the tokenizer of a folder or an id, complete, or refused with the reason."""

from pathlib import Path
from typing import Any

import torch

from mechxai.core.errors import ArtifactError, ModelSupportError

_FOLDER_PREFIXES = ("/", "./", "../", "~")  # a name that begins so is a folder, never a Hugging Face id
_SMALLEST_VOCABULARY = 10
_LOADABLE = (
    "a zoo name (see `mechxai models`), a folder with config.json, *.safetensors and a tokenizer, or a Hugging Face id"
)


def language_model(source: str | Path, revision: str | None, *, name: str) -> tuple[Any, Any]:
    """The Hugging Face model and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer  # noqa: PLC0415 - heavy

    local = isinstance(source, Path)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False, "local_files_only": local}
    try:
        config = AutoConfig.from_pretrained(source, **options)
        architectures = getattr(config, "architectures", None) or [""]
        _check_language_model(architectures[0], name)
        auto = AutoModelForMaskedLM if "MaskedLM" in architectures[0] else AutoModelForCausalLM
        safe = {"use_safetensors": True} if local else {}
        model = auto.from_pretrained(source, dtype=torch.float32, attn_implementation="eager", **safe, **options).eval()
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        no_folder = name.startswith(_FOLDER_PREFIXES) and not Path(name).is_dir()
        reason = "there is no such folder" if no_folder else str(error).splitlines()[0].rstrip(".")
        raise ArtifactError(
            f"Model {name!r} cannot be loaded: {reason}",
            allowed=_LOADABLE,
            fix="Check the spelling, or the network for a Hugging Face id",
        ) from error
    _check_tokenizer(tokenizer, model, name)
    return model, tokenizer


def _check_language_model(architecture: str, name: str) -> None:
    if "SequenceClassification" in architecture:
        raise ModelSupportError(
            f"Model {name!r} is a classifier ({architecture}), not a language model",
            fix="Use mx.load_classifier; attribution methods take its result like any model",
        )


def _check_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """Refuses the tokenizer of one token that transformers makes up for a folder without one."""
    if len(tokenizer) * 2 < model.config.vocab_size and len(tokenizer) < _SMALLEST_VOCABULARY:
        raise ArtifactError(
            f"Model {name!r} cannot be loaded: its tokenizer has {len(tokenizer)} tokens, its vocabulary "
            f"{model.config.vocab_size}",
            allowed=_LOADABLE,
            fix="Put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside the weights",
        )
