"""The form in which swept methods keep their fields, whatever form they were given in."""

from mechxai.core.method import Method


def as_tuples(method: Method, *names: str) -> None:
    """Turns fields of a new method into tuples, a single value into a tuple of one; None stays None.

    So that what a config gave as a list, and Python as a tuple, are one method with one run id.
    """
    for name in names:
        value = getattr(method, name)
        if value is not None:
            object.__setattr__(method, name, tuple(value) if isinstance(value, (list, tuple)) else (value,))
