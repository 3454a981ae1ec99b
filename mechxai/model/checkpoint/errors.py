"""Turns every exception that a library raises while a model loads into one plain error with the way out."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

from mechxai.core.errors import ArtifactError, MechXAIError, ModelSupportError, NoSpaceError

LOADABLE = (
    "a zoo name (see `mechxai models`), a folder with config.json, *.safetensors and a tokenizer, or a Hugging Face id"
)
CONVERT = (
    "Load it once with transformers' from_pretrained, write it with save_pretrained into a new folder, "
    "and pass that folder"
)
_FOLDER_PREFIXES = ("/", "./", "../", "~")  # a name that begins so is a folder, never a Hugging Face id
_LONGEST_REASON = 300
_PACKAGE = re.compile(r"pip install (?:-U |--upgrade |git\+)?[\"'`]?([A-Za-z0-9_.-]+)")
_TOKENIZER_PACKAGES = ("sentencepiece", "tiktoken", "protobuf")


class LoadingErrors:
    """A context in which every foreign exception becomes a `MechXAIError` that names the model and its family.

    >>> with LoadingErrors("checkpoints/mine"):
    ...     transformers.AutoConfig.from_pretrained("checkpoints/mine")

    Args:
        name: the model's name, as the user gave it.
        library: what works in this context: ``transformers``, ``TransformerLens``, or the model.
    """

    def __init__(self, name: str, library: str = "transformers") -> None:
        self._name, self._library = name, library

    def __enter__(self) -> None:
        """Begins the context."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises the plain error of a foreign exception; MechXAI's own errors and interrupts pass."""
        del kind, traceback
        if isinstance(error, Exception) and not isinstance(error, MechXAIError):
            raise plain_error(self._name, self._library, error) from error


def label(name: str) -> str:
    """The model's name and, where its config.json is at hand, its family: ``'mine' (GemmaForCausalLM)``."""
    path = _config_path(name)
    try:
        config = json.loads(path.read_text()) if path is not None else {}
        family = (config.get("architectures") or [config.get("model_type")])[0]
    except (OSError, ValueError, AttributeError, TypeError, IndexError):
        family = None
    return f"Model {name!r} ({family})" if family else f"Model {name!r}"


def _config_path(name: str) -> Path | None:
    """config.json of a folder, or of an id that was downloaded before; None where there is none."""
    if not name:
        return None
    if Path(name).exists():
        return Path(name) / "config.json" if Path(name).is_dir() else None
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - heavy
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415 - heavy

    try:
        path = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # the name is no id
        return None
    return Path(path) if isinstance(path, str) else None


def plain_error(name: str, library: str, error: Exception) -> MechXAIError:
    """The plain error of an exception that a library raised while the model ``name`` was loading."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    return (
        _no_space(name, error, text)
        or _unsupported(name, text)
        or _missing_package(name, error, text)
        or _missing_source(name, error, text)
        or _other(name, library, error=error, text=text)
    )


def _no_space(name: str, error: Exception, text: str) -> MechXAIError | None:
    if not (isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text):
        return None
    return NoSpaceError(
        f"{label(name)} cannot be loaded: the memory does not suffice ({_first_sentence(text)})",
        fix="Use a machine with more memory, or a smaller model",
    )


def _missing_package(name: str, error: Exception, text: str) -> MechXAIError | None:
    named = _PACKAGE.search(text)
    tokenizer = next((package for package in _TOKENIZER_PACKAGES if package in text), None)
    module = error.name.partition(".")[0] if isinstance(error, ImportError) and error.name else None
    package = module or (named.group(1).rstrip(".") if named else tokenizer)
    if package is None or not (isinstance(error, ImportError) or named or tokenizer):
        return None
    part = "its tokenizer needs" if package in _TOKENIZER_PACKAGES else "it needs"
    return ModelSupportError(
        f"{label(name)} cannot be loaded: {part} the package {package} ({_first_sentence(text)})",
        fix=f"Run: pip install {package}",
    )


def _unsupported(name: str, text: str) -> MechXAIError | None:
    if "trust_remote_code" in text or "custom code" in text:
        return ModelSupportError(
            f"{label(name)} cannot be loaded: it comes with Python code of its own, which MechXAI never runs",
            fix="Use a checkpoint whose architecture is part of transformers, or load it yourself and pass the "
            "TransformerBridge to mx.wrap",
        )
    unknown = re.search(r"model type `([^`]+)`|`model_type` of (\S+)", text)
    if unknown or "Unrecognized model in" in text or "Should have a `model_type` key" in text:
        kind = f"model_type {unknown.group(1) or unknown.group(2)!r}" if unknown else "config.json without model_type"
        return ModelSupportError(
            f"{label(name)} cannot be loaded: transformers {version('transformers')} does not know its {kind}",
            fix="Upgrade transformers, or correct model_type in config.json",
        )
    if "Unrecognized configuration class" in text:
        return ModelSupportError(
            f"{label(name)} cannot be loaded: transformers has no model of the wanted kind for this configuration",
            allowed="causal and masked language models (mx.load), classifiers (mx.load_classifier), encoders "
            "(mx.load_encoder)",
        )
    if "supported architecture" in text or "Unsupported architecture" in text:
        return ModelSupportError(
            f"{label(name)} cannot be loaded: TransformerLens {version('transformer_lens')} does not support this "
            "architecture",
            fix="Use mx.load_classifier or mx.load_encoder for attribution, or a newer transformer-lens",
        )
    return None


def _missing_source(name: str, error: Exception, text: str) -> MechXAIError | None:
    """A folder or a Hugging Face id that leads nowhere."""
    if (Path(name).exists() and name) or not isinstance(error, OSError | ValueError):
        return None
    if "does not appear to have a file named model.safetensors" in text:
        return ArtifactError(
            f"{label(name)} cannot be loaded: it has no weights in the safetensors format, the only one that is read",
            allowed=LOADABLE,
            fix=CONVERT,
        )
    if name and _config_path(name) is not None:  # the id is right: it is in the cache, and lacks a file
        return ArtifactError(
            f"{label(name)} cannot be loaded: not all of its files are in the cache ({_first_sentence(text)})",
            fix="Load it once with a network connection, which downloads the other files",
        )
    no_folder = name.startswith(_FOLDER_PREFIXES) and not Path(name).is_dir()
    reason = "there is no such folder" if no_folder else _first_sentence(text)
    return ArtifactError(
        f"Model {name!r} cannot be loaded: {reason}",
        allowed=LOADABLE,
        fix="Check the spelling, or the network for a Hugging Face id",
    )


def _other(name: str, library: str, *, error: Exception, text: str) -> MechXAIError:
    text = re.sub(r"^(Class v|V)alidation error for [^:]*: (\w+Error: )?", "", text)
    reason = text[:_LONGEST_REASON] or "no reason was given"
    if isinstance(error, KeyError):
        reason = f"{text!r} is unknown to it"
    kind = ArtifactError if isinstance(error, OSError) else ModelSupportError
    fixes = {
        "transformers": "Check config.json and the other files of the checkpoint: transformers refuses them too",
        "TransformerLens": "Load another model; for attribution alone, mx.black_box needs no access to the inside",
    }
    outside = "Use mx.black_box, which needs its outputs only"
    fix = (
        "Install the package that the message names" if isinstance(error, ImportError) else fixes.get(library, outside)
    )
    return kind(f"{label(name)} cannot be loaded: {library} stops with {type(error).__name__}: {reason}", fix=fix)


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0][:_LONGEST_REASON].rstrip(".") or "no reason was given"
