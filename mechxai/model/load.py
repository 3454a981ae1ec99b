"""From a zoo name, a Hugging Face id, a folder or an existing object to a `HookedModel`."""

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mechxai.core.errors import ArtifactError, ModelSupportError, check_choice
from mechxai.model.backends.base import Backend, as_dtype
from mechxai.model.backends.bridge import BridgeBackend
from mechxai.model.backends.device import device_of, quiet_loading
from mechxai.model.backends.hooked_transformer import HookedTransformerBackend
from mechxai.model.backends.weight_hash import hash_parameters
from mechxai.model.hooked_model import HookedModel
from mechxai.model.text import TextCodec
from mechxai.model.zoo import native
from mechxai.model.zoo.bundled import zoo_card, zoo_folder

_log = logging.getLogger("mechxai.model")
_BACKENDS = ("auto", "hooked_transformer", "bridge")
_PROCESSING = ("folded", "raw")
_PATHS = ("/", "./", "../", "~")  # such a name is of a folder, and of nothing on the hub
_SMALLEST_VOCABULARY = 10
_LOADABLE = (
    "a zoo name (see `mechxai models`), a folder with config.json, *.safetensors and a tokenizer, or a Hugging Face id"
)


def load(  # noqa: PLR0913 - the public contract's form
    name: str,
    *,
    backend: str = "auto",
    processing: str = "folded",
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    bos: bool = True,
) -> HookedModel:
    """A model by name, ready to be asked.

    Args:
        name: a bundled model (``zoo/ioi``; ``mechxai models`` lists them), a folder with ``config.json``, safetensors
            and a tokenizer, or a Hugging Face id.
        backend: ``hooked_transformer``, ``bridge``, or ``auto``: the first where it exists and knows the architecture.
        processing: ``folded`` (LayerNorm folded into the next weights, writing weights and unembedding centred; logits
            shift by a constant per position) or ``raw`` (the weights as they are).
        device: ``cpu``, ``cuda``, ``cuda:1`` ...; ``auto`` takes the first GPU if there is one.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``.
        revision: of a Hugging Face id.
        bos: put a beginning-of-sequence token before prompts, where the tokenizer has one.

    Raises:
        ArtifactError: nothing of that name is to be found.
        ModelSupportError: the backend cannot take this model; says which can.
        ConfigError: an unknown backend or processing.
    """
    check_choice("backend", backend, _BACKENDS)
    check_choice("processing", processing, _PROCESSING)
    place = device_of(device)
    kind = as_dtype(dtype)
    folder = zoo_folder(name) if name.startswith("zoo/") else Path(name) if name and Path(name).is_dir() else None
    card = zoo_card(name) if name.startswith("zoo/") else {}
    label = name if folder is None or card else folder.name
    with quiet_loading():
        if folder is not None and native.is_native(folder):
            inner, digest = native.load(folder, backend, device=place, dtype=kind)
            codec = TextCodec(native.tokenizer(folder), _bos(native.tokenizer(folder), wanted=bos))
            return HookedModel(label, backend_of(inner), codec, "raw", kind, place, digest, None, card)
        hf_model, tokenizer = _hugging_face(folder or name, revision, asked=name)
        digest = hash_parameters(hf_model)
        masked = type(hf_model).__name__.endswith("MaskedLM")
        made = _backend(hf_model, tokenizer, backend=backend, processing=processing, device=place, dtype=kind)
    codec = TextCodec(tokenizer, _bos(tokenizer, wanted=bos), masked)
    return HookedModel(label, made, codec, processing, kind, place, digest, revision, card)


def load_first(names: Sequence[str], **options: Any) -> HookedModel:
    """The first of several models that is to be had: the hub's where there is a network, else a bundled one.

    Args:
        names: as `load` takes them.
        **options: as `load`.

    Raises:
        ArtifactError: none of them is to be had; says why of the last.
    """
    for name in names[:-1]:
        try:
            return load(name, **options)
        except ArtifactError as error:
            _log.warning("%s is not to be had (%s); using the next of %s", name, error, list(names))
    return load(names[-1], **options)


