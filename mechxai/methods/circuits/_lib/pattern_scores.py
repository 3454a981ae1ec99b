"""Where every head looks: on random tokens, on a task's own prompts, and on sentences whose syntax is known."""

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
# Attention from one role to another, on the task's own prompts; used where the batch has both roles.
ROLE_ATTENTION = {
    "duplicate_token": ("S2", "S1"),
    "s_inhibition": ("END", "S2"),
    "name_mover": ("END", "IO"),
}


@dataclass(frozen=True)
class Positional:
    """Attention to one fixed distance.

    Attributes:
        score: mean attention to the distance a head looks at most.
        distance: that distance in tokens, 0 being the token itself.
    """

    score: HeadScores
    distance: Int[Tensor, "layer head"]


@dataclass(frozen=True)
class Syntactic:
    """Attention along the dependencies of sentences.

    Attributes:
        relations: labels.
        related: mean attention from the later to the earlier word of a dependency.
        control: the same distance back, from words that no such dependency joins to an earlier one.
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
    tokens, start = _begun(model, torch.cat([sequence, sequence], 1))
    patterns = model.cache(tokens, ["pattern"]).stack("pattern").mean(1)  # [layer, head, dest, src]
    second = torch.arange(start + period, tokens.shape[1] - 1, device=patterns.device)
    later = torch.arange(start + 1, tokens.shape[1], device=patterns.device)  # the first's previous is <bos> or nothing
    return {
        "previous_token": patterns[:, :, later, later - 1].mean(-1),
        "duplicate_token": patterns[:, :, second, second - period].mean(-1),
        "induction": patterns[:, :, second, second - period + 1].mean(-1),
    }


def position_scores(model: HookedModel, sequence: Int[Tensor, "row pos"]) -> tuple[HeadScores, Positional]:
    """Attention to the first position, and to the fixed distance that each head looks at most.

    Args:
        model: causal.
        sequence: random tokens without repetition, so that nothing but position can be followed.

    Source: Voita et al. 2019 (arXiv 1905.09418), section 5.1, who count the strongest attention; here it is the mean.
    """
    tokens, _ = _begun(model, sequence)
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
    """Plain tokens of the vocabulary, none twice in one row; fewer than asked where the vocabulary has no more."""
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
    for _, part in batch.parts(_ROWS_AT_ONCE):
        patterns = model.cache(part.clean, ["pattern"], lengths=part.lengths).stack("pattern")
        every = torch.arange(len(part), device=patterns.device)
        for name, (dest, src) in present.items():
            attention = patterns[:, every, :, part.roles[dest], part.roles[src]]  # [batch, layer, head]
            totals[name] += attention.sum(0)
    return {name: total / len(batch) for name, total in totals.items()}


def syntax_scores(model: HookedModel, known: Dependencies) -> Syntactic:
    """Attention along every relation, and what the same head pays as far back where the relation does not hold.

    A head that looks one word back follows determiners to nouns as well; it does so from any word, which the control
    shows.

    Args:
        model: causal.
        known: sentences and their dependencies.

    Source: Clark et al. 2019 (arXiv 1906.04341), section 4.2, whose control is the best fixed distance.
    """
    shape = (len(known.relations), model.architecture.n_layers, model.architecture.n_heads)
    found = {name: torch.zeros(shape, device=model.device) for name in ("related", "control")}
    for low in range(0, len(known.tokens), _ROWS_AT_ONCE):
        rows = slice(low, low + _ROWS_AT_ONCE)
        patterns = model.cache(known.tokens[rows], ["pattern"], lengths=known.lengths[rows]).stack("pattern")
        for name, cells in (("related", known.related), ("control", known.control)):
            _add_attention(found[name], patterns, cells, low=low)
    pairs = torch.tensor(known.pairs, device=model.device)[:, None, None]
    return Syntactic(known.relations, found["related"] / pairs, found["control"] / (pairs * known.controls))


def _add_attention(
    total: Float[Tensor, "relation layer head"],
    patterns: Float[Tensor, "layer row head dest src"],
    cells: Cells,
    *,
    low: int,
) -> None:
    """Adds the attention at the cells of the sentences from ``low`` on."""
    here = cells[(cells[:, 1] >= low) & (cells[:, 1] < low + patterns.shape[1])]
    relation, sentence, dest, src = here.unbind(1)
    total.index_add_(0, relation, patterns[:, sentence - low, :, dest, src].to(total.dtype))


def _begun(model: HookedModel, tokens: Int[Tensor, "row pos"]) -> tuple[Int[Tensor, "row pos_"], int]:
    """The tokens behind the beginning-of-sequence token where the model has one, and how many stand before them."""
    if model.text.bos is None:
        return tokens.to(model.device), 0
    return torch.cat([torch.full((len(tokens), 1), model.text.bos), tokens], 1).to(model.device), 1
