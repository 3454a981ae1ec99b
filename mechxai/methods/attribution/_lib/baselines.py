"""What stands in place of a token that is taken away, by name; there is no neutral one, so each result says which."""

import torch
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.methods.attribution._lib.adapters.hooked import AttributionModel, Embeddings
from mechxai.methods.attribution._lib.players import Players

BASELINES = ("pad", "mask", "zero", "mean", "counterfactual", "blank")


def baseline_embeddings(
    subject: AttributionModel, batch: ContrastBatch, name: str, *, embeddings: Embeddings, players: Players
) -> Embeddings:
    """The prompts with every player taken away; special tokens and padding as they are.

    Args:
        subject: the model.
        batch: the prompts.
        name: ``pad``, the tokenizer's padding token (else its end-of-sequence token); ``mask``, its mask token;
            ``zero``, the zero vector; ``mean``, the mean embedding of the vocabulary; ``counterfactual``, the batch's
            corrupted prompts; ``blank``, the token of a space.
        embeddings: of the clean prompts.
        players: what can be taken away.

    Raises:
        ConfigError: another name, a token the tokenizer does not have, or no counterfactual in the batch.
    """
    check_choice("baseline", name, BASELINES)
    free = players.free(embeddings.device)[..., None]
    return torch.where(free, _all_away(subject, batch, name, embeddings=embeddings), embeddings)


def _all_away(subject: AttributionModel, batch: ContrastBatch, name: str, *, embeddings: Tensor) -> Tensor:
    if name == "zero":
        return torch.zeros_like(embeddings)
    if name == "mean":
        return subject.mean_embedding().to(embeddings).expand_as(embeddings)
    if name == "counterfactual":
        if bool((batch.first_difference >= batch.lengths).any()):
            row = int((batch.first_difference >= batch.lengths).nonzero()[0])
            raise ConfigError(
                "baseline='counterfactual' was asked",
                got=f"prompt {row} has none: its corrupted prompt is the clean one",
                fix="give corrupted prompts, or use pad, mean, zero or blank",
            )
        return subject.embeddings(batch.corrupted)
    token = torch.tensor([[_token(subject, name)]], device=embeddings.device)
    return subject.embeddings(token).to(embeddings).expand_as(embeddings)


def _token(subject: AttributionModel, name: str) -> int:
    tokenizer = subject.text.tokenizer
    if tokenizer is None:
        raise ConfigError(f"baseline={name!r} was asked", got="a model without tokenizer", fix="use zero or mean")
    if name == "blank":
        return _blank(subject)
    names = ("pad_token_id", "eos_token_id") if name == "pad" else ("mask_token_id",)
    found = [token for one in names if (token := getattr(tokenizer, one, None)) is not None]
    if not found:
        raise ConfigError(
            f"baseline={name!r} was asked", got="the tokenizer has no such token", fix="use zero, mean or blank"
        )
    return int(found[0])


def _blank(subject: AttributionModel) -> int:
    ids = subject.text.bare_ids(" ")
    if len(ids) != 1 or ids[0] == getattr(subject.text.tokenizer, "unk_token_id", None):
        raise ConfigError(
            "baseline='blank' was asked",
            got=f"a space is {len(ids)} tokens here, or unknown",
            fix="use pad, zero or mean",
        )
    return int(ids[0])
