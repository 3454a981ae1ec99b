"""From a folder or a Hugging Face id to a `SequenceModel`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mechxai.core.architecture import Architecture
from mechxai.core.errors import ArtifactError, ConfigError, ModelSupportError, check_choice
from mechxai.core.fingerprint import Fingerprints
from mechxai.model.backends.base import as_dtype
from mechxai.model.backends.device import device_of, quiet_loading
from mechxai.model.backends.weight_hash import hash_parameters
from mechxai.model.sequence.sequence_model import LikenessHead, SequenceModel, class_head, text_embeddings
from mechxai.model.text import TextCodec
from mechxai.model.zoo.bundled import zoo_card, zoo_folder

_POOLINGS = ("mean", "first")
NOTHING = "nothing"  # the output beside the references, always 0


def load_classifier(
    name: str, *, device: str = "auto", dtype: str = "float32", revision: str | None = None
) -> SequenceModel:
    """A Hugging Face text classifier, to be explained class by class.

    Args:
        name: a bundled classifier (``zoo/sentiment``), a folder with ``config.json``, safetensors and a tokenizer, or
            a Hugging Face id.
        device: ``cpu``, ``cuda`` ...; ``auto`` takes the first GPU if there is one.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``.
        revision: of a Hugging Face id.

    Raises:
        ArtifactError: nothing of that name is to be found.
        ModelSupportError: a model with one label, which has nothing to be told apart; or no classifier.
    """
    inner, tokenizer = _loaded(name, "AutoModelForSequenceClassification", device, dtype=dtype, revision=revision)
    labels = [str(inner.config.id2label[number]) for number in range(inner.config.num_labels)]
    if len(labels) < 2:
        raise ModelSupportError(
            f"Classifier {name!r} was asked",
            got=f"one label, {labels}",
            allowed="two labels or more",
            fix="a model that predicts a number can be explained as an encoder, or with a head of two labels",
        )
    return _model(name, inner, tokenizer, tuple(labels), head=class_head, revision=revision)


def load_encoder(
    name: str,
    *,
    references: Sequence[str],
    pooling: str = "mean",
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
) -> SequenceModel:
    """A Hugging Face encoder, its outputs the cosine similarity of a text to reference texts.

    Args:
        name: a folder, or a Hugging Face id (a ``sentence-transformers`` model is one).
        references: texts to compare with; ``nothing`` comes as one output more and is always 0.
        pooling: ``mean`` over tokens, or ``first`` token.
        device: as in `load_classifier`.
        dtype: likewise.
        revision: likewise.

    Raises:
        ConfigError: no references.
        ArtifactError: nothing of that name is to be found.
    """
    check_choice("pooling", pooling, _POOLINGS)
    texts = [text for text in references if text.strip()]
    if not texts or len(texts) < len(references):
        raise ConfigError(
            "An encoder was asked", got=f"references {list(references)}", fix="give texts to compare with"
        )
    inner, tokenizer = _loaded(name, "AutoModel", device, dtype=dtype, revision=revision)
    found = _model(name, inner, tokenizer, (*texts, NOTHING), head=class_head, revision=revision)
    with torch.no_grad():
        words = [found.embeddings(found.tokens(text)[0]) for text in texts]
        known = torch.cat([text_embeddings(inner, one, pooling) for one in words])
    return _model(name, inner, tokenizer, (*texts, NOTHING), head=LikenessHead(known, pooling), revision=revision)


def _loaded(name: str, kind: str, device: str, *, dtype: str, revision: str | None) -> tuple[Any, Any]:
    import transformers  # noqa: PLC0415 - heavy

    place, number = device_of(device), as_dtype(dtype)
    name = str(zoo_folder(name)) if name.startswith("zoo/") else name
    local = Path(name).is_dir()
    where: dict[str, Any] = {"revision": revision, "trust_remote_code": False, "local_files_only": local}
    safe = {"use_safetensors": True} if local else {}
    with quiet_loading():
        try:
            auto = getattr(transformers, kind)
            inner = auto.from_pretrained(name, dtype=number, attn_implementation="eager", **safe, **where)
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, **where)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"Model {name!r} was asked",
                got=str(error).splitlines()[0],
                allowed="a folder with config.json, *.safetensors and a tokenizer, or a Hugging Face id",
                fix="check the spelling, or the network for a Hugging Face id",
            ) from error
    return inner.eval().requires_grad_(requires_grad=False).to(place), tokenizer


def _model(  # noqa: PLR0917 - what was loaded
    name: str, inner: Any, tokenizer: Any, outputs: tuple[str, ...], *, head: Any, revision: str | None
) -> SequenceModel:
    label = Path(name).name if Path(name).is_dir() else name
    card = zoo_card(name) if name.startswith("zoo/") else {}
    codec = TextCodec(tokenizer, None, masked=True)
    digest = hash_parameters(inner)
    if isinstance(head, LikenessHead):  # what it is compared with decides as much as its weights
        digest += f"-{Fingerprints()([head.pooling, *outputs])[:8]}"
    return SequenceModel(label, inner, codec, outputs, head, _architecture(inner), digest, revision, card)


def _architecture(inner: Any) -> Architecture:
    config = inner.config
    heads = config.num_attention_heads
    return Architecture(
        family=type(inner).__name__,
        n_layers=config.num_hidden_layers,
        n_heads=heads,
        n_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        d_model=config.hidden_size,
        d_head=config.hidden_size // heads,
        d_mlp=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        d_vocab=config.vocab_size,
        n_ctx=config.max_position_embeddings,
        causal=_is_causal(inner),
    )


def _is_causal(inner: Any) -> bool:
    """Whether the first of two tokens cannot attend to the second; configs do not say it reliably."""
    tokens = torch.zeros(1, 2, dtype=torch.long, device=next(inner.parameters()).device)
    with torch.no_grad():
        attentions = inner.base_model(tokens, output_attentions=True).attentions
    return bool((attentions[0][..., 0, 1] == 0).all())
