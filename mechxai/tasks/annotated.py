"""Parts of speech and dependency relations of the grammars' sentences, word by word (Universal Dependencies' labels).

The sentences are made from templates, so their annotation is written once per piece and put together as they are.
"""

import re

from mechxai.tasks import words
from mechxai.tasks.example import Example
from mechxai.tasks.grammars import GIVES, INTROS, MOVES

POS, RELATION = 0, 1
Annotation = tuple[tuple[str, str], ...]  # (part of speech, relation) per word
_WORD = re.compile(r"\w+|[^\w\s]")


def _read(text: str) -> Annotation:
    """``"VERB/root ADP/case"`` as pairs."""
    pairs = [piece.partition("/") for piece in text.split()]
    return tuple((pos, relation) for pos, _, relation in pairs)


_PIECES = {
    "When": "ADV/advmod",
    "While": "SCONJ/mark",
    "After": "SCONJ/mark",
    "Then,": "ADV/advmod PUNCT/punct",
    "Yesterday,": "NOUN/obl PUNCT/punct",
    "In the morning,": "ADP/case DET/det NOUN/obl PUNCT/punct",
    "Later that day,": "ADV/advmod DET/det NOUN/obl PUNCT/punct",
    "Last week,": "ADJ/amod NOUN/obl PUNCT/punct",
    "went to the {PLACE}": "VERB/advcl ADP/case DET/det NOUN/obl",
    "were working at the {PLACE}": "AUX/aux VERB/advcl ADP/case DET/det NOUN/obl",
    "had a lot of fun at the {PLACE}": "VERB/advcl DET/det NOUN/obj ADP/case NOUN/nmod ADP/case DET/det NOUN/obl",
    "met near the {PLACE}": "VERB/advcl ADP/case DET/det NOUN/obl",
    "got a {OBJECT1} at the {PLACE}": "VERB/advcl DET/det NOUN/obj ADP/case DET/det NOUN/obl",
    "were thinking about going to the {PLACE}": "AUX/aux VERB/advcl SCONJ/mark VERB/advcl ADP/case DET/det NOUN/obl",
    "had a long argument at the {PLACE}": "VERB/advcl DET/det ADJ/amod NOUN/obj ADP/case DET/det NOUN/obl",
    "spent the day at the {PLACE}": "VERB/advcl DET/det NOUN/obj ADP/case DET/det NOUN/obl",
    "{S2} gave a {OBJECT} to": "PROPN/nsubj VERB/root DET/det NOUN/obj ADP/case",
    "{S2} decided to give a {OBJECT} to": "PROPN/nsubj VERB/root PART/mark VERB/xcomp DET/det NOUN/obj ADP/case",
    "{S2} handed the {OBJECT} to": "PROPN/nsubj VERB/root DET/det NOUN/obj ADP/case",
    "{S2} wanted to give the {OBJECT} to": "PROPN/nsubj VERB/root PART/mark VERB/xcomp DET/det NOUN/obj ADP/case",
    "{S2} passed a {OBJECT} to": "PROPN/nsubj VERB/root DET/det NOUN/obj ADP/case",
    "{S2} sent the {OBJECT} to": "PROPN/nsubj VERB/root DET/det NOUN/obj ADP/case",
}
_NAMES = "PROPN/nsubj CCONJ/cc PROPN/conj"
_IOI = {
    f"{intro} {{A}} and {{B}} {move}{stop} {give}": _read(
        f"{_PIECES[intro]} {_NAMES} {_PIECES[move]} PUNCT/punct {_PIECES[give]}"
    )
    for intro, stop in INTROS
    for move in MOVES
    for give in GIVES
}
_GREATER_THAN = _read(
    "DET/det NOUN/nsubj VERB/root ADP/case DET/det NOUN/obl NUM/nummod ADP/case DET/det NOUN/obl NUM/nummod"
)
_FACT_FRAMES = {  # what stands around the subject
    "The capital of {SUBJECT} is": ("DET/det NOUN/nsubj ADP/case", "PROPN/nmod", "AUX/cop"),
    "{SUBJECT} has its capital in": ("", "PROPN/nsubj", "VERB/root PRON/nmod NOUN/obj ADP/case"),
    "The capital city of {SUBJECT} is called": (
        "DET/det NOUN/compound NOUN/nsubj ADP/case",
        "PROPN/nmod",
        "AUX/aux VERB/root",
    ),
    "The {SUBJECT} is located in the city of": (
        "DET/det",
        "PROPN/nsubj",
        "AUX/aux VERB/root ADP/case DET/det NOUN/obl ADP/case",
    ),
    "You can visit the {SUBJECT} in": ("PRON/nsubj AUX/aux VERB/root DET/det", "PROPN/obj", "ADP/case"),
    "The people of {SUBJECT} speak": ("DET/det NOUN/nsubj ADP/case", "PROPN/nmod", "VERB/root"),
    "The main language of {SUBJECT} is": ("DET/det ADJ/amod NOUN/nsubj ADP/case", "PROPN/nmod", "AUX/cop"),
}
_PREPOSITIONS = {"next to": "ADV/case ADP/fixed", "in front of": "ADP/case NOUN/fixed ADP/fixed"}
SOURCES = ("ioi", "greater_than", "sva", "facts")


def word_spans(text: str) -> list[tuple[int, int]]:
    """The characters of every word and every mark of punctuation."""
    return [match.span() for match in _WORD.finditer(text)]


def annotation(source: str, example: Example) -> Annotation:
    """Part of speech and relation of every word of an example's clean text.

    Args:
        source: the grammar it is of, one of `SOURCES`.
        example: what it drew.
    """
    if source == "ioi":
        return _IOI[example.template]
    if source == "greater_than":
        return _GREATER_THAN
    if source == "facts":
        before, subject, after = _FACT_FRAMES[example.template]
        low, high = example.spans["SUBJECT"]
        names = " ".join([subject] * len(word_spans(example.clean[low:high])))
        return _read(f"{before} {names} {after}")
    return _read(" ".join(_agreement(example)))


def _agreement(example: Example) -> list[str]:
    """``The old key near the cabinets``: a noun phrase, the subject its first noun."""
    low, high = example.spans["SUBJECT"]
    found = ["DET/det", *["ADJ/amod"] * (len(example.clean[:low].split()) - 1), "NOUN/nsubj"]
    rest = example.clean[high:].strip()
    while rest:
        preposition = next(one for one in words.PREPOSITIONS if rest.startswith(f"{one} "))
        _, _, *others = rest.removeprefix(preposition).split()
        found += [_PREPOSITIONS.get(preposition, "ADP/case"), "DET/det NOUN/nmod"]
        rest = " ".join(others)
    return found
