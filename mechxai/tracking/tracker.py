"""The tracker protocol, a tracker that records nothing, and a wrapper whose errors never stop the run."""

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
    """Records one run at a time, from `start` to `close`, without any effect on its results."""

    def awaited(self) -> bool:
        """Whether a record of this process is expected, even if its run was finished earlier (by a sweep's agent)."""
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
            name: the run's display name.
            config: the run's config, of any nesting; its secrets are not recorded.
            group: name of a group of runs, such as a sweep.
            job_type: the kind of run, such as the method's name.
            run_id: the run's id; None lets the tracker choose one.
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
        """Records a table; columns hold texts or numbers, and None for missing values."""
        ...

    def used(self, name: str, kind: str, content: Mapping[str, object]) -> None:
        """Declares an input of the run, such as its model; all later artifacts name it as an input."""
        ...

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Records a file or folder that the run wrote; ``kind`` is, for example, ``result``."""
        ...

    def where(self) -> str | None:
        """A sentence that names the record's address or folder; None without a record."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Ends the record; a failed run is marked as such."""
        ...


@final
@dataclass(frozen=True)
class NullTracker:
    """Records nothing; the run's folder is its only record."""

    def awaited(self) -> bool:
        """False: no record is expected."""
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
    """Tracker errors never stop the run: each becomes one warning in the log and one line in `problems`.

    After a failed `start` all other calls are skipped without a warning. Tables, inputs and artifacts may wait for the
    network: after one of them has failed with a long wait, the following ones are not tried. `close` waits at most
    ``close_timeout`` seconds.

    Attributes:
        inner: the tracker that records.
        label: its name in warnings.
        close_timeout: seconds that `close` may take; longer than the tracker's own limit, as a second safeguard.
        patience: seconds from which a failed wait counts as long.
        problems: the missing parts of the latest run's record, with their errors; see `note`.
    """

    inner: Tracker
    label: str = "W&B"
    close_timeout: float = 90.0
    patience: float = 5.0
    problems: list[str] = field(default_factory=list, init=False)
    _missing: set[str] = field(default_factory=set, init=False, repr=False)
    _skip: bool = field(default=False, init=False, repr=False)
    _unanswered: bool = field(default=False, init=False, repr=False)

    def awaited(self) -> bool:
        """Whether a record is expected; False where the tracker fails to tell."""
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
        """Opens a record; after an error this run is not recorded."""
        self.problems.clear()
        self._missing.clear()
        self._skip = self._unanswered = False
        self.attempt(
            "the whole run",
            lambda: self.inner.start(name, config, group=group, job_type=job_type, run_id=run_id),
        )
        self._skip = bool(self.problems)

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Adds one step to the history; an error is noted."""
        self.attempt("metrics", lambda: self.inner.metrics(values))

    def summary(self, values: Mapping[str, object]) -> None:
        """Sets the headline numbers; an error is noted."""
        self.attempt("summary", lambda: self.inner.summary(values))

    def figure(self, name: str, figure: Any) -> None:
        """Records a figure; an error is noted."""
        self.attempt(f"figure {name}", lambda: self.inner.figure(name, figure))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Records a table; an error is noted."""
        self._attempt_network(f"table {name}", lambda: self.inner.table(name, columns, rows))

    def used(self, name: str, kind: str, content: Mapping[str, object]) -> None:
        """Declares an input; an error is noted."""
        self._attempt_network(f"input {name}", lambda: self.inner.used(name, kind, content))

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Records a file or folder; an error is noted."""
        self._attempt_network(f"artifact {name}", lambda: self.inner.artifact(path, name, kind))

    def where(self) -> str | None:
        """The record's address or folder; None without a record, or where the tracker fails to tell."""
        return self.attempt("address", self.inner.where)

    def close(self, *, failed: bool = False) -> None:
        """Ends the record, in a thread that is abandoned after ``close_timeout`` seconds."""
        self.attempt("end of the run", lambda: self._with_timeout(lambda: self.inner.close(failed=failed)))

    def note(self) -> str | None:
        """One line for the result's notes, ``W&B: missing figure resid_pre (ValueError: ...)``; or None."""
        return f"{self.label}: missing {'; '.join(self.problems)}" if self.problems else None

    def attempt(self, part: str, call: Callable[[], _T]) -> _T | None:
        """The value of ``call``; None after a failed start, and where it raises: ``part`` is then noted as missing."""
        if self._skip:
            return None
        try:
            return call()
        except Exception as problem:  # noqa: BLE001 - no error of a tracker may stop the run
            self._note_missing(part, problem)
            return None

    def _attempt_network(self, part: str, call: Callable[[], None]) -> None:
        """Attempts a call that may wait for the network, unless an earlier one failed after a long wait."""
        if self._unanswered:
            self._note_missing(part, TimeoutError("not tried, as there was no answer before"))
            return
        n_problems, began = len(self.problems), time.monotonic()
        self.attempt(part, call)
        self._unanswered = len(self.problems) > n_problems and time.monotonic() - began > self.patience

    def _note_missing(self, part: str, problem: Exception) -> None:
        """Notes a missing part of the record, once per part: a thousand failed steps are one problem."""
        if part in self._missing:
            return
        self._missing.add(part)
        reason = scrub(" ".join(str(problem).split()))
        self.problems.append(f"{part} ({type(problem).__name__}: {reason})")
        _LOG.warning("%s: missing %s", self.label, self.problems[-1])

    def _with_timeout(self, call: Callable[[], None]) -> None:
        raised: list[Exception] = []

        def work() -> None:
            try:
                call()
            except Exception as problem:  # noqa: BLE001 - raised again in the caller's thread
                raised.append(problem)

        worker = threading.Thread(target=work, name="mechxai-tracker-close", daemon=True)
        worker.start()
        worker.join(self.close_timeout)
        if worker.is_alive():
            raise TimeoutError(f"no answer within {self.close_timeout:g} s; the run continues without it")
        if raised:
            raise raised[0]
