"""Runs methods in the background, one at a time, with progress, a stop button and cached results.

Between two waves a run releases the model's lock for a moment, so that page requests need not wait until it ends.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from mechxai.core.errors import MechXAIError
from mechxai.core.exclusive import released
from mechxai.core.result import Result
from mechxai.engine.progress import progress_listener

_MAX_RUNS = 64
_PAUSE = 0.002  # seconds; a lock that is taken again at once is never given to waiting threads


class _StoppedError(Exception):
    """Raised inside a run that the user stopped."""


@dataclass
class BackgroundRun:
    """One method that waits, runs or has ended.

    Attributes:
        label: what is computed, in words.
        share: of the work that is done, 0 to 1.
        result: set when the run has finished.
        error: set when the run has failed or was stopped.
        seconds: that a finished run took.
        started: time at which the run began; 0 while it waits.
        stopping: set when the run is to stop.
        future: the run's future.
    """

    label: str = ""
    share: float = 0.0
    result: Result | None = None
    error: str = ""
    seconds: float = 0.0
    started: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)
    future: "Future[None] | None" = None

    @property
    def running(self) -> bool:
        """Whether the run waits or computes."""
        return self.result is None and not self.error

    @property
    def status(self) -> str:
        """The progress, or how long the run took; empty for a failed run."""
        if self.running and not self.started:
            return f"{self.label} waits for another run"
        if self.running:
            return f"{self.share:.0%} of {self.label}"
        return f"{self.label}: {self.seconds:.1f} s" if self.result is not None else ""


class BackgroundRuns:
    """The runs by key; a second request for a key gets the same run."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, BackgroundRun] = OrderedDict()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mechxai-background")

    def start(
        self, key: Hashable, compute: Callable[[], Result], *, lock: threading.RLock, label: str = ""
    ) -> BackgroundRun:
        """Starts a run unless its key has one that has not failed; ``lock`` guards the model."""
        with self._lock:
            run = self._runs.get(key)
            if run is not None and not run.error:
                return run
            run = self._runs[key] = BackgroundRun(label)
            finished = [other for other, known in self._runs.items() if not known.running]
            for other in finished[: max(0, len(self._runs) - _MAX_RUNS)]:
                del self._runs[other]
            run.future = self._worker.submit(_execute, run, compute, lock)
        return run

    def get(self, key: Hashable) -> BackgroundRun | None:
        """The run of a key; None if it was never started."""
        with self._lock:
            return self._runs.get(key)

    def stop(self, key: Hashable) -> None:
        """Stops a run after its current wave; one that still waits is stopped at once."""
        run = self.get(key)
        if run is not None and run.running:
            run.stopping.set()
            if run.future is not None and run.future.cancel():
                run.error = "stopped"

    def close(self) -> None:
        """Stops all runs without waiting for them."""
        with self._lock:
            for run in self._runs.values():
                run.stopping.set()
        self._worker.shutdown(wait=False, cancel_futures=True)


def _execute(run: BackgroundRun, compute: Callable[[], Result], lock: threading.RLock) -> None:
    run.started = time.perf_counter()

    def on_progress(share: float | None) -> None:
        run.share = run.share if share is None else share
        if run.stopping.is_set():
            raise _StoppedError
        with released():  # the lock of the page first, then that of the model, as in the other threads
            lock.release()
            time.sleep(_PAUSE)
            lock.acquire()

    try:
        with lock, progress_listener(on_progress):
            on_progress(0.0)
            result = compute()
        run.seconds, run.share, run.result = time.perf_counter() - run.started, 1.0, result
    except _StoppedError:
        run.error = "stopped"
    except MechXAIError as error:
        run.error = str(error)
    except Exception as error:  # noqa: BLE001 - nothing else would report an error in this thread
        run.error = f"{type(error).__name__}: {error}"
