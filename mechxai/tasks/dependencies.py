"""Sentences in which it is known which earlier word each word depends on, or is the head of: what a head may follow."""

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

_FEWEST = 10  # pairs that a relation's score may rest on
_CONTROLS = 4  # per pair
Cells = Int[Tensor, "_ 4"]


@dataclass(frozen=True)
class Dependencies:
    """Pairs of words that a dependency joins, the later of which may attend to the earlier.

    Attributes:
        tokens: of the sentences, ``[sentence, pos]``, padded on the right.
        lengths: real tokens per sentence.
        relations: their labels (Universal Dependencies).
        pairs: how many pairs each has.
        related: cells of the attention pattern that the pairs are, ``(relation, sentence, dest, src)``; ``dest`` is the
            later word's last token, and a pair has one cell per token of its earlier word.
        control: the same distances back from words that no such dependency joins to an earlier one.
        controls: how many cells of ``control`` stand for one of ``related``.
        skipped: grammars that the model's tokenizer cannot take, and why.
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
    """A dependency in one sentence: the later word's last token, the earlier word's first and last."""

    relation: str
    sentence: int
    dest: int
    first: int
    last: int

    def cells(self, sentence: int | None = None, dest: int | None = None) -> list[tuple[int, int, int]]:
        """``(sentence, dest, src)`` of the earlier word's tokens, or as far back from another word's last token."""
        sentence = self.sentence if sentence is None else sentence
        end = self.dest if dest is None else dest
        return [(sentence, end, end - (self.dest - src)) for src in range(self.first, self.last + 1)]


def dependencies(
    model: HookedModel, n: int = 64, seed: int = 0, *, sources: Sequence[str] = annotated.SOURCES
) -> Dependencies:
    """Sentences of the grammars with their dependencies, as far as the model's tokenizer has their words.

    A word at the start of the text is left out as an earlier word, as every head rests there.

    Args:
        model: decides the tokens.
        n: sentences, the grammars' shares being equal.
        seed: of the draw.
        sources: ioi, greater_than, sva, facts.

    Raises:
        AlignmentError: no grammar fits the tokenizer.
        ConfigError: an unknown source, or none.
    """
    in_turn("dependencies", sources)  # refuses what is no source
    drawn: list[Drawn] = []
    skipped: dict[str, str] = {}
    share = -(-n // len(sources))
    for source in sources:
        try:
            found, _ = draw_labelled(model, "dependencies", in_turn("dependencies", [source]), n=share, seed=seed)
        except AlignmentError as error:
            skipped[source] = str(error)
        else:
            drawn += found
    if not drawn:
        raise AlignmentError(
            f"Sentences with known dependencies were asked for {model.name}",
            got="; ".join(skipped.values()),
            fix="use a model with a tokenizer that has the grammars' words",
        )
    return replace(_paired(model, drawn, random.Random(seed)), skipped=skipped)


def _paired(model: HookedModel, drawn: Sequence[Drawn], rng: random.Random) -> Dependencies:
    pairs: dict[str, list[_Pair]] = {}
    ends: list[tuple[int, int]] = []  # sentence and last token of every word
    for number, one in enumerate(drawn):
        text = one.example.clean
        places = model.text.all_tokens_at(text, annotated.word_spans(text))
        ends += [(number, last) for _, last in places]
        for pair in _pairs(number, annotated.annotation(one.source, one.example), places):
            pairs.setdefault(pair.relation, []).append(pair)
    matched = {relation: _matched(own, ends, rng) for relation, own in sorted(pairs.items())}
    kept = {relation: own for relation, own in matched.items() if len(own) >= _FEWEST}
    related = [[at, *cell] for at, own in enumerate(kept.values()) for pair, _ in own for cell in pair.cells()]
    control = [
        [at, *cell]
        for at, own in enumerate(kept.values())
        for pair, others in own
        for other in others
        for cell in pair.cells(*other)
    ]
    rows = [torch.tensor(model.text.ids(one.example.clean)) for one in drawn]
    return Dependencies(
        pad_sequence(rows, batch_first=True).to(model.device),
        torch.tensor([len(row) for row in rows], device=model.device),
        tuple(kept),
        tuple(len(own) for own in kept.values()),
        torch.tensor(related, device=model.device).reshape(-1, 4),
        torch.tensor(control, device=model.device).reshape(-1, 4),
    )


def _matched(
    pairs: Sequence[_Pair], ends: Sequence[tuple[int, int]], rng: random.Random
) -> list[tuple[_Pair, list[tuple[int, int]]]]:
    """The pairs of one relation, each with words that are in no such pair and have as many tokens before them."""
    joined = {(pair.sentence, pair.dest) for pair in pairs}
    free = [end for end in ends if end not in joined]
    found = []
    for pair in pairs:
        others = [(sentence, dest) for sentence, dest in free if dest > pair.dest - pair.first]
        if others:
            found.append((pair, [rng.choice(others) for _ in range(_CONTROLS)]))
    return found


def _pairs(sentence: int, words: annotated.Annotation, places: Sequence[tuple[int, int]]) -> list[_Pair]:
    found: list[_Pair] = []
    for number, word in enumerate(words):
        if word.head is None or word.relation == "punct":
            continue
        (first, last), (_, dest) = places[min(number, word.head)], places[max(number, word.head)]
        if first > 0:
            found.append(_Pair(word.relation, sentence, dest, first, last))
    return found
