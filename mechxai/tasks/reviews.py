"""Reviews whose sentiment follows from two known words: the writer's adjective and an optional negation."""

import random
from collections import Counter
from dataclasses import replace
from typing import Literal, get_args

from mechxai.core.batch import ContrastBatch
from mechxai.core.counts import check_n
from mechxai.core.errors import AlignmentError, ConfigError, check_choice
from mechxai.model.hooked_model import HookedModel
from mechxai.model.sequence.named_outputs import NamedOutputs
from mechxai.model.text import TextCodec
from mechxai.tasks.example import Example, Split, fill, in_split

LABELS = ("negative", "positive")
GOOD = ("wonderful", "brilliant", "charming", "moving", "great", "clever", "superb", "funny")
BAD = ("dreadful", "boring", "clumsy", "tedious", "awful", "dull", "terrible", "weak")
NEGATIONS = ("not", "hardly", "never")
STRESSES = ("truly", "really", "simply")
THINGS = ("film", "plot", "cast", "music", "ending", "script", "play", "show", "novel", "story")
OTHERS = ("Critics", "Friends", "Others", "Neighbours")
TEMPLATES = (
    "{OTHERS} called the {THING2} {OTHER} , but I found the {THING} {MODIFIER} {OPINION} .",
    "I found the {THING} {MODIFIER} {OPINION} , although {OTHERS} called the {THING2} {OTHER} .",
    "The {THING} was {MODIFIER} {OPINION} to me , whatever {OTHERS} say of its {OTHER} {THING2} .",
    "Whatever {OTHERS} say of its {OTHER} {THING2} , to me the {THING} was {MODIFIER} {OPINION} .",
)
_TRIES_PER_REVIEW = 20
Negated = Literal["yes", "no", "both"]


def review(rng: random.Random, split: Split = "all", *, negated: Negated = "both") -> Example:
    """A review whose label is that of the writer's adjective (OPINION), flipped by a negation.

    Another person's adjective (OTHER) is drawn independently and has no effect, nor does a stress word in place of the
    negation (MODIFIER is either). The corrupted review has an opposite OPINION, so the label flips.
    """
    while True:
        good = rng.random() < 0.5
        opinion = rng.choice(GOOD if good else BAD)
        is_negated = negated == "yes" or (negated == "both" and rng.random() < 0.5)
        thing, other_thing = rng.sample(THINGS, 2)
        if in_split(split, opinion, thing):
            break
    values = {
        "OTHERS": rng.choice(OTHERS),
        "OTHER": rng.choice(GOOD + BAD),
        "THING": thing,
        "THING2": other_thing,
        "MODIFIER": rng.choice(NEGATIONS if is_negated else STRESSES),
        "OPINION": opinion,
    }
    template = rng.choice(TEMPLATES)
    if template.startswith("Whatever"):
        values["OTHERS"] = values["OTHERS"].lower()
    clean, spans = fill(template, values)
    corrupted, _ = fill(template, {**values, "OPINION": rng.choice(BAD if good else GOOD)})
    label = good != is_negated
    roles = {
        "NEGATION" if is_negated else "STRESS": spans["MODIFIER"],
        "OPINION": spans["OPINION"],
        "OTHER": spans["OTHER"],
    }
    return Example(clean, corrupted, (LABELS[label],), (LABELS[not label],), roles, template)


def reviews(
    model: HookedModel | NamedOutputs, n: int = 32, seed: int = 0, *, negated: Negated = "yes", split: Split = "all"
) -> ContrastBatch:
    """Reviews for a classifier of sentiment; roles OPINION, OTHER, and NEGATION or STRESS.

    Args:
        model: a classifier with the labels negative and positive, in any case.
        n: number of reviews.
        seed: of the draws.
        negated: ``yes``: the opinion follows a negation, so OPINION and NEGATION determine the label; ``no``: it
            follows a stress word, so OPINION alone does; ``both`` mixes them, and only roles that all reviews have
            remain.
        split: ``all``, ``train`` or ``held_out`` pairs of adjective and noun of the bundled classifier's training.

    Raises:
        ConfigError: the model is no classifier, or has other labels.
        AlignmentError: words outside the tokenizer's vocabulary.
    """
    check_choice("split", split, get_args(Split))
    check_choice("negated", negated, get_args(Negated))
    check_n("reviews", n)
    if not isinstance(model, NamedOutputs):
        raise ConfigError(
            "The reviews task needs a classifier, and the model is a language model",
            fix="Use a classifier: mx.load_classifier('zoo/sentiment')",
        )
    numbers = {label.lower(): number for number, label in enumerate(model.outputs)}
    missing = [label for label in LABELS if label not in numbers]
    if missing:
        raise ConfigError(
            f"The labels of {model.name} are {', '.join(model.outputs)}: the reviews task needs {' and '.join(LABELS)}"
        )
    rng, drawn, dropped = random.Random(f"reviews/{seed}"), list[Example](), Counter[str]()
    while len(drawn) < n:
        example = review(rng, split, negated=negated)
        reason = _misfit(model.text, example)
        if not reason:
            drawn.append(example)
            continue
        dropped[reason] += 1
        if dropped.total() > _TRIES_PER_REVIEW * n:
            raise AlignmentError(
                f"reviews: {len(drawn)} of {n} reviews fit the tokenizer of {model.name}; dropped: {dict(dropped)}",
                fix="Use mx.tasks.prompts with your own texts",
            )
    batch = model.contrast(
        [example.clean for example in drawn],
        [example.corrupted for example in drawn],
        [numbers[example.answers[0]] for example in drawn],
        [numbers[example.wrong[0]] for example in drawn],
        roles=[example.spans for example in drawn],
    )
    info = {"name": "reviews", "n": n, "seed": seed, "negated": negated, "split": split, "dropped": dict(dropped)}
    return replace(batch, groups=tuple(example.template for example in drawn), info=info)


def _misfit(codec: TextCodec, example: Example) -> str | None:
    """The reason why a review does not fit a tokenizer, or None."""
    clean, corrupted = codec.ids(example.clean), codec.ids(example.corrupted)
    if getattr(codec.tokenizer, "unk_token_id", None) in (*clean, *corrupted):
        return "a word outside the vocabulary"
    return None if len(clean) == len(corrupted) else "clean and corrupted differ in length"
