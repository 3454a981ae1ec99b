"""The form in which swept methods keep their fields, whatever form they were given in."""

from collections.abc import Iterable
from typing import Any

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


def _plain(value: Any) -> Any:
    """A number as Python has it, whatever library's it was."""
    return value.item() if hasattr(value, "item") else value
