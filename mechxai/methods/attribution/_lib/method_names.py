"""Attribution methods by name, as configs and the command line give them."""

from collections.abc import Sequence

from mechxai.core.errors import ConfigError, unknown
from mechxai.core.method import METHODS
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.catalog import import_methods

MethodOrName = str | Attribution


def attribution_methods() -> dict[str, type[Attribution]]:
    """Every registered attribution method by name; imports the modules of the family first."""
    import_methods("attribution")
    return {name: kind for name, kind in METHODS.items() if issubclass(kind, Attribution)}


def method_of(method: MethodOrName) -> Attribution:
    """The method with that name and its default fields; a method is returned as it is.

    Raises:
        ConfigError: no attribution method has that name.
    """
    if isinstance(method, Attribution):
        return method
    methods = attribution_methods()
    if method not in methods:
        raise ConfigError(unknown("attribution method", method, methods))
    return methods[method]()


def labelled(methods: Sequence[MethodOrName]) -> dict[str, Attribution]:
    """Methods by label: the name, with a number from the second method of that name on."""
    labels: dict[str, Attribution] = {}
    for method in map(method_of, methods):
        name = method.card.name
        n_before = sum(other.card.name == name for other in labels.values())
        labels[f"{name} {n_before + 1}" if n_before else name] = method
    return labels
