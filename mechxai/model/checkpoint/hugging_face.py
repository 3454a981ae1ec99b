"""Hugging Face checkpoints: the model and the tokenizer of a folder or an id, complete, or refused with the reason.

Every tensor of a loaded model comes from the checkpoint's files; what is missing, left over, misshapen or not finite is
named. Encoder-decoder models, adapters and absurd sizes are refused before a weight is read.
"""

import re
from pathlib import Path
from typing import Any

import torch

from mechxai.core.errors import ArtifactError, ModelSupportError
from mechxai.model.checkpoint.download import downloaded_tensors, refuse_adapter
from mechxai.model.checkpoint.errors import LOADABLE, LoadingErrors, label
from mechxai.model.checkpoint.files import Headers, check_folder, read_json
from mechxai.model.checkpoint.sizes import check_kind, check_quantisation, check_sizes, check_total, check_values
from mechxai.model.checkpoint.tensors import check_tensors
from mechxai.model.checkpoint.text_model import is_multimodal, multimodal_class, text_model

_SMALLEST_VOCABULARY = 10
_OTHER_HEADS = re.compile(r"For(\w*Classification|QuestionAnswering|MultipleChoice|NextSentencePrediction)$")


def language_model(source: str | Path, revision: str | None, *, name: str) -> tuple[Any, Any]:
    """A causal or masked language model in float32, and its tokenizer.

    Args:
        source: a folder as a `Path`, or a Hugging Face id.
        revision: branch, tag or commit of an id.
        name: the name for errors, as the user gave it.

    Returns:
        The Hugging Face model in evaluation mode, the text model of a multimodal one; and the tokenizer.

    Raises:
        ArtifactError: there is no such model, or its files are incomplete or damaged.
        ModelSupportError: the model is of a kind that cannot be loaded; says which and what to do.
        NumericsError: a weight is NaN or infinite.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM  # noqa: PLC0415 - heavy

    config, stored, options = _configuration(source, revision, name)
    _check_head(config, name)
    if is_multimodal(config):
        auto = multimodal_class(config, name)
    else:
        auto = AutoModelForMaskedLM if is_masked(config) else AutoModelForCausalLM
    model = _weights(auto, config, source, name=name, stored=stored, options=options)
    if is_multimodal(config):
        with LoadingErrors(name):
            model = text_model(model, name)
    model.config.architectures = [type(model).__name__]  # TransformerLens chooses by it
    tokenizer = _tokenizer(source, name, options)
    _check_tokenizer(tokenizer, model, name)
    return model, tokenizer


def sequence_model(
    source: str | Path, auto_name: str, *, dtype: torch.dtype, revision: str | None, name: str
) -> tuple[Any, Any]:
    """A classifier or an encoder, and its tokenizer.

    Args:
        source: a folder as a `Path`, or a Hugging Face id.
        auto_name: ``AutoModelForSequenceClassification`` or ``AutoModel``.
        dtype: of the weights.
        revision: branch, tag or commit of an id.
        name: the name for errors, as the user gave it.

    Raises:
        ArtifactError: there is no such model, or its files are incomplete or damaged.
        ModelSupportError: the model is an encoder-decoder, or has no classification head.
        NumericsError: a weight is NaN or infinite.
    """
    import transformers  # noqa: PLC0415 - heavy

    encoder = auto_name == "AutoModel"
    config, stored, options = _configuration(source, revision, name, encoder=encoder)
    if getattr(config.get_text_config(), "vocab_size", None) is None:
        raise ModelSupportError(
            f"{label(name)} cannot be loaded: it does not read tokens ({config.model_type})",
            allowed="text classifiers (mx.load_classifier) and text encoders (mx.load_encoder)",
        )
    halved = _is_encoder_half(config)
    if halved and not encoder:
        raise ModelSupportError(
            f"{label(name)} cannot be loaded: it has no classification head",
            fix="Use mx.load_encoder to compare its texts with references",
        )
    auto = transformers.AutoModelForTextEncoding if halved else getattr(transformers, auto_name)
    unused = ("pooler",) if encoder else ()
    model = _weights(auto, config, source, name=name, stored=stored, options=options, dtype=dtype, unused=unused)
    return model, _tokenizer(source, name, options)


def is_masked(config: Any) -> bool:
    """Whether the configuration is of a masked language model: bidirectional, and not a decoder."""
    from transformers import AutoModelForMaskedLM  # noqa: PLC0415 - heavy

    bidirectional = type(config) in AutoModelForMaskedLM._model_mapping.keys()  # noqa: SIM118 - no public list
    return bidirectional and not getattr(config, "is_decoder", False)


def _is_encoder_half(config: Any) -> bool:
    """Whether a checkpoint holds the encoder of an encoder-decoder model alone (``T5EncoderModel``)."""
    return str((getattr(config, "architectures", None) or [""])[0]).endswith("EncoderModel")


def _configuration(
    source: str | Path, revision: str | None, name: str, *, encoder: bool = False
) -> tuple[Any, Headers | None, dict[str, Any]]:
    """The checked configuration, the headers of a folder's files, and the options of ``from_pretrained``."""
    from transformers import AutoConfig  # noqa: PLC0415 - heavy

    local = isinstance(source, Path) or bool(source and Path(source).is_file())
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False, "local_files_only": local}
    stored = None
    if local:
        stored = check_folder(Path(source), name)
        check_values(read_json(Path(source) / "config.json", name), name)
    else:
        refuse_adapter(str(source), revision, name)
    with LoadingErrors(name):
        config = AutoConfig.from_pretrained(source, **options)
    if encoder and _is_encoder_half(config):
        config.is_encoder_decoder = False
    check_kind(config, name)
    check_quantisation(config, name)
    check_sizes(config, name, stored)
    return config, stored, options


def _weights(  # noqa: PLR0913 - the parts of a checkpoint
    auto: Any,
    config: Any,
    source: str | Path,
    *,
    name: str,
    stored: Headers | None,
    options: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    unused: tuple[str, ...] = (),
) -> Any:
    if stored is None:
        stored = downloaded_tensors(str(source), options["revision"], name)
        check_sizes(config, name, stored)
    if stored is not None:
        check_total(auto, config, name=name, stored=stored, dtype=dtype)
    with LoadingErrors(name):
        model, info = auto.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named and refused below
            **options,
        )
    check_tensors(model, info, name, unused=unused)
    return model.eval()


def _tokenizer(source: str | Path, name: str, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

    with LoadingErrors(name):
        return AutoTokenizer.from_pretrained(source, **options)


def _check_head(config: Any, name: str) -> None:
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if "SequenceClassification" in architecture:
        raise ModelSupportError(
            f"Model {name!r} is a classifier ({architecture}), not a language model",
            fix="Use mx.load_classifier; attribution methods take its result like any model",
        )
    if _OTHER_HEADS.search(architecture):
        raise ModelSupportError(
            f"{label(name)} cannot be loaded: it is not a language model",
            allowed="causal and masked language models (mx.load), text classifiers (mx.load_classifier), encoders "
            "(mx.load_encoder)",
        )


def _check_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """Refuses the tokenizer of one token that transformers makes up for a folder without one."""
    if len(tokenizer) * 2 < model.config.vocab_size and len(tokenizer) < _SMALLEST_VOCABULARY:
        raise ArtifactError(
            f"Model {name!r} cannot be loaded: its tokenizer has {len(tokenizer)} tokens, its vocabulary "
            f"{model.config.vocab_size}",
            allowed=LOADABLE,
            fix="Put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside the weights",
        )
