"""Every error MechXAI raises: what was asked, what was got, what is allowed, what to do.

Each class is also a standard-library kind, so ``except ValueError`` keeps working for those who do not know us.
"""

import difflib
from collections.abc import Iterable
from typing import cast


class MechXAIError(Exception):
    """Base of all MechXAI errors; its message has up to four parts.

    Args:
        asked: what the caller asked for.
        got: what was found instead (shapes, names, values).
        allowed: what would have been accepted.
        fix: what to do now.
    """

    def __init__(self, asked: str, *, got: object = None, allowed: object = None, fix: str | None = None) -> None:
        parts = [asked.rstrip(".") + "."]
        if got is not None:
            parts.append(f"Got: {got}.")
        if allowed is not None:
            parts.append(f"Allowed: {_listing(allowed)}.")
        if fix is not None:
            parts.append(f"To fix: {fix.rstrip('.')}.")
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


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The closest allowed name as a phrase (``did you mean 'z'?``), or the full list when nothing is close."""
    choices = sorted(str(choice) for choice in allowed)
    matches = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}? All: {', '.join(choices)}" if matches else ", ".join(choices)


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuses a value that is none of those allowed.

    Raises:
        ConfigError: names the closest one.
    """
    choices = tuple(allowed)
    if value not in choices:
        raise ConfigError(f"{name}={value!r} was asked", allowed=nearest(value, choices))


def _listing(allowed: object) -> str:
    if isinstance(allowed, str):
        return allowed.rstrip(".")
    if isinstance(allowed, Iterable):
        return ", ".join(str(item) for item in cast("Iterable[object]", allowed))
    return str(allowed)
