"""Methods: frozen dataclasses whose fields are their config keys, called with a model and a batch."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, cast, final

import torch

from mechxai.core.alignment import check_in_vocabulary
from mechxai.core.architecture import Architecture
from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.exclusive import exclusive
from mechxai.core.fields import settle_fields
from mechxai.core.finite import check_result
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.reasoning import ReasoningBatch
from mechxai.core.result import Result, ResultKind

_BATCHES = (ContrastBatch, ProbeDataset, ReasoningBatch)


@dataclass(frozen=True)
class MethodCard:
    """A method's description, one row of ``mechxai methods``.

    Attributes:
        name: as in configs and results.
        family: patching, lens, probes, attribution, attention, circuits or cot.
        question: the question it answers, in one line.
        cost: in forward and backward passes.
        source: the paper it comes from.
        kind: what its results hold.
    """

    name: str
    family: str
    question: str
    cost: str
    source: str
    kind: ResultKind = "grid"
    pros: str = ""
    cons: str = ""


class Method(ABC):
    """Base of all methods. Concrete methods are final frozen dataclasses.

    A new method's fields are settled by their annotations (`mechxai.core.fields`), then every class of its ancestry
    that defines ``_check_fields(self)`` checks them, the base first.

    Attributes:
        takes: the kind of prompts; `ProbeDataset` for probes.
        in_waves: whether the engine runs it in waves, which several processes can share.
    """

    card: ClassVar[MethodCard]
    takes: ClassVar[type] = ContrastBatch
    in_waves: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        call = vars(cls).get("__call__")
        if call is not None:
            cls.__call__ = _checked(call)

    @final
    def __post_init__(self) -> None:
        settle_fields(self)
        for kind in reversed(type(self).__mro__):
            check = vars(kind).get("_check_fields")
            if check is not None:
                check(self)

    @abstractmethod
    def __call__(self, model: Any, batch: Any, *, execution: Any = ...) -> Result:
        """The result for one model and one batch; ``execution`` sets how to run and changes no value."""

    def settings(self) -> dict[str, object]:
        """Name and fields, as results record them and run ids hash them."""
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type] # every method is a dataclass
        return {"name": self.card.name, **values}


def _checked(call: Callable[..., Result]) -> Callable[..., Result]:
    """A method's ``__call__`` that refuses swapped arguments, texts in place of a batch, and overflowed results."""

    @functools.wraps(call)
    def checked(self: Method, *args: Any, **kwargs: Any) -> Result:
        named = dict(zip(("model", "batch"), args, strict=False)) | kwargs
        _check_arguments(type(self).__name__, named.get("model"), named.get("batch"))
        _check_ids(named.get("model"), named.get("batch"))
        with exclusive(*_models(self, named.get("model"))):
            result = call(self, *args, **kwargs)
        check_result(result)
        return result

    return checked


def _models(method: Method, model: object) -> list[object]:
    """The model or models that a method is called with, and those among its fields (a writer's, for example)."""
    values = [model, *(getattr(method, field.name) for field in fields(method))]  # type: ignore[arg-type] # every method is a dataclass
    listed = [cast("list[object]", value) if isinstance(value, (list, tuple)) else [value] for value in values]
    return [part for items in listed for item in items for part in (item, getattr(item, "model", None))]


def _check_ids(model: object, batch: object) -> None:
    """Refuses tokens outside the model's vocabulary, and answers that it does not have."""
    architecture = getattr(model, "architecture", None)
    if isinstance(batch, ContrastBatch) and isinstance(architecture, Architecture):
        outputs = getattr(model, "outputs", None)
        for run in ("clean", "corrupted"):
            check_in_vocabulary(run, batch.tokens(run), architecture.d_vocab)
        batch.check_vocabulary(architecture.d_vocab if outputs is None else len(outputs))


def _check_arguments(method: str, model: object, batch: object) -> None:
    if isinstance(model, _BATCHES):
        raise ConfigError(
            f"{method} takes (model, batch): the first argument is a {type(model).__name__}", fix="Swap the arguments"
        )
    texts = cast("list[object] | tuple[object, ...]", batch if isinstance(batch, (list, tuple)) else (batch,))
    text = next((item for item in texts if isinstance(item, str)), None)
    if text is not None:
        raise ConfigError(
            f"{method} takes a batch of prompts, not the text {text!r}",
            fix="Make one with mx.ContrastBatch.from_prompts, or a task such as mx.tasks.prompts",
        )
    if not isinstance(batch, (*_BATCHES, list, tuple)):
        raise ConfigError(
            f"{method} takes a batch of prompts, not a {type(batch).__name__}",
            fix="Make one with mx.ContrastBatch.from_prompts or mx.ContrastBatch.from_tokens, or with a task",
        )
    if isinstance(model, (torch.nn.Module, str, type(None))):
        raise ConfigError(
            f"{method} takes a model of mx.load or mx.wrap, not a {type(model).__name__}",
            fix="Pass mx.wrap(model)" if isinstance(model, torch.nn.Module) else "Pass mx.load(name)",
        )


METHODS: dict[str, type[Method]] = {}
_M = TypeVar("_M", bound=type[Method])


def register(card: MethodCard) -> Callable[[_M], _M]:
    """A class decorator that attaches a card to a method and adds the method to `METHODS`."""

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
    if callable(info):  # a model: the name alone does not identify it
        facts = cast("dict[str, object]", info())
        return {key: facts.get(key) for key in ("name", "backend", "dtype", "processing", "weight_hash")}
    return getattr(value, "name", None) or repr(value)
