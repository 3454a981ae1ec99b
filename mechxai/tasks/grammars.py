"""Grammars of the tasks: each draws one example from a random generator, independent of any model.

The bundled models are trained on the same functions with ``split="train"``; `mechxai.tasks.example.in_split` separates
training from held-out combinations of words.
"""

import random
from collections.abc import Callable
from typing import Literal

from mechxai.tasks import docstring_words, fact_tables, words
from mechxai.tasks.example import Example, Split, fill, in_split

Order = Literal["abba", "baba", "both"]
Corruption = Literal["swap", "abc"]
Relation = Literal["any", "capital", "landmark", "language"]

INTROS = (
    ("When", ","),
    ("While", ","),
    ("After", ","),
    ("Then,", "."),
    ("Yesterday,", "."),
    ("In the morning,", "."),
    ("Later that day,", "."),
    ("Last week,", "."),
)
MOVES = (
    "went to the {PLACE}",
    "were working at the {PLACE}",
    "had a lot of fun at the {PLACE}",
    "met near the {PLACE}",
    "got a {OBJECT1} at the {PLACE}",
    "were thinking about going to the {PLACE}",
    "had a long argument at the {PLACE}",
    "spent the day at the {PLACE}",
)
GIVES = (
    "{S2} gave a {OBJECT} to",
    "{S2} decided to give a {OBJECT} to",
    "{S2} handed the {OBJECT} to",
    "{S2} wanted to give the {OBJECT} to",
    "{S2} passed a {OBJECT} to",
    "{S2} sent the {OBJECT} to",
)
IOI_TEMPLATES = tuple(
    f"{intro} {{A}} and {{B}} {move}{stop} {give}" for intro, stop in INTROS for move in MOVES for give in GIVES
)


def ioi(
    rng: random.Random,
    split: Split = "all",
    *,
    order: Order = "both",
    corruption: Corruption = "swap",
    template: int | None = None,
) -> Example:
    """Indirect object identification (Wang et al. 2022, arXiv 2211.00593): the answer is the name that is not repeated.

    Args:
        rng: source of the draws.
        split: of names and templates.
        order: which name comes first.
        corruption: ``swap`` repeats the other name, so the answer flips; ``abc`` names a third person, so no name is
            repeated.
        template: index of a single template to use; the split then applies to the names only.
    """
    while True:
        io, subject, third = rng.sample(words.NAMES, 3)
        chosen = rng.choice(IOI_TEMPLATES) if template is None else IOI_TEMPLATES[template]
        if in_split(split, io, subject) and (template is not None or in_split(split, chosen)):
            break
    abba = rng.random() < 0.5 if order == "both" else order == "abba"
    names = {"A": io, "B": subject} if abba else {"A": subject, "B": io}
    rest = {
        "PLACE": rng.choice(words.PLACES),
        "OBJECT": rng.choice(words.OBJECTS),
        "OBJECT1": rng.choice(words.OBJECTS),
    }
    clean, spans = fill(chosen, {**names, **rest, "S2": subject})
    corrupted, _ = fill(chosen, {**names, **rest, "S2": io if corruption == "swap" else third})
    roles = {"IO": spans["A" if abba else "B"], "S1": spans["B" if abba else "A"], "S2": spans["S2"]}
    return Example(clean, corrupted, (f" {io}",), (f" {subject}",), roles, chosen)


def greater_than(rng: random.Random, split: Split = "all") -> Example:
    """Greater-than (Hanna et al. 2023, arXiv 2305.00586): the end year must exceed the start year.

    Every two-digit year above the start year is an answer, every other is wrong; the corrupted one starts in year 01.
    """
    while True:
        noun, century, year = rng.choice(words.EVENTS), rng.choice(words.CENTURIES), rng.randint(2, 97)
        if in_split(split, noun, str(century), str(year)):
            break
    template = "The {NOUN} lasted from the year {CENTURY}{YEAR} to the year {CENTURY2}"
    values = {"NOUN": noun, "CENTURY": str(century), "CENTURY2": str(century)}
    clean, spans = fill(template, {**values, "YEAR": f"{year:02d}"})
    corrupted, _ = fill(template, {**values, "YEAR": "01"})
    years = [f"{number:02d}" for number in range(100)]
    roles = {role: spans[role] for role in ("NOUN", "YEAR")}
    return Example(clean, corrupted, tuple(years[year + 1 :]), tuple(years[: year + 1]), roles, template)


