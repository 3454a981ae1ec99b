"""`load` and `wrap`: a `HookedModel` from a name, a folder, or an existing TransformerLens object."""

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from mechxai.core.errors import ArtifactError, ModelSupportError, check_choice
from mechxai.model.backends.base import Backend, BackendName, Processing, as_dtype
from mechxai.model.backends.bridge import BridgeBackend
from mechxai.model.backends.device import device_of, quiet_loading
from mechxai.model.backends.hooked_transformer import HookedTransformerBackend
from mechxai.model.backends.weight_hash import hash_parameters
from mechxai.model.checkpoint.errors import LoadingErrors
from mechxai.model.hooked_model import HookedModel
from mechxai.model.hugging_face import language_model
from mechxai.model.text import TextCodec
from mechxai.model.zoo import native
from mechxai.model.zoo.bundled import zoo_card, zoo_folder

_log = logging.getLogger("mechxai.model")


def load(  # noqa: PLR0913 - the public contract's form
    name: str,
    *,
    backend: BackendName = "auto",
    processing: Processing = "folded",
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

    Args:
        name: a bundled model (``zoo/ioi``; ``mechxai models`` lists them), a folder with ``config.json``, safetensors
            and a tokenizer, or a Hugging Face id.
        backend: ``hooked_transformer`` (TransformerLens' own implementation), ``bridge`` (TransformerLens' hooks on the
            Hugging Face model), or ``auto``: the first where it exists and knows the architecture.
        processing: ``folded`` (LayerNorm folded into the next weights, writing weights and unembedding centred; logits
            shift by a constant per position) or ``raw`` (the weights as they are).
        device: ``cpu``, ``cuda``, ``cuda:1`` ...; ``auto`` takes the first GPU if there is one.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``.
        revision: branch, tag or commit of a Hugging Face id.
        bos: put a beginning-of-sequence token before every text, where the tokenizer has one.

    Returns:
        The model, in evaluation mode.

    Raises:
        ArtifactError: no model has this name, or its folder is incomplete.
        ModelSupportError: the backend does not support this model; says which one does.
        ConfigError: an unknown backend, processing or device.
    """
    check_choice("backend", backend, get_args(BackendName))
    check_choice("processing", processing, get_args(Processing))
    torch_device = device_of(device)
    torch_dtype = as_dtype(dtype)
    folder = zoo_folder(name) if name.startswith("zoo/") else Path(name) if name and Path(name).is_dir() else None
    card = zoo_card(name) if name.startswith("zoo/") else {}
    label = name if folder is None or card else folder.name
    with quiet_loading(), LoadingErrors(name, "TransformerLens"):
        if folder is not None and native.is_native(folder):
            inner, digest = native.load(folder, backend, device=torch_device, dtype=torch_dtype)
            tokenizer = native.tokenizer(folder)
            codec = TextCodec(tokenizer, _bos(tokenizer, wanted=bos))
            return HookedModel(label, backend_of(inner), codec, "raw", torch_dtype, torch_device, digest, None, card)
        hf_model, tokenizer = language_model(folder or name, revision, name=name)
        digest = hash_parameters(hf_model)
        masked = type(hf_model).__name__.endswith("MaskedLM")
        wrapped = _backend(
            hf_model, tokenizer, backend=backend, processing=processing, device=torch_device, dtype=torch_dtype
        )
    codec = TextCodec(tokenizer, _bos(tokenizer, wanted=bos), masked)
    return HookedModel(label, wrapped, codec, processing, torch_dtype, torch_device, digest, revision, card)


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
    """Wraps an existing ``HookedTransformer`` or ``TransformerBridge``; the object itself is not changed.

    >>> model = mx.wrap(HookedTransformer.from_pretrained("gpt2"))

    Args:
        inner: the TransformerLens object.
        name: the name in results; the object's own by default.
        tokenizer: a Hugging Face tokenizer; the object's own by default. A model without one takes token ids only.
        bos: put a beginning-of-sequence token before every text, where the tokenizer has one.

    Raises:
        ModelSupportError: the object is neither of the two.
    """
    backend = backend_of(inner)
    tokenizer = tokenizer if tokenizer is not None else getattr(inner, "tokenizer", None)
    parameter = next(inner.parameters())
    folded = str(inner.cfg.normalization_type).endswith("Pre") or bool(getattr(inner, "compatibility_mode", False))
    masked = not backend.architecture().causal
    codec = TextCodec(tokenizer, _bos(tokenizer, wanted=bos), masked)
    label = name or str(getattr(inner.cfg, "model_name", None) or "wrapped")
    return HookedModel(
        label, backend, codec, "folded" if folded else "raw", parameter.dtype, parameter.device, hash_parameters(inner)
    )


def backend_of(inner: Any) -> Backend:
    """The backend of a TransformerLens object.

    Raises:
        ModelSupportError: the object is neither a ``HookedTransformer`` nor a ``TransformerBridge``.
    """
    kinds = [kind.__name__ for kind in type(inner).__mro__]
    if "HookedTransformer" in kinds:
        return HookedTransformerBackend(inner)
    if "TransformerBridge" in kinds:
        return BridgeBackend(inner)
    raise ModelSupportError(
        f"mx.wrap does not take a {type(inner).__name__}",
        allowed="HookedTransformer, TransformerBridge",
        fix="Pass a Hugging Face folder or id to mx.load",
    )


def _backend(
    hf_model: Any, tokenizer: Any, *, backend: str, processing: str, device: torch.device, dtype: torch.dtype
) -> Backend:
    if backend != "bridge":
        try:
            inner = _hooked_transformer(hf_model, tokenizer, processing=processing, device=device, dtype=dtype)
            inner.generation_config = hf_model.generation_config  # its ends of text
            return HookedTransformerBackend(inner)
        except ModelSupportError:
            if backend == "hooked_transformer":
                raise
    from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - heavy

    hf_model = hf_model.to(device=device, dtype=dtype)
    inner = TransformerBridge.boot_transformers(
        "local", hf_model=hf_model, tokenizer=tokenizer, device=device, dtype=dtype
    )
    if processing == "folded":
        inner.enable_compatibility_mode(disable_warnings=True)
    return BridgeBackend(inner.eval())


def _hooked_transformer(
    hf_model: Any, tokenizer: Any, *, processing: str, device: torch.device, dtype: torch.dtype
) -> Any:
    try:
        from transformer_lens import HookedTransformer, loading_from_pretrained  # noqa: PLC0415 - heavy
    except ImportError as error:
        raise ModelSupportError(
            "backend='hooked_transformer' is not available: TransformerLens 4 no longer has HookedTransformer",
            fix="Use backend='bridge', or install transformer-lens<4",
        ) from error
    family = type(hf_model).__name__
    config = hf_model.config.to_dict()
    config.setdefault("n_ctx", config.get("n_positions") or config.get("max_position_embeddings"))
    config["architectures"] = [family]
    folded = processing == "folded"
    # TransformerLens branches on the path of a folder, so it gets one whose name means nothing
    with tempfile.TemporaryDirectory(prefix="mx") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        try:
            cfg = loading_from_pretrained.get_pretrained_model_config(
                folder, hf_cfg=config, fold_ln=folded, device=str(device), dtype=dtype
            )
            state = loading_from_pretrained.get_pretrained_state_dict(folder, cfg, hf_model, dtype=dtype)
        except (NotImplementedError, ValueError, KeyError, AttributeError) as error:
            raise ModelSupportError(
                f"backend='hooked_transformer' does not support {family}: TransformerLens cannot convert it ({error})",
                fix="Use backend='bridge' or 'auto'",
            ) from error
    cfg.model_name = family
    cfg.d_mlp = config.get("n_inner") or cfg.d_mlp  # TransformerLens takes 4 * d_model for every GPT-2
    inner = HookedTransformer(cfg, tokenizer, move_to_device=False)
    layer_norm = cfg.normalization_type in ("LN", "LNPre")
    inner.load_and_process_state_dict(
        state,
        fold_ln=folded,
        center_writing_weights=folded and layer_norm,
        center_unembed=folded and not _softcapped(cfg),
        fold_value_biases=folded,
    )
    inner.to(device)
    return inner.to(dtype).eval()


def _softcapped(cfg: Any) -> bool:
    cap = getattr(cfg, "output_logits_soft_cap", None)
    return cap is not None and cap > 0


def _bos(tokenizer: Any, *, wanted: bool) -> int | None:
    return getattr(tokenizer, "bos_token_id", None) if wanted and tokenizer is not None else None
