"""Prompts for the comparison with Hugging Face: two short ones, and one beyond windows and rotary thresholds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mechxai.model.backends.config_lengths import config_entries, is_length, names_length
from mechxai.model.backends.memory import available_bytes

SHORT = (12, 7)  # tokens of the two short prompts, which are also the rows of the padded batch
_USUAL = 32  # tokens of the long prompt where the configuration names no length
_BEYOND = 8  # tokens of the long prompt beyond a window or threshold
_BUDGET = {"cpu": 4e10, "cuda": 5e13}  # parameters x tokens of the long prompt: a few seconds of one core, or of a GPU
_SCORES_SHARE = 0.1  # of the free memory, for one layer's attention scores
_SCORE_BYTES = 12  # per head and pair of positions: scores, mask and pattern in float32
_CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "max_seq_length",
    "n_ctx",
    "seq_length",
)
_FIXED_ROTARY = {"default", "linear", "llama3", "yarn"}
_EMBEDDING_NAMES = ("embed", "wte", "wpe", "lm_head", "word_emb")


@dataclass(frozen=True)
class ProbePrompts:
    """Token ids, and the lengths that they cover.

    Attributes:
        long: ``[1, pos]``.
        short: two rows, ``[1, pos]`` each, of the lengths `SHORT`.
        covered: the longest prompt for which the comparison holds: longer ones cross a window or threshold of the
            configuration that ``long`` does not reach. None where it reaches all.
    """

    long: Tensor
    short: tuple[Tensor, Tensor]
    covered: int | None

    @property
    def kept(self) -> Tensor:
        """The positions of ``long`` that are compared, ``[1, k]``: every one of a few, else some and the last ones."""
        width = self.long.shape[1]
        if width <= 2 * _USUAL:
            return torch.arange(width)[None]
        spread = torch.linspace(0, width - 1, 8).long().tolist()
        return torch.tensor(sorted({*spread, *range(width - _BEYOND - 2, width)}))[None]


def probe_prompts(hf_model: Any, tokenizer: Any, device: torch.device) -> ProbePrompts:
    """Random ordinary tokens, the same in every call; no special tokens.

    Args:
        hf_model: a Hugging Face language model.
        tokenizer: of the model, or None.
        device: where the passes will run; decides how long a prompt may be.
    """
    context = context_length(hf_model.config)
    longest = affordable_length(hf_model, device)
    thresholds = [length for length in named_lengths(hf_model.config) if context is None or length < context]
    reached = [length for length in thresholds if length + 1 <= longest]
    width = min([max([_USUAL, *(length + _BEYOND for length in reached)]), longest, context or longest])
    missed = sorted(switching_lengths(hf_model.config) & {length for length in thresholds if length >= width})
    ids = ordinary_ids(hf_model.config, tokenizer)
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: ids[torch.randint(len(ids), (1, n), generator=generator)]  # noqa: E731
    short = tuple(min(n, context or n) for n in SHORT)
    return ProbePrompts(draw(width), (draw(short[0]), draw(short[1])), missed[0] if missed else None)


def named_lengths(config: Any) -> list[int]:
    """The windows, chunks and thresholds that a configuration names anywhere, ascending."""
    return sorted({value for key, value in config_entries(config.to_dict()) if names_length(key) and is_length(value)})


def switching_lengths(config: Any) -> set[int]:
    """Those of `named_lengths` from which on a model computes differently.

    The original context of a fixed rotary scaling is none: every position is scaled.
    """
    entries = list(config_entries(config.to_dict()))
    kinds = {value for key, value in entries if key in ("rope_type", "type")}
    fixed = kinds <= _FIXED_ROTARY and not any(key.startswith("llama_4_scaling") for key, _ in entries)
    original = {value for key, value in entries if key == "original_max_position_embeddings"}
    return set(named_lengths(config)) - (original if fixed else set())


def context_length(config: Any) -> int | None:
    """The longest prompt that the model is made for, or None where its configuration has no such number."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    lengths = [getattr(text, name, None) for name in _CONTEXT_NAMES]
    return next((length for length in lengths if is_length(length)), None)


def affordable_length(hf_model: Any, device: torch.device) -> int:
    """The most tokens for which a pass costs a few seconds and a share of the free memory."""
    names = [(name, parameter) for name, parameter in hf_model.named_parameters()]
    weights = sum(p.numel() for name, p in names if not any(part in name for part in _EMBEDDING_NAMES))
    by_time = _BUDGET.get(device.type, _BUDGET["cpu"]) / max(weights, 1)
    text = hf_model.config.get_text_config() if hasattr(hf_model.config, "get_text_config") else hf_model.config
    n_heads = getattr(text, "num_attention_heads", None) or 16
    by_memory = (_SCORES_SHARE * available_bytes(device) / (_SCORE_BYTES * n_heads)) ** 0.5
    return max(SHORT[0], int(min(by_time, by_memory)))


def ordinary_ids(config: Any, tokenizer: Any) -> Tensor:
    """Token ids that are special neither to the tokenizer nor to the configuration, ``[token]``."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    special = set(getattr(tokenizer, "all_special_ids", None) or [])
    for source in (config, text):
        special |= _special_ids(source.to_dict())
    sizes = [text.vocab_size, *([len(tokenizer)] if tokenizer is not None else [])]
    ids = torch.tensor([token for token in range(min(sizes)) if token not in special])
    return ids if len(ids) else torch.arange(text.vocab_size)


def _special_ids(config: Mapping[str, Any]) -> set[int]:
    values = [value for key, value in config_entries(config) if key.endswith(("token_id", "token_index"))]
    listed = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
    return {entry for entry in listed if isinstance(entry, int)}
