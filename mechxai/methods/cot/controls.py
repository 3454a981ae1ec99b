"""What stands beside every intervention on a chain: answers with it, without it, and with chains not its own."""

import numpy as np
import xarray as xr

from mechxai.core.result import variable
from mechxai.methods.cot.asking import Asking, Steps
from mechxai.methods.record import bounded

CONTROLS = ("irrelevant", "another's", "none")
_SAYS = {
    "irrelevant": "as many words that have nothing to do with it",
    "another's": "the chain of another problem",
    "none": "no chain",
}


def controlled(asking: Asking) -> dict[str, xr.DataArray]:
    """Accuracy with the chain and without, the gain; for each control accuracy and agreement with the chain's answer.

    All with 95 % intervals over problems; the gain's is of paired differences.

    Cost: four readings per problem.
    """
    whole, none = asking.with_chain, asking.without_chain
    others = {
        "irrelevant": asking.answers([_irrelevant(asking, steps) for steps in asking.chains]),
        "another's": asking.answers(_anothers(asking)),
        "none": none,
    }
    right, unaided = np.array(asking.right(whole)), np.array(asking.right(none))
    per_control = np.array([asking.right(others[name]) for name in CONTROLS]).T
    agree = np.array(
        [
            [
                np.nan if answer is None else float(own == answer)
                for own, answer in zip(others[name].answers, whole.answers, strict=True)
            ]
            for name in CONTROLS
        ]
    ).T
    share = {"units": "fraction"}
    data = {
        **bounded("accuracy", (), right, meaning="share of right answers with the chain", **share),
        **bounded("accuracy_no_chain", (), unaided, meaning="share of right answers without a chain", **share),
        **bounded(
            "gain", (), right - unaided, meaning="by how much the chain raises the share of right answers", **share
        ),
        **bounded(
            "control_accuracy", ("control",), per_control, meaning="share of right answers with another chain", **share
        ),
        **bounded(
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


def _irrelevant(asking: Asking, steps: Steps) -> Steps:
    """As many words as the chain has."""
    count = sum(len(step.split()) for step in steps)
    words = asking.batch.wording.irrelevant.split()
    repeated = [words[number % len(words)] for number in range(count)]
    return (" " + " ".join(repeated),) if repeated else ()


def _anothers(asking: Asking) -> list[Steps]:
    """The chain of the next problem with another answer."""
    answers, count = asking.with_chain.answers, len(asking.batch)
    found: list[Steps] = []
    for number in range(count):
        following = [(number + far) % count for far in range(1, count)]
        found.append(next((asking.chains[one] for one in following if answers[one] != answers[number]), ()))
    return found
