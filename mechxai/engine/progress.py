"""A progress bar with the estimated time left, shown once a computation has lasted two seconds."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mechxai.engine.plan import Plan

_DELAY = 2.0  # seconds until the bar appears
ProgressListener = Callable[[float | None], None]
_LISTENER: ContextVar[ProgressListener | None] = ContextVar("mechxai_progress", default=None)


@contextmanager
def progress_listener(listener: ProgressListener) -> Iterator[None]:
    """Within the context, every progress bar calls ``listener`` with the share done, 0 to 1, after each step.

    The listener is called with None at places within a step where the work may end. An exception that it raises ends
    the work like an interruption. Front ends such as the explorer use it; the bar in the terminal does not.
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def notify_listener() -> None:
    """Calls the listener with None: a place within a step where it may end the work or use the model in between."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(None)


class ProgressBar:
    """``with ProgressBar("z", total, shown=True) as bar: bar.advance(32)``; writes to standard error.

    Args:
        label: shown beside the bar.
        total: the number of units; or a plan, whose work then measures progress and the time left.
        shown: whether to show the bar.
        unit: the name of a unit.
    """

    def __init__(self, label: str, total: "int | Plan", *, shown: bool, unit: str = "cells") -> None:
        self._label, self._shown, self._unit = label, shown, unit
        self._total = float(total) if isinstance(total, int) else total.work
        self._work, self._listener = 0.0, _LISTENER.get()
        self._start, self._computed = time.monotonic(), 0
        self._bar: Progress | None = None
        self._lock, self._ended = threading.Lock(), False
        self._timer = threading.Timer(_DELAY, self._show)
        self._timer.daemon = True

    def __enter__(self) -> "ProgressBar":
        if self._shown:
            self._timer.start()
        return self

    def _show(self) -> None:
        """Shows the bar, even before the first step is done."""
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
                self._task = self._bar.add_task(self._label, total=self._total, rate="")
                self._bar.update(self._task, completed=self._work)
                self._bar.start()

    def advance(self, n: int, work: float | None = None, *, computed: bool = True) -> None:
        """Counts ``n`` more units, which took ``work``; ``computed=False`` if they were loaded from disk."""
        self._work += n if work is None else work
        self._computed += n if computed else 0
        rate = f"{self._computed / max(time.monotonic() - self._start, 1e-9):,.0f} {self._unit}/s"
        with self._lock:
            if self._bar is not None:
                self._bar.update(self._task, completed=self._work, rate=rate)
        if self._listener is not None:
            self._listener(min(1.0, self._work / max(self._total, 1e-9)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._bar is not None:
                self._bar.stop()
