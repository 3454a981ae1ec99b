"""Baselines: the embeddings that replace a deleted token.

No baseline is neutral, so every result records which one it used.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.methods.attribution._lib.adapters.protocol import AttributionModel, Embeddings
from mechxai.methods.attribution._lib.adapters.token_ids import needs_tokens
from mechxai.methods.attribution._lib.players import Players

Baseline = Literal["pad", "mask", "zero", "mean", "counterfactual", "blank"]
_TOKEN_IDS = {"pad": ("pad_token_id", "eos_token_id"), "mask": ("mask_token_id",)}  # of the tokenizer, first available


def baseline_embeddings(
    model: AttributionModel, batch: ContrastBatch, baseline: Baseline, *, embeddings: Embeddings, players: Players
) -> Embeddings:
    """The prompts with every player deleted; special tokens and padding keep their embeddings.

    Args:
        model: the model.
        batch: the prompts.
        baseline: ``pad``, the tokenizer's padding token (else its end-of-sequence token); ``mask``, its mask token;
            ``zero``, the zero vector; ``mean``, the mean embedding of the vocabulary; ``counterfactual``, the batch's
            corrupted prompts; ``blank``, the token of a space.
        embeddings: of the clean prompts.
        players: what can be deleted.

    Raises:
        ConfigError: an unknown baseline, a token that the tokenizer lacks, or a prompt without a counterfactual.
    """
    check_choice("baseline", baseline, get_args(Baseline))
    has_player = players.has_player(embeddings.device)[..., None]
    return torch.where(has_player, _replacements(model, batch, baseline, embeddings=embeddings), embeddings)


def _replacements(model: AttributionModel, batch: ContrastBatch, baseline: Baseline, *, embeddings: Tensor) -> Tensor:
    """The baseline's embedding at every position."""
    if baseline in ("zero", "mean") and getattr(model, "replaces_tokens", False):
        raise needs_tokens(model.architecture.family, f"a vector (baseline={baseline!r})")
    if baseline == "zero":
        return torch.zeros_like(embeddings)
    if baseline == "mean":
        return model.mean_embedding().to(embeddings).expand_as(embeddings)
    if baseline == "counterfactual":
        unchanged = batch.first_difference >= batch.lengths
        if bool(unchanged.any()):
            raise ConfigError(
                f"baseline='counterfactual': prompt {int(unchanged.nonzero()[0])} has no counterfactual, "
                "its corrupted prompt is the clean one",
                fix="Give corrupted prompts, or use pad, mean, zero or blank",
            )
        return model.embeddings(batch.corrupted)
    token = torch.tensor([[_baseline_token(model, baseline)]], device=embeddings.device)
    return model.embeddings(token).to(embeddings).expand_as(embeddings)


def _baseline_token(model: AttributionModel, baseline: Baseline) -> int:
    tokenizer = model.text.tokenizer
    if tokenizer is None:
        raise ConfigError(f"baseline={baseline!r} needs a tokenizer", fix="Use zero or mean")
    if baseline == "blank":
        return _blank_token(model)
    token_ids = [getattr(tokenizer, name, None) for name in _TOKEN_IDS[baseline]]
    for token_id in token_ids:
        if token_id is not None:
            return int(token_id)
    raise ConfigError(f"baseline={baseline!r}: the tokenizer has no such token", fix="Use zero, mean or blank")


def _blank_token(model: AttributionModel) -> int:
    ids = model.text.bare_ids(" ")
    if len(ids) != 1 or ids[0] == getattr(model.text.tokenizer, "unk_token_id", None):
        raise ConfigError(
            f"baseline='blank': a space is {len(ids)} tokens of this tokenizer, or unknown",
            fix="Use pad, zero or mean",
        )
    return int(ids[0])
