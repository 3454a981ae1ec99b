"""What a tracker is, the one that records nothing, and the wrapper that keeps tracking from ever breaking a run."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, final, runtime_checkable

from mechxai.tracking.plain import scrub

_LOG = logging.getLogger("mechxai.tracking")
_T = TypeVar("_T")


@runtime_checkable
class Tracker(Protocol):
    """Keeps a record of one run at a time, from `start` to `close`; it reads results and decides nothing about them."""

    def awaited(self) -> bool:
        """Whether somebody waits for a record of this very process, even of a run that was finished before."""
        ...

    def start(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        group: str | None = None,
        job_type: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Opens a record.

        Args:
            name: shown to the reader.
            config: what was run, nested as it likes; secrets in it are not recorded.
            group: runs that belong together, such as a sweep.
            job_type: the kind of run, such as the method's name.
            run_id: the run's own id; None lets the tracker choose one.
        """
        ...

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Adds one step to the history."""
        ...

    def summary(self, values: Mapping[str, object]) -> None:
        """Sets the headline numbers, one value per name."""
        ...

    def figure(self, name: str, figure: Any) -> None:
        """Records a plotly Figure, or anything else with ``to_html()``."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Records a table; each column holds texts or numbers, None where there is no value."""
        ...

    def used(self, name: str, kind: str, content: Mapping[str, object]) -> None:
        """Declares something the run is made from, such as its model; all artifacts that follow name it as an input."""
        ...

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Records a file or folder the run made, under a name; ``kind`` is such as ``result``."""
        ...

    def where(self) -> str | None:
        """Where the record lies, a sentence for the user; None when there is none."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Ends the record; a failed run is marked as such."""
        ...


@final
@dataclass(frozen=True)
class NullTracker:
    """Records nothing: the run's folder is all there is."""

    def awaited(self) -> bool:
        """Never."""
        return False

    def start(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        group: str | None = None,
        job_type: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Does nothing."""

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Does nothing."""

    def summary(self, values: Mapping[str, object]) -> None:
        """Does nothing."""

    def figure(self, name: str, figure: Any) -> None:
        """Does nothing."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Does nothing."""

    def used(self, name: str, kind: str, content: Mapping[str, object]) -> None:
        """Does nothing."""

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Does nothing."""

    def where(self) -> str | None:
        """None: there is no record."""
        return None

    def close(self, *, failed: bool = False) -> None:
        """Does nothing."""


@final
@dataclass
class SafeTracker:
    """A tracker whose failures never reach the run: each becomes one warning in the log and one line in `problems`.

    After a failed `start` all other calls are skipped quietly. Tables, inputs and artifacts may wait for the network:
    once one of them has failed after a long wait, those that follow are not tried. `close` waits no longer than
    ``close_timeout``.

    Attributes:
        inner: the tracker that does the work.
        label: how warnings call it.
        close_timeout: seconds `close` may take; above a tracker's own limit, of which this is the second line.
        patience: seconds after which a wait that ends in a failure was long.
        problems: what is missing from the record of the run last started, and why; see `note`.
    """

    inner: Tracker
    label: str = "W&B"
    close_timeout: float = 90.0
    patience: float = 5.0
    problems: list[str] = field(default_factory=list, init=False)
    _lost: set[str] = field(default_factory=set, init=False, repr=False)
    _skip: bool = field(default=False, init=False, repr=False)
    _unanswered: bool = field(default=False, init=False, repr=False)

    def awaited(self) -> bool:
        """Whether somebody waits for a record; nobody does where the tracker cannot tell."""
        return bool(self.attempt("whether it is awaited", self.inner.awaited))

    def start(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        group: str | None = None,
        job_type: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Opens a record, or gives up on this run."""
        self.problems.clear()
        self._lost.clear()
        self._skip = self._unanswered = False
        self.attempt(
            "the whole run",
            lambda: self.inner.start(name, config, group=group, job_type=job_type, run_id=run_id),
        )
        self._skip = bool(self.problems)

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Adds one step to the history, if it can."""
        self.attempt("metrics", lambda: self.inner.metrics(values))

    def summary(self, values: Mapping[str, object]) -> None:
        """Sets the headline numbers, if it can."""
        self.attempt("summary", lambda: self.inner.summary(values))

    def figure(self, name: str, figure: Any) -> None:
        """Records a figure, if it can."""
        self.attempt(f"figure {name}", lambda: self.inner.figure(name, figure))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Records a table, if it can."""
        self._waiting(f"table {name}", lambda: self.inner.table(name, columns, rows))

    def used(self, name: str, kind: str, content: Mapping[str, object]) -> None:
        """Declares an input, if it can."""
        self._waiting(f"input {name}", lambda: self.inner.used(name, kind, content))

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Records a file or folder, if it can."""
        self._waiting(f"artifact {name}", lambda: self.inner.artifact(path, name, kind))

    def where(self) -> str | None:
        """Where the record lies; None when there is none or the tracker cannot tell."""
        return self.attempt("address", self.inner.where)

    def close(self, *, failed: bool = False) -> None:
        """Ends the record, in a thread of its own that is left behind when it does not come back."""
        self.attempt("end of the run", lambda: self._bounded(lambda: self.inner.close(failed=failed)))

    def note(self) -> str | None:
        """One line for the result's notes, ``W&B: missing figure resid_pre (ValueError: ...)``; None if nothing is."""
        return f"{self.label}: missing {'; '.join(self.problems)}" if self.problems else None

    def attempt(self, what: str, call: Callable[[], _T]) -> _T | None:
        """What ``call`` gives; None, with ``what`` noted as missing, where it raises, and after a failed start."""
        if self._skip:
            return None
        try:
            return call()
        except Exception as problem:  # noqa: BLE001 - whatever a tracker raises, the run's numbers are worth more
            self._lose(what, problem)
            return None

    def _waiting(self, what: str, call: Callable[[], None]) -> None:
        """A call that may wait for an answer from outside."""
        if self._unanswered:
            self._lose(what, TimeoutError("not tried, as there was no answer before"))
            return
        known, began = len(self.problems), time.monotonic()
        self.attempt(what, call)
        self._unanswered = len(self.problems) > known and time.monotonic() - began > self.patience

    def _lose(self, what: str, problem: Exception) -> None:
        """Notes what is missing, once: a thousand steps that fail alike are one problem."""
        if what in self._lost:
            return
        self._lost.add(what)
        reason = scrub(" ".join(str(problem).split()))
        self.problems.append(f"{what} ({type(problem).__name__}: {reason})")
        _LOG.warning("%s: missing %s", self.label, self.problems[-1])

    def _bounded(self, call: Callable[[], None]) -> None:
        raised: list[Exception] = []

        def work() -> None:
            try:
                call()
            except Exception as problem:  # noqa: BLE001 - carried over to the caller's thread, raised there
                raised.append(problem)

        worker = threading.Thread(target=work, name="mechxai-tracker-close", daemon=True)
        worker.start()
        worker.join(self.close_timeout)
        if worker.is_alive():
            raise TimeoutError(f"no answer within {self.close_timeout:g} s; the run went on without it")
        if raised:
            raise raised[0]