def sva(rng: random.Random, split: Split = "all") -> Example:
    """Subject-verb agreement across an attractor ("The keys near the cabinet are").

    The corrupted prompt flips the subject's number.
    """
    while True:
        noun, attractor = rng.sample(words.NOUNS, 2)
        prepositions = [rng.choice(words.PREPOSITIONS) for _ in range(rng.choice((0, 1, 1, 2)))]
        if in_split(split, noun[0], *prepositions):
            break
    number = rng.randrange(2)
    phrase = "".join(f" {prep} the {rng.choice(attractor)}" for prep in prepositions)
    adjective = f"{rng.choice(words.ADJECTIVES)} " if rng.random() < 0.3 else ""
    template = f"The {adjective}{{SUBJECT}}{phrase}"
    verb = rng.choice(words.VERBS)
    clean, spans = fill(template, {"SUBJECT": noun[number]})
    corrupted, _ = fill(template, {"SUBJECT": noun[1 - number]})
    return Example(
        clean, corrupted, (f" {verb[number]}",), (f" {verb[1 - number]}",), spans, f"{len(prepositions)} attractors"
    )


def docstring(rng: random.Random, split: Split = "all") -> Example:
    """Docstring completion (Heimersheim & Janiak 2023): the next ``:param`` is the next argument of the function.

    The corrupted prompt has other arguments in the signature.
    """
    while True:
        n_args = rng.randint(3, 4)
        drawn = rng.sample(docstring_words.ARGUMENTS, 2 * n_args)
        args, others = drawn[:n_args], drawn[n_args:]
        if in_split(split, args[-2], args[-1]):
            break
    describe = [" ".join(rng.sample(docstring_words.DESCRIPTIONS, 2)) for _ in range(n_args)]
    head = (
        f"def {rng.choice(docstring_words.FUNCTIONS)}(self, " + ", ".join(f"{{ARG{i}}}" for i in range(n_args)) + "):\n"
    )
    lines = [f"    :param {args[i]}: {describe[i + 1]}\n" for i in range(n_args - 1)]
    template = head + f'    """{describe[0]}\n\n' + "".join(lines) + "    :param"
    clean, spans = fill(template, {f"ARG{i}": arg for i, arg in enumerate(args)})
    corrupted, _ = fill(template, {f"ARG{i}": arg for i, arg in enumerate(others)})
    roles = {"ANSWER_DEF": spans[f"ARG{n_args - 1}"], "PREVIOUS_DEF": spans[f"ARG{n_args - 2}"]}
    return Example(clean, corrupted, (f" {args[-1]}",), (f" {others[-1]}",), roles, f"{n_args} arguments")


FACTS = (
    ("The capital of {SUBJECT} is", fact_tables.CAPITALS),
    ("{SUBJECT} has its capital in", fact_tables.CAPITALS),
    ("The capital city of {SUBJECT} is called", fact_tables.CAPITALS),
    ("The {SUBJECT} is located in the city of", fact_tables.LANDMARKS),
    ("You can visit the {SUBJECT} in", fact_tables.LANDMARKS),
    ("The people of {SUBJECT} speak", fact_tables.LANGUAGES),
    ("The main language of {SUBJECT} is", fact_tables.LANGUAGES),
)


def facts(rng: random.Random, split: Split = "all", relation: Relation = "any") -> Example:
    """Simple facts ("The capital of France is Paris"); the corrupted prompt names a subject with another answer.

    Models recall facts from training, so no subject is held out.
    """
    del split
    tables = {"capital": fact_tables.CAPITALS, "landmark": fact_tables.LANDMARKS, "language": fact_tables.LANGUAGES}
    template, table = rng.choice([row for row in FACTS if relation == "any" or row[1] is tables[relation]])
    while True:
        subject, other = rng.sample(sorted(table), 2)
        if table[subject] != table[other] and len(subject.split()) == len(other.split()):
            break
    clean, spans = fill(template, {"SUBJECT": subject})
    corrupted, _ = fill(template, {"SUBJECT": other})
    return Example(clean, corrupted, (f" {table[subject]}",), (f" {table[other]}",), spans, template)


GRAMMARS: dict[str, Callable[..., Example]] = {
    "ioi": ioi,
    "greater_than": greater_than,
    "sva": sva,
    "docstring": docstring,
    "facts": facts,
}
