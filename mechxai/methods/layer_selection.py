"""Layers and heads chosen by a method's fields."""

from collections.abc import Sequence

from mechxai.core.errors import SiteError
from mechxai.core.errors import out_of_range as out_of_range


def selected(axis: str, indices: Sequence[int], n: int) -> list[int]:
    """The layers or heads that a field names, ascending; all for an empty field. Negative ones count from the last.

    Args:
        axis: ``layer`` or ``head``, for the error message.
        indices: the field's value.
        n: number of layers or heads in the model.

    Raises:
        SiteError: an index that the model does not have.
    """
    for index in indices:
        if not -n <= index < n:
            raise SiteError(out_of_range(axis, index, n))
    return sorted({index % n for index in indices}) or list(range(n))
