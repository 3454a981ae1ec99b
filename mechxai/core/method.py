"""A method is a frozen dataclass whose fields are its config keys; calling it on a model and a batch gives a result."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, cast

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.result import Result


@dataclass(frozen=True)
class MethodCard:
    """One row of ``mechxai methods``.

    Attributes:
        name: as in configs and results.
        family: patching, lens, probes, attribution, attention, circuits or cot.
        question: what it answers, in one line.
        cost: in forward and backward passes.
        source: where it comes from.
    """

    name: str
    family: str
    question: str
    cost: str
    source: str
    pros: str = ""
    cons: str = ""


class Method(ABC):
    """A question that can be put to a model. Concrete methods are final frozen dataclasses.

    Attributes:
        takes: the prompts it is asked about; `ProbeDataset` for probes.
        in_waves: whether its work goes through the engine's waves, of which several processes can each take a share.
    """

    card: ClassVar[MethodCard]
    takes: ClassVar[type] = ContrastBatch
    in_waves: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, model: Any, batch: Any, *, execution: Any = ...) -> Result:
        """The answer, for one model and one batch; ``execution`` says how to run, which changes no value."""

    def settings(self) -> dict[str, object]:
        """Name and fields, as recorded in results and hashed into run ids."""
        own = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type] # every method is a dataclass
        return {"name": self.card.name, **own}


METHODS: dict[str, type[Method]] = {}
_M = TypeVar("_M", bound=type[Method])


def register(card: MethodCard) -> Callable[[_M], _M]:
    """Class decorator that gives a method its card and lists it in `METHODS`."""

    def add(kind: _M) -> _M:
        if card.name in METHODS:
            raise ConfigError(f"Method {card.name!r} is registered twice")
        kind.card = card
        METHODS[card.name] = kind
        return kind

    return add


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("list[object] | tuple[object, ...]", value)]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    info = getattr(value, "info", None)
    if callable(info):  # a model: its name alone does not say which
        known = cast("dict[str, object]", info())
        return {key: known.get(key) for key in ("name", "backend", "dtype", "processing", "weight_hash")}
    return getattr(value, "name", None) or repr(value)
