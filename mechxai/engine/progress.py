"""A progress bar with an estimate of the time left, shown only once a run has lasted two seconds."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mechxai.engine.plan import Plan

_PATIENCE = 2.0  # seconds
Hear = Callable[[float | None], None]
_HEARS: ContextVar[Hear | None] = ContextVar("mechxai_progress", default=None)


@contextmanager
def told(hear: Hear) -> Iterator[None]:
    """Within it, every step of whatever counts its progress is told to ``hear`` as a share done, 0 to 1.

    It is given None where the work could end but no further step is done. An exception raised by it ends the work as
    an interruption does. For pages and other front ends; the bar in the terminal needs none of it.
    """
    token = _HEARS.set(hear)
    try:
        yield
    finally:
        _HEARS.reset(token)


def pause() -> None:
    """A place within a step where whoever is told may end the work, or take a turn at the model."""
    hear = _HEARS.get()
    if hear is not None:
        hear(None)


class Bar:
    """``with Bar("z", total, shown=True) as bar: bar.advance(32)``; writes to standard error.

    Args:
        what: shown beside the bar.
        total: how many there are; or a plan, whose work then measures progress, so that the time left comes from it.
        shown: whether to show anything.
        unit: what is counted.
    """

    def __init__(self, what: str, total: "int | Plan", *, shown: bool, unit: str = "cells") -> None:
        self._what, self._shown, self._unit = what, shown, unit
        self._total = float(total) if isinstance(total, int) else total.work
        self._worked, self._hear = 0.0, _HEARS.get()
        self._start, self._computed = time.monotonic(), 0
        self._bar: Progress | None = None
        self._lock, self._ended = threading.Lock(), False
        self._patience = threading.Timer(_PATIENCE, self._appear)
        self._patience.daemon = True

    def __enter__(self) -> "Bar":
        if self._shown:
            self._patience.start()
        return self

    def _appear(self) -> None:
        """Shows the bar, though nothing may have come yet."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with self._lock:
            if not self._ended:
                self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
                self._task = self._bar.add_task(self._what, total=self._total, rate="")
                self._bar.update(self._task, completed=self._worked)
                self._bar.start()

    def advance(self, n: int, work: float | None = None, *, computed: bool = True) -> None:
        """``n`` more are finished, which took ``work``; ``computed=False`` when they came from disk."""
        self._worked += n if work is None else work
        self._computed += n if computed else 0
        rate = f"{self._computed / max(time.monotonic() - self._start, 1e-9):,.0f} {self._unit}/s"
        with self._lock:
            if self._bar is not None:
                self._bar.update(self._task, completed=self._worked, rate=rate)
        if self._hear is not None:
            self._hear(min(1.0, self._worked / max(self._total, 1e-9)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patience.cancel()
        with self._lock:
            self._ended = True
            if self._bar is not None:
                self._bar.stop()
