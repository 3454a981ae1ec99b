"""The form in which swept methods keep their fields, whatever form they were given in."""

from collections.abc import Iterable, Sequence
from typing import Any

from mechxai.core.errors import SiteError
from mechxai.core.method import Method


def as_tuples(method: Method, *names: str) -> None:
    """Turns fields of a new method into tuples, a single value into a tuple of one; None stays None.

    So that what a config gave as a list, and Python as a tuple, are one method with one run id.
    """
    for name in names:
        value = getattr(method, name)
        if value is not None:
            many = isinstance(value, Iterable) and not isinstance(value, str)
            object.__setattr__(method, name, tuple(_plain(one) for one in value) if many else (value,))


def some_of(what: str, asked: Sequence[int], n: int) -> list[int]:
    """The layers or heads that a field asks for, ascending: all when none are named, negative ones from the last.

    Raises:
        SiteError: one that is not there.
    """
    wrong = [number for number in asked if not -n <= number < n]
    if wrong:
        raise SiteError(f"{what} {wrong[0]} was asked", allowed=f"{-n} to {n - 1}")
    return sorted({number % n for number in asked}) or list(range(n))


def _plain(value: Any) -> Any:
    """A number as Python has it, whatever library's it was."""
    return value.item() if hasattr(value, "item") else value
