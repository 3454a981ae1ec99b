"""Attention pattern scores of every head: on random tokens, on a task's prompts, and on sentences of known syntax."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.dependencies import Cells, Dependencies

_ROWS_AT_ONCE = 32
_FEWEST_QUERIES = 4  # per distance of `positional`
HeadScores = Float[Tensor, "layer head"]
# Attention from one role to another on the task's prompts, for batches with both roles.
ROLE_ATTENTION = {
    "duplicate_token": ("S2", "S1"),
    "s_inhibition": ("END", "S2"),
    "name_mover": ("END", "IO"),
}


@dataclass(frozen=True)
class Positional:
    """Attention at one fixed distance.

    Attributes:
        score: mean attention at the distance that a head attends to most.
        distance: that distance in tokens, 0 being the token itself.
    """

    score: HeadScores
    distance: Int[Tensor, "layer head"]


@dataclass(frozen=True)
class Syntactic:
    """Attention along the dependencies of sentences.

    Attributes:
        relations: labels of the dependency relations.
        related: mean attention from the later to the earlier word of a dependency.
        control: mean attention as far back from words that no such dependency joins to an earlier word.
    """

    relations: tuple[str, ...]
    related: Float[Tensor, "relation layer head"]
    control: Float[Tensor, "relation layer head"]


def repeated_scores(model: HookedModel, sequence: Int[Tensor, "row pos"]) -> dict[str, HeadScores]:
    """Previous-token, duplicate-token and induction attention on random sequences, each repeated once.

    Args:
        model: causal.
        sequence: random tokens, none twice in one row.

    Source: Olsson et al. 2022 (arXiv 2209.11895).
    """
    period = sequence.shape[1]
    tokens, start = _with_bos(model, torch.cat([sequence, sequence], 1))
    patterns = model.cache(tokens, ["pattern"]).stack("pattern").mean(1)  # [layer, head, dest, src]
    second = torch.arange(start + period, tokens.shape[1] - 1, device=patterns.device)
    later = torch.arange(
        start + 1, tokens.shape[1], device=patterns.device
    )  # the token before the first is <bos> or nothing
    return {
        "previous_token": patterns[:, :, later, later - 1].mean(-1),
        "duplicate_token": patterns[:, :, second, second - period].mean(-1),
        "induction": patterns[:, :, second, second - period + 1].mean(-1),
    }


def position_scores(model: HookedModel, sequence: Int[Tensor, "row pos"]) -> tuple[HeadScores, Positional]:
    """Attention to the first position, and at the fixed distance that each head attends to most.

    Args:
        model: causal.
        sequence: random tokens without repetition, so that attention can depend on position alone.

    Source: Voita et al. 2019 (arXiv 1905.09418), section 5.1, who count the strongest attention; here it is the mean.
    """
    tokens, _ = _with_bos(model, sequence)
    patterns = model.cache(tokens, ["pattern"]).stack("pattern").mean(1)  # [layer, head, dest, src]
    n_pos = tokens.shape[1]
    by_distance = torch.stack(
        [
            patterns.diagonal(-distance, -2, -1)[..., 1:].mean(-1)  # the first position as source is `first_token`
            for distance in range(max(1, n_pos - _FEWEST_QUERIES))
        ]
    )
    score, distance = by_distance.max(0)
    return patterns[:, :, 1:, 0].mean(-1), Positional(score, distance)


def random_tokens(model: HookedModel, *, rows: int, length: int, seed: int) -> Int[Tensor, "row pos"]:
    """Plain tokens of the vocabulary, none twice in a row, ``[row, pos]``; rows are shorter if the vocabulary is."""
    generator = torch.Generator().manual_seed(seed)
    pool = model.text.plain_ids(model.architecture.d_vocab)
    return torch.stack([pool[torch.randperm(len(pool), generator=generator)[:length]] for _ in range(rows)])


def role_scores(model: HookedModel, batch: ContrastBatch) -> dict[str, HeadScores]:
    """Attention from one role of the task's prompts to another, where the batch has both."""
    present = {name: ends for name, ends in ROLE_ATTENTION.items() if set(ends) <= set(batch.roles)}
    if not present:
        return {}
    a = model.architecture
    totals = {name: torch.zeros(a.n_layers, a.n_heads, device=model.device) for name in present}
    for _, sub_batch in batch.parts(_ROWS_AT_ONCE):
        patterns = model.cache(sub_batch.clean, ["pattern"], lengths=sub_batch.lengths).stack("pattern")
        prompts = torch.arange(len(sub_batch), device=patterns.device)
        for name, (dest, src) in present.items():
            attention = patterns[:, prompts, :, sub_batch.roles[dest], sub_batch.roles[src]]  # [batch, layer, head]
            totals[name] += attention.sum(0)
    return {name: total / len(batch) for name, total in totals.items()}


def syntax_scores(model: HookedModel, sentences: Dependencies) -> Syntactic:
    """Attention along every relation, and attention as far back where the relation does not hold.

    A head that attends one word back also attends from nouns to their determiners; but it does so from any word, which
    the control shows.

    Args:
        model: causal.
        sentences: sentences and their dependencies.

    Source: Clark et al. 2019 (arXiv 1906.04341), section 4.2, whose control is the best fixed distance.
    """
    shape = (len(sentences.relations), model.architecture.n_layers, model.architecture.n_heads)
    totals = {name: torch.zeros(shape, device=model.device) for name in ("related", "control")}
    for low in range(0, len(sentences.tokens), _ROWS_AT_ONCE):
        rows = slice(low, low + _ROWS_AT_ONCE)
        cache = model.cache(sentences.tokens[rows], ["pattern"], lengths=sentences.lengths[rows])
        patterns = cache.stack("pattern")
        for name, cells in (("related", sentences.related), ("control", sentences.control)):
            _add_attention(totals[name], patterns, cells, low=low)
    pairs = torch.tensor(sentences.pairs, device=model.device)[:, None, None]
    control = totals["control"] / (pairs * sentences.controls)
    return Syntactic(sentences.relations, totals["related"] / pairs, control)


def _add_attention(
    total: Float[Tensor, "relation layer head"],
    patterns: Float[Tensor, "layer row head dest src"],
    cells: Cells,
    *,
    low: int,
) -> None:
    """Adds the attention at the cells of the sentences from ``low`` on."""
    chunk = cells[(cells[:, 1] >= low) & (cells[:, 1] < low + patterns.shape[1])]
    relation, sentence, dest, src = chunk.unbind(1)
    total.index_add_(0, relation, patterns[:, sentence - low, :, dest, src].to(total.dtype))


def _with_bos(model: HookedModel, tokens: Int[Tensor, "row pos"]) -> tuple[Int[Tensor, "row pos_"], int]:
    """The tokens behind the beginning-of-sequence token if the model has one, and how many tokens were prepended."""
    if model.text.bos is None:
        return tokens.to(model.device), 0
    return torch.cat([torch.full((len(tokens), 1), model.text.bos), tokens], 1).to(model.device), 1
