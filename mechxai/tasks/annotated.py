"""Parts of speech and dependencies of the grammars' sentences, word by word (Universal Dependencies' labels).

The sentences are made from templates, so their annotation is written once per piece and put together as they are. A
word is written ``DET/det>1``: its part of speech, its relation, and where the word it depends on stands: so many words
to the right (``>``) or left (``<``), at the first word of a relation (``^root``), or not in the text (``*``, also of
punctuation, whose place says nothing).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from mechxai.core.errors import ConfigError
from mechxai.tasks import words
from mechxai.tasks.example import Example
from mechxai.tasks.grammars import GIVES, INTROS, MOVES


class Word(NamedTuple):
    """One word of a sentence: part of speech, relation to its head, and which word that is (None: not in the text)."""

    pos: str
    relation: str
    head: int | None


Annotation = tuple[Word, ...]
_WORD = re.compile(r"\w+|[^\w\s]")
_WRITTEN = re.compile(r"(?P<pos>[A-Z]+)/(?P<relation>[a-z]+)(?:(?P<side>[<>])(?P<steps>\d+)|\^(?P<of>[a-z]+)|\*)")


def _read(text: str) -> Annotation:
    """``"DET/det>1 NOUN/nsubj^root VERB/root*"`` as words."""
    pieces = text.split()
    read = [one for one in (_WRITTEN.fullmatch(piece) for piece in pieces) if one]
    if len(read) < len(pieces):
        raise ConfigError(f"The annotation {text!r} was asked", allowed="POS/relation and one of >1, <1, ^root, *")
    relations = [one["relation"] for one in read]
    return tuple(Word(one["pos"], one["relation"], _head(one, at, relations)) for at, one in enumerate(read))


def _head(one: re.Match[str], at: int, relations: Sequence[str]) -> int | None:
    if one["of"]:
        return relations.index(one["of"])
    return at + int(one["steps"]) * (1 if one["side"] == ">" else -1) if one["side"] else None


_PLACE = "ADP/case>2 DET/det>1 NOUN/obl"
_PIECES = {  # @ is what the first clause's verb is: advcl before a comma, a root of its own before a full stop
    "When": "ADV/advmod^@",
    "While": "SCONJ/mark^@",
    "After": "SCONJ/mark^@",
    "Then,": "ADV/advmod^@ PUNCT/punct*",
    "Yesterday,": "NOUN/obl^@ PUNCT/punct*",
    "In the morning,": "ADP/case>2 DET/det>1 NOUN/obl^@ PUNCT/punct*",
    "Later that day,": "ADV/advmod>2 DET/det>1 NOUN/obl^@ PUNCT/punct*",
    "Last week,": "ADJ/amod>1 NOUN/obl^@ PUNCT/punct*",
    "went to the {PLACE}": f"VERB/@ {_PLACE}<3",
    "were working at the {PLACE}": f"AUX/aux>1 VERB/@ {_PLACE}<3",
    "had a lot of fun at the {PLACE}": f"VERB/@ DET/det>1 NOUN/obj<2 ADP/case>1 NOUN/nmod<2 {_PLACE}<7",
    "met near the {PLACE}": f"VERB/@ {_PLACE}<3",
    "got a {OBJECT1} at the {PLACE}": f"VERB/@ DET/det>1 NOUN/obj<2 {_PLACE}<5",
    "were thinking about going to the {PLACE}": f"AUX/aux>1 VERB/@ SCONJ/mark>1 VERB/advcl<2 {_PLACE}<3",
    "had a long argument at the {PLACE}": f"VERB/@ DET/det>2 ADJ/amod>1 NOUN/obj<3 {_PLACE}<6",
    "spent the day at the {PLACE}": f"VERB/@ DET/det>1 NOUN/obj<2 {_PLACE}<5",
}
_NAMES = "PROPN/nsubj^@ CCONJ/cc>1 PROPN/conj<2"
_GIVE = "PROPN/nsubj>1 VERB/root* DET/det>1 NOUN/obj<2 ADP/case*"
_TO_GIVE = "PROPN/nsubj>1 VERB/root* PART/mark>1 VERB/xcomp<2 DET/det>1 NOUN/obj<2 ADP/case*"


def _ioi(opening: tuple[str, str], move: str, give: str) -> Annotation:
    intro, stop = opening
    verb, first = ("advcl>{steps}", "advcl") if stop == "," else ("root*", "root")
    clause = f"{_PIECES[intro]} {_NAMES} {_PIECES[move]} PUNCT/punct*"
    rest = _TO_GIVE if " to give " in give else _GIVE
    at = next(number for number, piece in enumerate(clause.split()) if piece.endswith("/@"))
    steps = len(clause.split()) + 1 - at  # the root is the second word of the rest
    return _read(f"{clause.replace('/@', '/' + verb.format(steps=steps)).replace('^@', '^' + first)} {rest}")


_IOI = {
    f"{intro} {{A}} and {{B}} {move}{stop} {give}": _ioi((intro, stop), move, give)
    for intro, stop in INTROS
    for move in MOVES
    for give in GIVES
}
_GREATER_THAN = _read(
    "DET/det>1 NOUN/nsubj>1 VERB/root* ADP/case>2 DET/det>1 NOUN/obl<3 NUM/nummod<1 "
    "ADP/case>2 DET/det>1 NOUN/obl<7 NUM/nummod<1"
)
_FACT_FRAMES = {  # what stands around the subject
    "The capital of {SUBJECT} is": ("DET/det>1 NOUN/nsubj* ADP/case>1", "PROPN/nmod^nsubj", "AUX/cop*"),
    "{SUBJECT} has its capital in": ("", "PROPN/nsubj^root", "VERB/root* PRON/nmod>1 NOUN/obj<2 ADP/case*"),
    "The capital city of {SUBJECT} is called": (
        "DET/det>2 NOUN/compound>1 NOUN/nsubj^root ADP/case>1",
        "PROPN/nmod^nsubj",
        "AUX/aux>1 VERB/root*",
    ),
    "The {SUBJECT} is located in the city of": (
        "DET/det>1",
        "PROPN/nsubj^root",
        "AUX/aux>1 VERB/root* ADP/case>2 DET/det>1 NOUN/obl<3 ADP/case*",
    ),
    "You can visit the {SUBJECT} in": (
        "PRON/nsubj^root AUX/aux^root VERB/root* DET/det>1",
        "PROPN/obj^root",
        "ADP/case*",
    ),
    "The people of {SUBJECT} speak": ("DET/det>1 NOUN/nsubj^root ADP/case>1", "PROPN/nmod^nsubj", "VERB/root*"),
    "The main language of {SUBJECT} is": (
        "DET/det>2 ADJ/amod>1 NOUN/nsubj* ADP/case>1",
        "PROPN/nmod^nsubj",
        "AUX/cop*",
    ),
}
_PREPOSITIONS = {"next to": "ADV/case>3 ADP/fixed<1", "in front of": "ADP/case>4 NOUN/fixed<1 ADP/fixed<2"}
SOURCES = ("ioi", "greater_than", "sva", "facts")


def word_spans(text: str) -> list[tuple[int, int]]:
    """The characters of every word and every mark of punctuation."""
    return [match.span() for match in _WORD.finditer(text)]


def annotation(source: str, example: Example) -> Annotation:
    """Part of speech, relation and head of every word of an example's clean text.

    Args:
        source: the grammar it is of, one of `SOURCES`.
        example: what it drew.
    """
    if source == "ioi":
        return _IOI[example.template]
    if source == "greater_than":
        return _GREATER_THAN
    if source == "facts":
        return _fact(example)
    return _read(" ".join(_agreement(example)))


def _fact(example: Example) -> Annotation:
    """A name of several words has its first as head; which words its others depend on is left open."""
    before, subject, after = _FACT_FRAMES[example.template]
    low, high = example.spans["SUBJECT"]
    more = f"{subject.partition('^')[0]}*"
    names = [subject, *[more] * (len(word_spans(example.clean[low:high])) - 1)]
    return _read(f"{before} {' '.join(names)} {after}")


def _agreement(example: Example) -> list[str]:
    """``The old key near the cabinets``: a noun phrase, the subject its first noun."""
    low, high = example.spans["SUBJECT"]
    adjectives = len(example.clean[:low].split()) - 1
    found = [f"DET/det>{adjectives + 1}", *["ADJ/amod>1"] * adjectives, "NOUN/nsubj*"]
    rest = example.clean[high:].strip()
    while rest:
        preposition = next(one for one in words.PREPOSITIONS if rest.startswith(f"{one} "))
        _, _, *others = rest.removeprefix(preposition).split()
        found += [_PREPOSITIONS.get(preposition, "ADP/case>2"), "DET/det>1 NOUN/nmod^nsubj"]
        rest = " ".join(others)
    return found
