"""Reviews whose label is known word by word: the writer's own adjective, turned round by a negation."""

import random
from collections import Counter
from dataclasses import replace

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import AlignmentError, ConfigError, check_choice
from mechxai.model.hooked_model import HookedModel
from mechxai.model.sequence.named_outputs import NamedOutputs
from mechxai.model.text import TextCodec
from mechxai.tasks.build import check_split
from mechxai.tasks.example import Example, fill, in_split

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
_NEGATED = ("yes", "no", "both")


def review(rng: random.Random, split: str = "all", *, negated: str = "both") -> Example:
    """One review: the label is that of the writer's own adjective (OPINION), or the other after a negation.

    Somebody else's adjective (OTHER) is drawn apart from it and counts for nothing, nor does a stress in place of the
    negation (MODIFIER holds either). Corrupted has an opposite adjective, so the label flips.
    """
    while True:
        good = rng.random() < 0.5
        opinion = rng.choice(GOOD if good else BAD)
        turned = negated == "yes" or (negated == "both" and rng.random() < 0.5)
        thing, other_thing = rng.sample(THINGS, 2)
        if in_split(split, opinion, thing):
            break
    values = {
        "OTHERS": rng.choice(OTHERS),
        "OTHER": rng.choice(GOOD + BAD),
        "THING": thing,
        "THING2": other_thing,
        "MODIFIER": rng.choice(NEGATIONS if turned else STRESSES),
        "OPINION": opinion,
    }
    template = rng.choice(TEMPLATES)
    if template.startswith("Whatever"):
        values["OTHERS"] = values["OTHERS"].lower()
    clean, spans = fill(template, values)
    corrupted, _ = fill(template, {**values, "OPINION": rng.choice(BAD if good else GOOD)})
    label = good != turned
    roles = {
        "NEGATION" if turned else "STRESS": spans["MODIFIER"],
        "OPINION": spans["OPINION"],
        "OTHER": spans["OTHER"],
    }
    return Example(clean, corrupted, (LABELS[label],), (LABELS[not label],), roles, template)


def reviews(
    model: HookedModel | NamedOutputs, n: int = 32, seed: int = 0, *, negated: str = "yes", split: str = "all"
) -> ContrastBatch:
    """Reviews for a classifier of sentiment; roles OPINION, OTHER, and NEGATION or STRESS.

    Args:
        model: a classifier with the labels negative and positive, in any case.
        n: reviews.
        seed: of the draw.
        negated: ``yes``: the opinion stands behind a negation, so that OPINION and NEGATION decide; ``no``: behind a
            stress, so that OPINION alone does; ``both`` (then only roles that all have are kept).
        split: ``all``, ``train`` or ``held_out``, by adjective and noun, as the bundled classifier knows them.

    Raises:
        ConfigError: no such labels.
        AlignmentError: words that the model's tokenizer does not have.
    """
    check_split("reviews", split)
    check_choice("negated", negated, _NEGATED)
    if n < 1:
        raise ConfigError(f"reviews: n={n} were asked", allowed="1 or more")
    if not isinstance(model, NamedOutputs):
        raise ConfigError(
            "reviews were asked for a language model", allowed="a classifier: mx.load_classifier('zoo/sentiment')"
        )
    named = {label.lower(): number for number, label in enumerate(model.outputs)}
    missing = [label for label in LABELS if label not in named]
    if missing:
        raise ConfigError(
            f"reviews were asked for {model.name}", got=f"labels {list(model.outputs)}", allowed=f"{list(LABELS)}"
        )
    rng, drawn, dropped = random.Random(f"reviews/{seed}"), list[Example](), Counter[str]()
    while len(drawn) < n:
        one = review(rng, split, negated=negated)
        reason = _misfit(model.text, one)
        if not reason:
            drawn.append(one)
            continue
        dropped[reason] += 1
        if dropped.total() > _TRIES_PER_REVIEW * n:
            raise AlignmentError(
                f"{n} reviews were asked for {model.name}",
                got=f"{len(drawn)} fit its tokenizer; dropped: {dict(dropped)}",
                fix="use mx.tasks.prompts with texts of your own",
            )
    batch = model.contrast(
        [one.clean for one in drawn],
        [one.corrupted for one in drawn],
        [named[one.answers[0]] for one in drawn],
        [named[one.wrong[0]] for one in drawn],
        roles=[one.spans for one in drawn],
    )
    info = {"name": "reviews", "n": n, "seed": seed, "negated": negated, "split": split, "dropped": dict(dropped)}
    return replace(batch, groups=tuple(one.template for one in drawn), info=info)


def _misfit(codec: TextCodec, one: Example) -> str | None:
    """Why a review does not fit a tokenizer, or None when it does."""
    clean, corrupted = codec.ids(one.clean), codec.ids(one.corrupted)
    if getattr(codec.tokenizer, "unk_token_id", None) in (*clean, *corrupted):
        return "a word outside the vocabulary"
    return None if len(clean) == len(corrupted) else "clean and corrupted differ in length"
