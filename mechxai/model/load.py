"""`load` and `wrap`: a `HookedModel` from a name, a folder, or an existing TransformerLens object."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from mechxai.core.errors import ArtifactError, ModelSupportError, check_choice
from mechxai.core.exclusive import exclusive
from mechxai.core.torch_modes import plain_torch
from mechxai.model.backends.base import Backend, BackendName, as_dtype, modules
from mechxai.model.backends.bridge import BridgeBackend
from mechxai.model.backends.device import device_of, quiet_loading
from mechxai.model.backends.evaluating import check_not_compiled
from mechxai.model.backends.hooked_transformer import HookedTransformerBackend
from mechxai.model.backends.weight_hash import hash_parameters
from mechxai.model.checkpoint.errors import LoadingErrors
from mechxai.model.checkpoint.hugging_face import language_model
from mechxai.model.conversion.beginning import text_codec
from mechxai.model.conversion.selection import Checkpoint, ProcessingName, Wanted, select
from mechxai.model.hooked_model import HookedModel
from mechxai.model.zoo import native
from mechxai.model.zoo.bundled import zoo_card, zoo_folder

_log = logging.getLogger("mechxai.model")
_COVERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def load(  # noqa: PLR0913 - the public contract's form
    name: str,
    *,
    backend: BackendName = "auto",
    processing: ProcessingName = "auto",
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    bos: bool = True,
) -> HookedModel:
    """Loads a language model with hooks.

    >>> model = mx.load("zoo/ioi")                        # bundled, no download
    >>> model = mx.load("gpt2", device="cuda")            # Hugging Face id
    >>> model = mx.load("checkpoints/mine")               # local folder

    Nothing is printed, and no seed, default dtype or other global setting changes. Weights are read from safetensors
    only; code that comes with a model is never run.

    Before the model is returned, its log-probabilities on a few prompts are compared with those of Hugging Face's own
    model: on short prompts, on a padded batch, and on a prompt longer than the windows and rotary thresholds of the
    configuration, where that costs seconds. ``auto`` takes the first form of the model that is equal and logs a warning
    when others differ. The comparison is in `HookedModel.comparison`, and in every result.

    Args:
        name: a bundled model (``zoo/ioi``; ``mechxai models`` lists them), a folder with ``config.json``, safetensors
            and a tokenizer, or a Hugging Face id.
        backend: ``hooked_transformer`` (TransformerLens' own implementation), ``bridge`` (TransformerLens' hooks on the
            Hugging Face model), or ``auto``: the first where it exists and equals Hugging Face's model.
        processing: ``folded`` (LayerNorm folded into the next weights, writing weights and unembedding centred; logits
            shift by a constant per position), ``raw`` (the weights as they are), or ``auto``: ``folded`` where that
            leaves the probabilities as they are, else ``raw``.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...; ``auto`` takes the first GPU if there is one.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``.
        revision: branch, tag or commit of a Hugging Face id.
        bos: put a beginning-of-sequence token before every text, where the tokenizer has one.

    Returns:
        The model, in evaluation mode.

    Raises:
        ArtifactError: no model has this name, or its folder is incomplete.
        ModelSupportError: the backend or processing does not support this model, or its log-probabilities differ from
            Hugging Face's; gives the difference, and says which one works.
        NumericsError: the logits are NaN or infinite in this dtype.
        ConfigError: an unknown backend, processing or device.
    """
    check_choice("backend", backend, get_args(BackendName))
    check_choice("processing", processing, get_args(ProcessingName))
    torch_device = device_of(device)
    torch_dtype = as_dtype(dtype)
    folder = zoo_folder(name) if name.startswith("zoo/") else Path(name) if name and Path(name).is_dir() else None
    card = zoo_card(name) if name.startswith("zoo/") else {}
    label = name if folder is None or card else folder.name
    with plain_torch(), quiet_loading(), LoadingErrors(name, "TransformerLens"):
        if folder is not None and native.is_native(folder):
            inner, digest = native.load(folder, backend, device=torch_device, dtype=torch_dtype)
            codec = text_codec(native.tokenizer(folder), bos=bos, masked=False)
            return HookedModel(label, backend_of(inner), codec, "raw", torch_dtype, torch_device, digest, None, card)
        hf_model, tokenizer = language_model(folder or name, revision, name=name)
        digest = hash_parameters(hf_model)
        masked = type(hf_model).__name__.endswith("MaskedLM")
        checkpoint = Checkpoint(hf_model, tokenizer, lambda: language_model(folder or name, revision, name=name)[0])
        del hf_model
        selected = select(checkpoint, Wanted(backend, processing, torch_device, torch_dtype))
    selected.log(name)
    codec = text_codec(tokenizer, bos=bos, masked=masked)
    return HookedModel(
        label,
        selected.backend,
        codec,
        selected.processing,
        torch_dtype,
        torch_device,
        digest,
        revision,
        card,
        selected.comparison,
    )


def load_first(names: Sequence[str], **options: Any) -> HookedModel:
    """The first of several models that can be loaded, such as a Hugging Face id with a bundled model as fallback.

    Args:
        names: as `load` takes them, the preferred one first.
        **options: as `load`.

    Raises:
        ArtifactError: none can be loaded; gives the reason for the last.
    """
    for name in names[:-1]:
        try:
            return load(name, **options)
        except ArtifactError as error:
            _log.warning("%s cannot be loaded (%s); trying the next of %s", name, error, list(names))
    return load(names[-1], **options)


def wrap(inner: Any, name: str | None = None, tokenizer: Any = None, *, bos: bool = True) -> HookedModel:
    """Wraps an existing ``HookedTransformer`` or ``TransformerBridge``; no call changes the object.

    >>> model = mx.wrap(HookedTransformer.from_pretrained("gpt2"))

    The object is not compared with Hugging Face's model, which is not at hand; `load` does so. TransformerLens sets
    ``bos_token = eos_token`` on a tokenizer without one; such a token is not put before texts.

    Args:
        inner: the TransformerLens object, or ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel`` of it:
            these are taken off, since hooks work on the object itself only.
        name: the name in results; the object's own by default.
        tokenizer: a Hugging Face tokenizer; the object's own by default. A model without one takes token ids only.
        bos: put a beginning-of-sequence token before every text, where the tokenizer has one.

    Raises:
        ModelSupportError: the object is neither of the two, a module inside it is compiled, or its weights were made
            under ``torch.inference_mode()``.
    """
    inner = _unwrapped(inner)
    with exclusive(_Inner(inner)):
        backend = backend_of(inner, borrowed=True)
        check_not_compiled(modules(backend))
    if any(parameter.is_inference() for parameter in inner.parameters()):
        raise ModelSupportError(
            "mx.wrap got weights that were made under torch.inference_mode(), so no gradient can pass them",
            fix="Make the model outside inference mode",
        )
    theirs = getattr(inner, "tokenizer", None)
    tokenizer = theirs if tokenizer is None else tokenizer
    parameter = next(inner.parameters())
    folded = str(inner.cfg.normalization_type).endswith("Pre") or bool(getattr(inner, "compatibility_mode", False))
    masked = not backend.architecture().causal
    codec = text_codec(tokenizer, bos=bos, masked=masked, changed=tokenizer is theirs)
    label = name or str(getattr(inner.cfg, "model_name", None) or "wrapped")
    return HookedModel(
        label, backend, codec, "folded" if folded else "raw", parameter.dtype, parameter.device, hash_parameters(inner)
    )


@dataclass(frozen=True)
class _Inner:
    """An object that no backend wraps yet, to lock it."""

    inner: Any


def _unwrapped(inner: Any) -> Any:
    """The module under ``torch.compile`` and data parallelism."""
    while (attribute := _COVERS.get(type(inner).__name__)) is not None:
        inner = getattr(inner, attribute)
    return inner


def backend_of(inner: Any, *, borrowed: bool = False) -> Backend:
    """The backend of a TransformerLens object.

    Args:
        inner: the object.
        borrowed: whether it is a user's, so that its weights keep their memory layout.

    Raises:
        ModelSupportError: the object is neither a ``HookedTransformer`` nor a ``TransformerBridge``.
    """
    kinds = [kind.__name__ for kind in type(inner).__mro__]
    if "HookedTransformer" in kinds:
        return HookedTransformerBackend(inner, borrowed)
    if "TransformerBridge" in kinds:
        return BridgeBackend(inner, borrowed)
    raise ModelSupportError(
        f"mx.wrap does not take a {type(inner).__name__}",
        allowed="HookedTransformer, TransformerBridge",
        fix="Pass a Hugging Face folder or id to mx.load",
    )
