"""Layers and heads chosen by a method's fields."""

from collections.abc import Sequence

from mechxai.core.errors import SiteError


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


def out_of_range(axis: str, index: int, n: int) -> str:
    """The error text for an index that does not exist: ``Layer 7 is out of range: this model has 3 layers (0-2)``."""
    return f"{axis.capitalize()} {index} is out of range: this model has {n} {axis}{'' if n == 1 else 's'} (0-{n - 1})"
