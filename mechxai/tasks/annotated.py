"""Parts of speech and dependencies of the grammars' sentences, word by word, in Universal Dependencies labels.

The sentences come from templates, so each template piece is annotated once. A word is written ``DET/det>1``: its part
of speech, its relation, and its head: a number of words to the right (``>``) or left (``<``), the first word with a
relation (``^root``), or no word of the text (``*``, also for punctuation, whose head carries no information).
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from mechxai.core.errors import ConfigError
from mechxai.tasks import words
from mechxai.tasks.example import Example
from mechxai.tasks.grammars import GIVES, INTROS, MOVES


class Word(NamedTuple):
    """A word: part of speech, relation to its head, and the index of the head (None: not in the text)."""

    pos: str
    relation: str
    head: int | None


Annotation = tuple[Word, ...]
_WORD = re.compile(r"\w+|[^\w\s]")
_WRITTEN = re.compile(r"(?P<pos>[A-Z]+)/(?P<relation>[a-z]+)(?:(?P<side>[<>])(?P<steps>\d+)|\^(?P<of>[a-z]+)|\*)")


def _parsed(text: str) -> Annotation:
    """``"DET/det>1 NOUN/nsubj^root VERB/root*"`` as words."""
    pieces = text.split()
    matches = [match for match in (_WRITTEN.fullmatch(piece) for piece in pieces) if match]
    if len(matches) < len(pieces):
        raise ConfigError(
            f"The annotation {text!r} cannot be parsed", allowed="POS/relation and one of >1, <1, ^root, *"
        )
    relations = [match["relation"] for match in matches]
    return tuple(
        Word(match["pos"], match["relation"], _head(match, index, relations)) for index, match in enumerate(matches)
    )


def _head(match: re.Match[str], index: int, relations: Sequence[str]) -> int | None:
    if match["of"]:
        return relations.index(match["of"])
    return index + int(match["steps"]) * (1 if match["side"] == ">" else -1) if match["side"] else None


_PLACE = "ADP/case>2 DET/det>1 NOUN/obl"
_PIECES = {  # @ stands for the relation of the first clause's verb: advcl before a comma, root before a full stop
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
    steps = len(clause.split()) + 1 - at  # the root is the second word of `rest`
    return _parsed(f"{clause.replace('/@', '/' + verb.format(steps=steps)).replace('^@', '^' + first)} {rest}")


_IOI = {
    f"{intro} {{A}} and {{B}} {move}{stop} {give}": _ioi((intro, stop), move, give)
    for intro, stop in INTROS
    for move in MOVES
    for give in GIVES
}
_GREATER_THAN = _parsed(
    "DET/det>1 NOUN/nsubj>1 VERB/root* ADP/case>2 DET/det>1 NOUN/obl<3 NUM/nummod<1 "
    "ADP/case>2 DET/det>1 NOUN/obl<7 NUM/nummod<1"
)
_FACT_FRAMES = {  # before the subject, the subject, after the subject
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
AnnotatedGrammar = Literal["ioi", "greater_than", "sva", "facts"]
SOURCES: tuple[AnnotatedGrammar, ...] = get_args(AnnotatedGrammar)


def word_spans(text: str) -> list[tuple[int, int]]:
    """The character spans of words and punctuation marks."""
    return [match.span() for match in _WORD.finditer(text)]


def annotation(source: AnnotatedGrammar, example: Example) -> Annotation:
    """Part of speech, relation and head of every word of an example's clean text.

    Args:
        source: the grammar that drew the example.
        example: the example.
    """
    if source == "ioi":
        return _IOI[example.template]
    if source == "greater_than":
        return _GREATER_THAN
    if source == "facts":
        return _fact(example)
    return _parsed(" ".join(_agreement(example)))


def _fact(example: Example) -> Annotation:
    """The annotation of a fact; a name's first word is its head, and the heads of its other words are left open."""
    before, subject, after = _FACT_FRAMES[example.template]
    low, high = example.spans["SUBJECT"]
    more = f"{subject.partition('^')[0]}*"
    names = [subject, *[more] * (len(word_spans(example.clean[low:high])) - 1)]
    return _parsed(f"{before} {' '.join(names)} {after}")


def _agreement(example: Example) -> list[str]:
    """``The old key near the cabinets``: a noun phrase, the subject its first noun."""
    low, high = example.spans["SUBJECT"]
    adjectives = len(example.clean[:low].split()) - 1
    pieces = [f"DET/det>{adjectives + 1}", *["ADJ/amod>1"] * adjectives, "NOUN/nsubj*"]
    rest = example.clean[high:].strip()
    while rest:
        preposition = next(text for text in words.PREPOSITIONS if rest.startswith(f"{text} "))
        _, _, *others = rest.removeprefix(preposition).split()
        pieces += [_PREPOSITIONS.get(preposition, "ADP/case>2"), "DET/det>1 NOUN/nmod^nsubj"]
        rest = " ".join(others)
    return pieces
