"""The target token of a lens at every position."""

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.engine.contrast import Run
from mechxai.model.hooked_model import HookedModel

Target = str | int


def targets_of(model: HookedModel, batch: ContrastBatch, target: Target, *, run: Run) -> Int[Tensor, "batch pos"]:
    """The target at every position, -1 where there is none.

    Args:
        model: the model, for its vocabulary.
        batch: the prompts.
        target: ``answer``, the first token of each prompt's answer, at every position; ``wrong``, the same for wrong
            answers; ``next``, the token that follows; or one token, as text (with its leading space) or id.
        run: the run whose tokens follow, for ``next``.

    Raises:
        ConfigError: a target that is not one token of the model.
    """
    tokens = batch.tokens(run)
    if target in ("answer", "wrong"):
        of_prompt = batch.answers if target == "answer" else batch.wrong
        return of_prompt[:, 0, :1].expand_as(tokens)
    if target == "next":
        following = torch.full_like(tokens, -1)
        following[:, :-1] = tokens[:, 1:]
        real = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[None] < batch.lengths[:, None]
        rows = torch.arange(len(batch), device=tokens.device)
        following = torch.where(real, following, -1)
        following[rows, batch.answer_pos] = batch.answers[:, 0, 0]
        return following
    return torch.full_like(tokens, token_id(model, target))


def token_id(model: HookedModel, token: Target) -> int:
    """The id of a token given as text or id.

    Raises:
        ConfigError: an id that the model lacks, or a text of several tokens.
    """
    n_tokens = model.architecture.d_vocab
    if isinstance(token, int):
        if not 0 <= token < n_tokens:
            raise ConfigError(f"Token {token} is not in the vocabulary", allowed=f"0 to {n_tokens - 1}")
        return token
    ids = model.text.bare_ids(token)
    if len(ids) != 1:
        raise ConfigError(
            f"{token!r} is {len(ids)} tokens: {list(model.text.strings(ids))}",
            fix="Give a text that is one token (with its leading space), a token id, or 'answer', 'wrong' or 'next'",
        )
    return ids[0]
