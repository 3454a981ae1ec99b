"""Masked language models behind the bridge: the direction of attention, and the head before the unembedding."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

from mechxai.core.errors import ModelSupportError

_NOISE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the largest logit: what rounding alone changes
_HALF_NOISE = 5e-2


def is_causal(inner: Any) -> bool:
    """Whether attention is causal, from the Hugging Face configuration, confirmed by one forward pass.

    The pass has two rows of three tokens that differ in the last one: a causal model gives both the same logits at the
    first position. A masked model is bidirectional, unless its configuration says ``is_decoder``.

    Args:
        inner: a ``TransformerBridge``.

    Raises:
        ModelSupportError: a causal configuration, and the first position sees the last token.
    """
    causal = _declared_causal(inner)
    if causal and not inner.training and _sees_ahead(inner):
        raise ModelSupportError(
            f"{type(inner.original_model).__name__} attends to later tokens, but its configuration is that of a causal "
            "model",
            allowed="causal language models, and masked ones of the classes BertForMaskedLM and RobertaForMaskedLM",
            fix="Use mx.load_encoder to explain its embeddings",
        )
    return causal


def _declared_causal(inner: Any) -> bool:
    model = inner.original_model
    config = getattr(model, "config", None)
    masked = type(model).__name__.endswith(("ForMaskedLM", "ForPreTraining", "ForNextSentencePrediction"))
    return not masked or getattr(config, "is_decoder", False) is True


def _sees_ahead(inner: Any) -> bool:
    n_vocab = int(inner.cfg.d_vocab)
    rows = [[n_vocab // 2, n_vocab // 3, last] for last in (n_vocab // 4, n_vocab - 1)]
    tokens = torch.tensor(rows, device=next(inner.parameters()).device)
    with torch.no_grad():
        first, second = inner(tokens, return_type="logits", prepend_bos=False)[:, 0].double()
    noise = _NOISE.get(next(inner.parameters()).dtype, _HALF_NOISE)
    return bool((first - second).abs().max() > noise * first.abs().max().clamp(min=1e-6))


def head_transform(inner: Any) -> Callable[[Tensor], Tensor] | None:
    """What a masked model computes between its last block and its unembedding: a layer, an activation, a norm.

    Returns:
        The function, or None for a model without such a head: its final norm comes next.

    Raises:
        ModelSupportError: a masked model whose head is of neither kind.
    """
    model = inner.original_model
    transform = getattr(getattr(getattr(model, "cls", None), "predictions", None), "transform", None)
    if transform is not None:
        return transform
    head = getattr(model, "lm_head", None)
    if head is not None and all(hasattr(head, part) for part in ("dense", "layer_norm")):
        return lambda residual: head.layer_norm(gelu(head.dense(residual)))
    if not _declared_causal(inner):
        raise ModelSupportError(
            f"The head of {type(model).__name__} is not known: no lens can read its residual stream",
            allowed="heads such as those of BertForMaskedLM and RobertaForMaskedLM",
        )
    return None
