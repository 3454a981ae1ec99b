"""What a check on a family says: right, refused with a reason, wrong by how much, or a traceback."""

import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mechxai.core.errors import MechXAIError

State = Literal["right", "refused", "wrong", "traceback"]


class WrongNumberError(Exception):
    """A number differs from its independent computation."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check.

    Attributes:
        check: its name.
        state: what happened.
        detail: the reason of a refusal, the size of an error, or the last line of a traceback.
        numbers: measured errors and levels by name.
        seconds: wall-clock time.
    """

    check: str
    state: State
    detail: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return self.state in ("wrong", "traceback")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.check}: {self.state} {self.detail}".strip()


class Measured:
    """Collects the numbers of one check and compares them with their limits."""

    def __init__(self) -> None:
        self.numbers: dict[str, float] = {}
        self.detail = ""

    def compare(self, name: str, error: Any, limit: float) -> None:
        """Records an error; raises above the limit, and for a NaN."""
        error = float(error)
        self.numbers[name] = error
        if not error <= limit:
            raise WrongNumberError(f"{name} = {error:.3g}, allowed {limit:.0e}")

    def note(self, text: str) -> None:
        self.detail = f"{self.detail}; {text}".lstrip("; ")


Check = Callable[[Any, Measured], None]


def run_check(name: str, check: Check, subject: Any) -> Outcome:
    """Runs a check; no exception but an interruption leaves it."""
    measured = Measured()
    start = time.perf_counter()

    def outcome(state: State, detail: str) -> Outcome:
        return Outcome(name, state, detail, measured.numbers, round(time.perf_counter() - start, 2))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(subject, measured)
    except WrongNumberError as error:
        return outcome("wrong", str(error))
    except MechXAIError as error:
        return outcome("refused", f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - a traceback is an outcome
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
        return outcome("traceback", f"{type(error).__name__}: {str(error)[:200]} ({place})")
    return outcome("right", measured.detail)
