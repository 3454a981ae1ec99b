"""The errors MechXAI raises on purpose.

Each class is also a standard-library kind, so ``except ValueError`` keeps working for those who do not know us.
"""

import difflib
from collections.abc import Iterable
from typing import cast

_LISTED = 8  # choices that are listed beside a suggestion


class MechXAIError(Exception):
    """Base of all MechXAI errors.

    The message is the problem, then what is allowed, then what to do.

    Args:
        problem: one sentence with the offending value in it.
        allowed: the accepted values, as a phrase or a list; shown as ``Allowed: ...``.
        fix: what to do, as an imperative sentence.
    """

    def __init__(self, problem: str, *, allowed: object = None, fix: str | None = None) -> None:
        self.problem, self.allowed, self.fix = problem, allowed, fix
        parts = [_sentence(problem)]
        if allowed is not None:
            parts.append(_sentence(f"Allowed: {_listing(allowed)}"))
        if fix is not None:
            parts.append(_sentence(fix))
        super().__init__(" ".join(parts))


class ConfigError(MechXAIError, ValueError):
    """A field or config key has a value that cannot be used."""


class SiteError(MechXAIError, LookupError):
    """A site, layer, head, position or neuron that the model or the batch does not have."""


class ShapeError(MechXAIError, ValueError):
    """A tensor whose shape does not fit."""


class AlignmentError(ShapeError):
    """Clean and corrupted prompts that do not line up token by token."""


class ModelSupportError(MechXAIError, NotImplementedError):
    """Something that this model or backend cannot do; the message names the way out."""


class NumericsError(MechXAIError, ArithmeticError):
    """NaN, infinity, or a denominator too close to zero."""


class ArtifactError(MechXAIError, OSError):
    """A file that is missing, damaged, or belongs to something else."""


class UnfinishedError(MechXAIError, RuntimeError):
    """This process has done its share of a sweep; the others' is still to come."""


class NoSpaceError(ArtifactError):
    """The disk or the memory budget does not suffice."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The closest choice as a question (``Did you mean 'z'?``); all choices where none is close or few exist."""
    known = sorted(str(choice) for choice in choices)
    matches = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    listed = f"Allowed: {', '.join(known)}."
    if not matches:
        return listed
    suggestion = f"Did you mean {matches[0]!r}?"
    return f"{suggestion} {listed}" if len(known) <= _LISTED else suggestion


def unknown(kind: str, name: object, choices: Iterable[str]) -> str:
    """The problem of a name that does not exist, with the nearest one: ``Unknown site 'zz'. Did you mean 'z'?``."""
    return f"Unknown {kind} {name!r}. {nearest(str(name), choices)}"


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuses a value that is not among the choices.

    Raises:
        ConfigError: names the closest choice.
    """
    known = tuple(choices)
    if value not in known:
        raise ConfigError(f"{name}={value!r} is not allowed. {nearest(str(value), known)}")


def out_of_range(axis: str, index: int, n: int) -> str:
    """The problem of an index the model does not have: ``Layer 7 is out of range: this model has 3 layers (0-2)``."""
    return f"{axis.capitalize()} {index} is out of range: this model has {n} {axis}{'' if n == 1 else 's'} (0-{n - 1})"


def _sentence(text: str) -> str:
    plain = text.rstrip()
    return plain if plain.endswith((".", "?", "!")) else f"{plain}."


def _listing(allowed: object) -> str:
    if isinstance(allowed, str):
        return allowed.rstrip(".")
    if isinstance(allowed, Iterable):
        return ", ".join(str(item) for item in cast("Iterable[object]", allowed))
    return str(allowed)
