"""Sentences with known dependencies between words, to test which dependencies an attention head follows."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mechxai.core.errors import AlignmentError
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks import annotated
from mechxai.tasks.drawn import Drawn, draw_labelled, in_turn

_FEWEST = 10  # pairs that a relation's score needs
_CONTROLS = 4  # per pair
Cells = Int[Tensor, "_ 4"]


@dataclass(frozen=True)
class Dependencies:
    """Pairs of words joined by a dependency, of which the later may attend to the earlier.

    Attributes:
        tokens: of the sentences, ``[sentence, pos]``, padded on the right.
        lengths: real tokens per sentence.
        relations: the dependency labels (Universal Dependencies).
        pairs: number of pairs per relation.
        related: the pairs' cells of the attention pattern, ``(relation, sentence, dest, src)``; ``dest`` is the later
            word's last token, and a pair has one cell per token of its earlier word.
        control: cells at the same distances from words without such a dependency on an earlier word.
        controls: number of ``control`` cells per ``related`` cell.
        skipped: grammars that do not fit the model's tokenizer, with the reasons.
    """

    tokens: Tokens
    lengths: PromptInts
    relations: tuple[str, ...]
    pairs: tuple[int, ...]
    related: Cells
    control: Cells
    controls: int = _CONTROLS
    skipped: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class _Pair:
    """A dependency: the later word's last token, and the earlier word's first and last tokens."""

    relation: str
    sentence: int
    dest: int
    first: int
    last: int

    def cells(self, sentence: int | None = None, dest: int | None = None) -> list[tuple[int, int, int]]:
        """``(sentence, dest, src)`` of the earlier word's tokens, or of tokens equally far before another word."""
        sentence = self.sentence if sentence is None else sentence
        end = self.dest if dest is None else dest
        return [(sentence, end, end - (self.dest - src)) for src in range(self.first, self.last + 1)]


def dependencies(
    model: HookedModel, n: int = 64, seed: int = 0, *, sources: Sequence[annotated.AnnotatedGrammar] = annotated.SOURCES
) -> Dependencies:
    """Sentences of the grammars that fit the model's tokenizer, with their dependencies.

    Dependencies on the first word of a text are left out, since idle heads attend there.

    Args:
        model: the model whose tokenizer is used.
        n: number of sentences, in equal shares per grammar.
        seed: of the draws.
        sources: the grammars: ioi, greater_than, sva, facts.

    Raises:
        AlignmentError: no grammar fits the tokenizer.
        ConfigError: an unknown source, or no source.
    """
    in_turn(sources)  # checks the sources
    drawn: list[Drawn] = []
    skipped: dict[str, str] = {}
    share = -(-n // len(sources))
    for source in sources:
        try:
            rows, _ = draw_labelled(model, "dependencies", in_turn([source]), n=share, seed=seed)
        except AlignmentError as error:
            skipped[source] = str(error)
        else:
            drawn += rows
    if not drawn:
        raise AlignmentError(
            f"No sentences with known dependencies fit {model.name}: {'; '.join(skipped.values())}",
            fix="Use a model with a tokenizer that has the grammars' words",
        )
    return replace(_paired(model, drawn, random.Random(seed)), skipped=skipped)


def _paired(model: HookedModel, drawn: Sequence[Drawn], rng: random.Random) -> Dependencies:
    pairs: dict[str, list[_Pair]] = {}
    ends: list[tuple[int, int]] = []  # sentence and last token of every word
    for number, row in enumerate(drawn):
        text = row.example.clean
        word_tokens = model.text.all_tokens_at(text, annotated.word_spans(text))
        ends += [(number, last) for _, last in word_tokens]
        for pair in _pairs(number, annotated.annotation(row.source, row.example), word_tokens):
            pairs.setdefault(pair.relation, []).append(pair)
    matched = {relation: _with_controls(group, ends, rng) for relation, group in sorted(pairs.items())}
    frequent = {relation: group for relation, group in matched.items() if len(group) >= _FEWEST}
    related = [
        [index, *cell] for index, group in enumerate(frequent.values()) for pair, _ in group for cell in pair.cells()
    ]
    control = [
        [index, *cell]
        for index, group in enumerate(frequent.values())
        for pair, others in group
        for other in others
        for cell in pair.cells(*other)
    ]
    rows = [torch.tensor(model.text.ids(row.example.clean)) for row in drawn]
    return Dependencies(
        pad_sequence(rows, batch_first=True).to(model.device),
        torch.tensor([len(row) for row in rows], device=model.device),
        tuple(frequent),
        tuple(len(group) for group in frequent.values()),
        torch.tensor(related, device=model.device).reshape(-1, 4),
        torch.tensor(control, device=model.device).reshape(-1, 4),
    )


def _with_controls(
    pairs: Sequence[_Pair], ends: Sequence[tuple[int, int]], rng: random.Random
) -> list[tuple[_Pair, list[tuple[int, int]]]]:
    """The pairs of a relation, each with random words outside such pairs that have enough tokens before them."""
    joined = {(pair.sentence, pair.dest) for pair in pairs}
    free = [end for end in ends if end not in joined]
    matched = []
    for pair in pairs:
        others = [(sentence, dest) for sentence, dest in free if dest > pair.dest - pair.first]
        if others:
            matched.append((pair, [rng.choice(others) for _ in range(_CONTROLS)]))
    return matched


def _pairs(sentence: int, words: annotated.Annotation, word_tokens: Sequence[tuple[int, int]]) -> list[_Pair]:
    pairs: list[_Pair] = []
    for number, word in enumerate(words):
        if word.head is None or word.relation == "punct":
            continue
        (first, last), (_, dest) = word_tokens[min(number, word.head)], word_tokens[max(number, word.head)]
        if first > 0:
            pairs.append(_Pair(word.relation, sentence, dest, first, last))
    return pairs