def wrap(inner: Any, name: str | None = None, tokenizer: Any = None, *, bos: bool = True) -> HookedModel:
    """An existing ``HookedTransformer`` or ``TransformerBridge`` as a `HookedModel`; the object itself is not changed.

    Args:
        inner: the object.
        name: for results; its own name by default.
        tokenizer: a Hugging Face tokenizer; the object's own by default. Without any, give tokens instead of text.
        bos: put a beginning-of-sequence token before prompts, where the tokenizer has one.

    Raises:
        ModelSupportError: neither of the two.
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
        ModelSupportError: it is neither of the two.
    """
    kinds = [kind.__name__ for kind in type(inner).__mro__]
    if "HookedTransformer" in kinds:
        return HookedTransformerBackend(inner)
    if "TransformerBridge" in kinds:
        return BridgeBackend(inner)
    raise ModelSupportError(
        "mx.wrap was given an object",
        got=type(inner).__name__,
        allowed="HookedTransformer, TransformerBridge",
        fix="pass a Hugging Face folder or id to mx.load",
    )


def _hugging_face(source: str | Path, revision: str | None, *, asked: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer  # noqa: PLC0415 - heavy

    local = isinstance(source, Path)
    where: dict[str, Any] = {"revision": revision, "trust_remote_code": False, "local_files_only": local}
    try:
        config = AutoConfig.from_pretrained(source, **where)
        architectures = getattr(config, "architectures", None) or [""]
        _check_language_model(architectures[0], asked)
        auto = AutoModelForMaskedLM if "MaskedLM" in architectures[0] else AutoModelForCausalLM
        safe = {"use_safetensors": True} if local else {}
        model = auto.from_pretrained(source, dtype=torch.float32, attn_implementation="eager", **safe, **where).eval()
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"Model {asked!r} was asked",
            got="no such folder"
            if asked.startswith(_PATHS) and not Path(asked).is_dir()
            else str(error).splitlines()[0],
            allowed=_LOADABLE,
            fix="check the spelling, or the network for a Hugging Face id",
        ) from error
    _check_tokenizer(tokenizer, model, asked)
    return model, tokenizer


def _check_language_model(architecture: str, asked: str) -> None:
    if "SequenceClassification" in architecture:
        raise ModelSupportError(
            f"Model {asked!r} was asked as a language model",
            got=architecture,
            fix="use mx.load_classifier, which attribution takes like any model",
        )


def _backend(
    hf_model: Any, tokenizer: Any, *, backend: str, processing: str, device: torch.device, dtype: torch.dtype
) -> Backend:
    if backend != "bridge":
        try:
            inner = _hooked_transformer(hf_model, tokenizer, processing=processing, device=device, dtype=dtype)
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
            "backend='hooked_transformer' was asked",
            got="TransformerLens 4 no longer has it",
            fix="use backend='bridge', or install transformer-lens<4",
        ) from error
    family = type(hf_model).__name__
    config = hf_model.config.to_dict()
    config.setdefault("n_ctx", config.get("n_positions") or config.get("max_position_embeddings"))
    config["architectures"] = [family]
    folded = processing == "folded"
    # TransformerLens reads a folder's config and branches on its path, so the path says nothing.
    with tempfile.TemporaryDirectory(prefix="mx") as neutral:
        (Path(neutral) / "config.json").write_text(json.dumps(config))
        try:
            cfg = loading_from_pretrained.get_pretrained_model_config(
                neutral, hf_cfg=config, fold_ln=folded, device=str(device), dtype=dtype
            )
            state = loading_from_pretrained.get_pretrained_state_dict(neutral, cfg, hf_model, dtype=dtype)
        except (NotImplementedError, ValueError, KeyError, AttributeError) as error:
            raise ModelSupportError(
                f"backend='hooked_transformer' was asked for {family}",
                got=f"TransformerLens cannot convert it ({error})",
                fix="use backend='bridge' or 'auto'",
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


def _check_tokenizer(tokenizer: Any, model: Any, asked: str) -> None:
    """Refuses the tokenizer of one token that transformers makes up where a folder has none."""
    if len(tokenizer) * 2 < model.config.vocab_size and len(tokenizer) < _SMALLEST_VOCABULARY:
        raise ArtifactError(
            f"Model {asked!r} was asked",
            got=f"a tokenizer of {len(tokenizer)} tokens for a vocabulary of {model.config.vocab_size}",
            allowed=_LOADABLE,
            fix="put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside the weights",
        )
