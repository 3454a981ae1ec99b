"""Sentences with known dependencies: their cells of the attention pattern, and the control cells."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import AlignmentError, ConfigError
from mechxai.tasks import annotated
from mechxai.tasks.dependencies import dependencies


@pytest.fixture(scope="module")
def greater(zoo):
    return dependencies(zoo, 12, sources=["greater_than"])


def cells(known, which, relation, sentence):
    """``(dest, src)`` as token texts with their positions."""
    found = getattr(known, which)
    at = known.relations.index(relation)
    return {tuple(cell[2:].tolist()) for cell in found if cell[0] == at and cell[1] == sentence}


def test_cells_by_hand(zoo, greater):
    """<bos> The war lasted from the year 14 77 to the year 14: a year is two tokens, a pair's end is its last."""
    texts = [text.strip() for text in zoo.text.strings(greater.tokens[0].tolist())]
    assert [text for at, text in enumerate(texts) if at not in (2, 7, 8, 12)] == (
        ["<bos>", "The", "lasted", "from", "the", "year", "to", "the", "year"]
    )
    assert cells(greater, "related", "det", 0) == {(2, 1), (6, 5), (11, 10)}
    assert cells(greater, "related", "case", 0) == {(6, 4), (11, 9)}
    assert cells(greater, "related", "nsubj", 0) == {(3, 2)}
    assert cells(greater, "related", "obl", 0) == {(6, 3), (11, 3)}
    assert cells(greater, "related", "nummod", 0) == {(8, 6), (12, 11)}
    assert dict(zip(greater.relations, greater.pairs, strict=True)) == {
        "case": 24, "det": 36, "nsubj": 12, "nummod": 24, "obl": 24,
    }  # fmt: skip


def test_controls_are_as_far_back_from_words_outside_the_relation(greater):
    for at, relation in enumerate(greater.relations):
        related = greater.related[greater.related[:, 0] == at]
        control = greater.control[greater.control[:, 0] == at]
        assert len(control) == greater.controls * len(related)
        assert set((control[:, 2] - control[:, 3]).tolist()) == set((related[:, 2] - related[:, 3]).tolist()), relation
        ends = {tuple(cell) for cell in related[:, 1:3].tolist()}
        assert not ends & {tuple(cell) for cell in control[:, 1:3].tolist()}
        assert (control[:, 3] >= 1).all(), "the first position is where heads rest"


def test_words_at_the_start_of_the_text_are_no_earlier_words(zoo):
    """Without a beginning-of-sequence token the first word is the first position."""
    known = dependencies(zoo, 40)
    assert (known.related[:, 3] >= 1).all()
    assert set(known.relations) > {"det", "nsubj", "obj", "obl", "conj", "cc", "nmod", "amod"}
    assert all(count >= 10 for count in known.pairs)
    assert known.tokens.shape[0] == 40
    assert (known.related[:, 2] < known.lengths[known.related[:, 1]]).all()


def test_the_same_seed_gives_the_same(zoo, greater):
    again = dependencies(zoo, 12, sources=["greater_than"])
    assert torch.equal(again.control, greater.control)
    other = dependencies(zoo, 12, seed=1, sources=["greater_than"])
    assert not torch.equal(other.tokens, greater.tokens)


def test_refused_and_skipped(zoo):
    with pytest.raises(AlignmentError, match="a tokenizer that has the grammars' words"):
        dependencies(mx.load("zoo/induction", device="cpu"), 8)
    with pytest.raises(ConfigError, match="svaa"):
        dependencies(zoo, 8, sources=["svaa"])
    with pytest.raises(ConfigError, match="sources is empty"):
        dependencies(zoo, 8, sources=[])
    with pytest.raises(ConfigError, match="POS/relation"):
        annotated._parsed("DET/det>1 NOUN")
