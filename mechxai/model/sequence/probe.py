"""What a Hugging Face classifier or encoder is, found by running it: causal or not, and true to its embeddings.

Attribution replaces token embeddings. A model whose outputs for the embeddings of a text are not those for its tokens
(ESM scales by masked tokens, others embed characters or pages) is refused.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mechxai.core.architecture import Architecture
from mechxai.core.errors import ModelSupportError
from mechxai.model.backends.base import count_experts
from mechxai.model.checkpoint.errors import LoadingErrors, label
from mechxai.model.conversion.probe_prompts import context_length, ordinary_ids
from mechxai.model.text import TextCodec

_TEXT = "The keys are on the table."
_N_TOKENS = 12
_UNLIMITED = 1_000_000  # tokens, where neither positions nor configuration name a limit
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}  # of the largest output: rounding
_HALF_TOLERANCE = 5e-2
FORWARD = "its first forward pass"


def probed_architecture(inner: Any, codec: TextCodec, name: str) -> Architecture:
    """Sizes from the configuration, and causality from forward passes; checks that embeddings stand for tokens.

    Args:
        inner: a Hugging Face classifier or encoder.
        codec: its tokenizer.
        name: the model's name, for errors.

    Raises:
        ModelSupportError: the model does not run on token embeddings, or gives other outputs for them.

    Cost: five forward passes of a few tokens.
    """
    limit = _longest_text(inner)
    ids = ordinary_ids(inner.config, codec.tokenizer)
    generator = torch.Generator().manual_seed(0)
    tokens = ids[torch.randint(len(ids), (min(_N_TOKENS, limit),), generator=generator)].tolist()
    text = codec.ids(_TEXT)[:limit]
    with LoadingErrors(name, FORWARD), torch.no_grad():
        _set(inner.config, "use_cache", value=False)  # no text is continued
        n_vocab = inner.get_input_embeddings().weight.shape[0]
        for row in (tokens, text):
            if row and max(row) < n_vocab:
                _compare(inner, torch.tensor([row], device=inner.device), name)
        if inner.config.get_text_config().pad_token_id is None:
            _set(inner.config, "pad_token_id", value=0)  # unread, for rows have no padding; batches need one
        other = [tokens[0], *(next(int(id_) for id_ in ids if id_ != token) for token in tokens[1:2]), *tokens[2:]]
        causal = _is_causal(inner, torch.tensor([tokens, other], device=inner.device))
        return _sizes(inner, n_ctx=limit, causal=causal)


def _set(config: Any, setting: str, *, value: Any) -> None:
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        if hasattr(part, setting):
            setattr(part, setting, value)


def _longest_text(inner: Any) -> int:
    """The most tokens that the model has positions for; a learned table starts behind its padding row (RoBERTa)."""
    limits = [context_length(inner.config) or _UNLIMITED]
    for module_name, module in inner.named_modules():
        if module_name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            limits.append(module.num_embeddings - (-1 if module.padding_idx is None else module.padding_idx) - 1)
    return min(limits)


def _compare(inner: Any, tokens: Tensor, name: str) -> None:
    mask = torch.ones_like(tokens)
    embeddings = inner.get_input_embeddings()(tokens)
    expected = inner(input_ids=tokens, attention_mask=mask)[0].double()
    found = inner(inputs_embeds=embeddings, attention_mask=mask)[0].double()
    error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not error <= _TOLERANCE.get(inner.dtype, _HALF_TOLERANCE):
        raise ModelSupportError(
            f"{label(name)} cannot be loaded: its outputs for the embeddings of a text are not those for its tokens "
            f"(they differ by {error:.2g} of the largest)",
            fix="Use mx.black_box, which needs its outputs only",
        )


def _is_causal(inner: Any, tokens: Tensor) -> bool:
    """Whether the first position is the same in two rows that differ in the second token."""
    embeddings = inner.get_input_embeddings()(tokens)
    first, second = inner.base_model(inputs_embeds=embeddings, attention_mask=torch.ones_like(tokens))[0][:, 0].double()
    tolerance = _TOLERANCE.get(inner.dtype, _HALF_TOLERANCE)
    return bool((first - second).abs().max() <= tolerance * first.abs().max().clamp(min=1e-6))


def _sizes(inner: Any, *, n_ctx: int, causal: bool) -> Architecture:
    config = inner.config.get_text_config()
    embedding = inner.get_input_embeddings().weight
    n_heads = _number(config, "num_attention_heads", 0)
    d_model = _number(config, "hidden_size", embedding.shape[1])
    return Architecture(
        family=type(inner).__name__,
        n_layers=_number(config, "num_hidden_layers", 0),
        n_heads=n_heads,
        n_kv_heads=_number(config, "num_key_value_heads", n_heads),
        d_model=d_model,
        d_head=_number(config, "head_dim", d_model // n_heads if n_heads else 0),
        d_mlp=_number(config, "intermediate_size", 4 * d_model),
        d_vocab=embedding.shape[0],
        n_ctx=n_ctx,
        causal=causal,
        n_experts=count_experts(config),
    )


def _number(config: Any, size: str, default: int) -> int:
    """A size of the configuration, or the default where it has none, or one for each layer."""
    value = getattr(config, size, None)
    return value if isinstance(value, int) and value else default
