"""`load_classifier` and `load_encoder`: a `SequenceModel` from a folder or a Hugging Face id."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from mechxai.core.errors import ConfigError, ModelSupportError, check_choice
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.torch_modes import plain_torch
from mechxai.model.backends.base import as_dtype
from mechxai.model.backends.device import device_of, quiet_loading
from mechxai.model.backends.weight_hash import hash_parameters
from mechxai.model.checkpoint.errors import LoadingErrors
from mechxai.model.checkpoint.hugging_face import sequence_model
from mechxai.model.sequence.probe import FORWARD, probed_architecture
from mechxai.model.sequence.sequence_model import Pooling, SequenceModel, SimilarityHead, class_head, text_embeddings
from mechxai.model.text import TextCodec
from mechxai.model.zoo.bundled import zoo_card, zoo_folder

NOTHING = "nothing"  # the last output beside the references, always 0


def load_classifier(
    name: str, *, device: str = "auto", dtype: str = "float32", revision: str | None = None
) -> SequenceModel:
    """Loads a Hugging Face text classifier; attribution explains its classes.

    >>> model = mx.load_classifier("zoo/sentiment")

    Args:
        name: a bundled classifier (``zoo/sentiment``), a folder with ``config.json``, safetensors and a tokenizer, or
            a Hugging Face id.
        device: ``cpu``, ``cuda`` ...; ``auto`` takes the first GPU if there is one.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``float64``.
        revision: branch, tag or commit of a Hugging Face id.

    Raises:
        ArtifactError: no model has this name, or its folder is incomplete.
        ModelSupportError: the model has a single label (a regression).
    """
    inner, tokenizer = _loaded(name, "AutoModelForSequenceClassification", device, dtype=dtype, revision=revision)
    labels = [str(inner.config.id2label[number]) for number in range(inner.config.num_labels)]
    if len(labels) < 2:
        raise ModelSupportError(
            f"Classifier {name!r} has one label, {labels[0]!r}: it must have two or more",
            fix="Load a model that predicts a number with mx.load_encoder, or give it a head with two labels",
        )
    return _model(name, inner, tokenizer, tuple(labels), head=class_head, revision=revision)


def load_encoder(
    name: str,
    *,
    references: Sequence[str],
    pooling: Pooling = "mean",
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
) -> SequenceModel:
    """Loads a Hugging Face encoder; its outputs are the cosine similarities of a text to reference texts.

    >>> model = mx.load_encoder("sentence-transformers/all-MiniLM-L6-v2", references=["a happy review"])

    Args:
        name: a folder, or a Hugging Face id such as a ``sentence-transformers`` model.
        references: texts to compare with. A last output, ``nothing``, is always 0.
        pooling: ``mean`` over tokens, or the ``first`` token.
        device: as in `load_classifier`.
        dtype: as in `load_classifier`.
        revision: as in `load_classifier`.

    Raises:
        ConfigError: no references, or an empty one.
        ArtifactError: no model has this name, or its folder is incomplete.
    """
    check_choice("pooling", pooling, get_args(Pooling))
    texts = [text for text in references if text.strip()]
    if not texts or len(texts) < len(references):
        raise ConfigError(
            f"references is {list(references)}: it must hold texts", fix="Give one or more texts to compare with"
        )
    inner, tokenizer = _loaded(name, "AutoModel", device, dtype=dtype, revision=revision)
    encoder = _model(name, inner, tokenizer, (*texts, NOTHING), head=class_head, revision=revision)
    with plain_torch(), LoadingErrors(name, FORWARD), torch.no_grad():
        tokens = [encoder.embeddings(encoder.tokens(text)[0]) for text in texts]
        references_unit = torch.cat([text_embeddings(inner, row, pooling) for row in tokens])
    return _model(
        name, inner, tokenizer, (*texts, NOTHING), head=SimilarityHead(references_unit, pooling), revision=revision
    )


def _loaded(name: str, kind: str, device: str, *, dtype: str, revision: str | None) -> tuple[Any, Any]:
    torch_device, torch_dtype = device_of(device), as_dtype(dtype)
    folder = zoo_folder(name) if name.startswith("zoo/") else Path(name) if name and Path(name).is_dir() else None
    with plain_torch(), quiet_loading(), LoadingErrors(name):
        inner, tokenizer = sequence_model(folder or name, kind, dtype=torch_dtype, revision=revision, name=name)
    return inner.eval().requires_grad_(requires_grad=False).to(torch_device), tokenizer


def _model(  # noqa: PLR0917 - the parts of a loaded model
    name: str, inner: Any, tokenizer: Any, outputs: tuple[str, ...], *, head: Any, revision: str | None
) -> SequenceModel:
    label = Path(name).name if Path(name).is_dir() else name
    card = zoo_card(name) if name.startswith("zoo/") else {}
    codec = TextCodec(tokenizer, None, masked=True)
    digest = hash_parameters(inner)
    if isinstance(head, SimilarityHead):  # the references decide the outputs as much as the weights
        digest += f"-{Fingerprints()([head.pooling, *outputs])[:8]}"
    architecture = probed_architecture(inner, codec, name)
    return SequenceModel(label, inner, codec, outputs, head, architecture, digest, revision, card)
