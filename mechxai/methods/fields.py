"""Layers and heads that a method's fields name."""

from collections.abc import Sequence

from mechxai.core.errors import SiteError
from mechxai.core.errors import out_of_range as out_of_range


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
