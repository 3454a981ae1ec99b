"""Layers and heads that a method's fields name."""

from collections.abc import Sequence

from mechxai.core.errors import SiteError


def selected(axis: str, indices: Sequence[int], n: int) -> list[int]:
    """The layers or heads named by a field, ascending: all where none are named; negative ones count from the last.

    Args:
        axis: ``layer`` or ``head``, for the error.
        indices: from the field.
        n: how many the model has.

    Raises:
        SiteError: an index the model does not have.
    """
    wrong = [index for index in indices if not -n <= index < n]
    if wrong:
        raise SiteError(out_of_range(axis, wrong[0], n))
    return sorted({index % n for index in indices}) or list(range(n))


def out_of_range(axis: str, index: int, n: int) -> str:
    """The problem of an index the model does not have: ``Layer 7 is out of range: this model has 3 layers (0-2)``."""
    return f"{axis.capitalize()} {index} is out of range: this model has {n} {axis}{'' if n == 1 else 's'} (0-{n - 1})"
