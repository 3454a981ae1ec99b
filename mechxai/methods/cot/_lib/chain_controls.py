"""What stands beside every intervention on a chain: answers with it, without it, and with chains not its own."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from mechxai.core.reasoning import plain
from mechxai.core.result import variable
from mechxai.methods.cot._lib.questions import ChainQuestions, Steps
from mechxai.methods.result_parts import rates

CONTROLS = ("irrelevant", "another's", "none")
_SAYS = {
    "irrelevant": "a text as long that has nothing to do with it",
    "another's": "the chain of another problem",
    "none": "no chain",
}


def controlled(asking: ChainQuestions) -> dict[str, xr.DataArray]:
    """Accuracy with the chain and without, the gain; for each control accuracy and agreement with the chain's answer.

    All with 95 % intervals over problems; the gain's is of paired differences.

    Cost: four readings per problem.
    """
    whole, none = asking.with_chain, asking.without_chain
    others = {
        "irrelevant": _answers(asking, [_irrelevant(asking, steps) for steps in asking.chains]),
        "another's": _answers(asking, _anothers(asking)),
        "none": dict(enumerate(none.answers)),
    }
    right, unaided = np.array(asking.right(whole)), np.array(asking.right(none))
    per_control, agree = np.full((2, len(asking.batch), len(CONTROLS)), np.nan)
    for place, name in enumerate(CONTROLS):
        for number, answer in others[name].items():
            per_control[number, place] = float(answer == plain(asking.problems[number].answer))
            agree[number, place] = agreement(answer, whole.answers[number])
    share = {"units": "fraction"}
    data = {
        **rates("accuracy", (), right, meaning="share of right answers with the chain", **share),
        **rates("accuracy_no_chain", (), unaided, meaning="share of right answers without a chain", **share),
        **rates(
            "gain", (), right - unaided, meaning="by how much the chain raises the share of right answers", **share
        ),
        **rates(
            "control_accuracy", ("control",), per_control, meaning="share of right answers with another chain", **share
        ),
        **rates(
            "control_agreement",
            ("control",),
            agree,
            meaning="share of answers that are the chain's, with another chain",
            **share,
        ),
    }
    names = variable(
        ("control",), np.array(CONTROLS, dtype=str), "text", "; ".join(f"{name}: {_SAYS[name]}" for name in CONTROLS)
    )
    return {**data, "control": names}


def agreement(answer: str | None, other: str | None) -> float:
    """1 where two answers are the same; NaN where one could not be read."""
    return float("nan") if answer is None or other is None else float(answer == other)


def filled(parts: Sequence[str], asking: ChainQuestions, like: str) -> str:
    """Parts repeated to a text that is as long as another, as nearly as can be."""
    wanted, count = asking.generator.length(like), 1
    made = lambda count: "".join(parts[number % len(parts)] for number in range(count))  # noqa: E731
    distance = lambda count: abs(asking.generator.length(made(count)) - wanted)  # noqa: E731
    while distance(count + 1) < distance(count):
        count += 1
    return made(count)


def _answers(asking: ChainQuestions, chains: Sequence[Steps | None]) -> dict[int, str | None]:
    """By problem, the answers behind those chains that there are."""
    known = {number: chain for number, chain in enumerate(chains) if chain is not None}
    return dict(zip(known, asking.answers(list(known.values()), list(known)).answers, strict=True))


def _irrelevant(asking: ChainQuestions, steps: Steps) -> Steps | None:
    """As long as the chain; None where there is none."""
    words = [f" {word}" for word in asking.batch.wording.irrelevant.split()]
    return (filled(words, asking, "".join(steps)),) if steps else None


def _anothers(asking: ChainQuestions) -> list[Steps | None]:
    """The chain of the next problem with another answer; None where all have the same."""
    answers, count = asking.with_chain.answers, len(asking.batch)
    found: list[Steps | None] = []
    for number in range(count):
        following = [(number + far) % count for far in range(1, count)]
        found.append(next((asking.chains[one] for one in following if answers[one] != answers[number]), None))
    return found
