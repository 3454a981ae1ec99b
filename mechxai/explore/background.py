"""Runs methods in the background, one at a time, with progress, a stop button and cached results.

Between two waves a sweep lets go of the model for a moment, so that whoever looks at it in the meantime need not wait.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from mechxai.core.errors import MechXAIError
from mechxai.core.result import Result
from mechxai.engine.progress import progress_listener

_KEPT = 64
_PAUSE = 0.002  # seconds; a lock that is taken again at once is not given to those who wait


class _StoppedError(Exception):
    """Raised inside a sweep that was told to stop."""


@dataclass
class BackgroundRun:
    """One sweep.

    Attributes:
        share: done of it, 0 to 1.
        result: once it is finished.
        error: why there is none.
        seconds: it took.
        about: what is asked, in words.
    """

    about: str = ""
    share: float = 0.0
    result: Result | None = None
    error: str = ""
    seconds: float = 0.0
    started: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)
    future: "Future[None] | None" = None

    @property
    def running(self) -> bool:
        """Whether it waits or runs."""
        return self.result is None and not self.error

    @property
    def said(self) -> str:
        """How far it is, or how long it took."""
        if self.running and not self.started:
            return f"{self.about} waits for another sweep"
        if self.running:
            return f"{self.share:.0%} of {self.about}"
        return f"{self.about}: {self.seconds:.1f} s" if self.result is not None else ""


class BackgroundRuns:
    """The sweeps that were asked for; who asks for one that is there gets that one."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, BackgroundRun] = OrderedDict()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mechxai-sweep")

    def start(
        self, key: Hashable, make: Callable[[], Result], *, lock: threading.RLock, about: str = ""
    ) -> BackgroundRun:
        """Begins a sweep, unless it is there already and has not failed; ``lock`` guards the model it runs."""
        with self._lock:
            sweep = self._known.get(key)
            if sweep is not None and not sweep.error:
                return sweep
            sweep = self._known[key] = BackgroundRun(about)
            finished = [one for one, kept in self._known.items() if not kept.running]
            for old in finished[: max(0, len(self._known) - _KEPT)]:
                del self._known[old]
            sweep.future = self._worker.submit(_run, sweep, make, lock)
        return sweep

    def get(self, key: Hashable) -> BackgroundRun | None:
        """The sweep of a key; None where it was not asked for."""
        with self._lock:
            return self._known.get(key)

    def stop(self, key: Hashable) -> None:
        """Tells a sweep to stop after the wave it is at; one that still waits is stopped at once."""
        sweep = self.get(key)
        if sweep is not None and sweep.running:
            sweep.stopping.set()
            if sweep.future is not None and sweep.future.cancel():
                sweep.error = "stopped"

    def close(self) -> None:
        """Tells all sweeps to stop, and waits for none."""
        with self._lock:
            for sweep in self._known.values():
                sweep.stopping.set()
        self._worker.shutdown(wait=False, cancel_futures=True)


def _run(sweep: BackgroundRun, make: Callable[[], Result], lock: threading.RLock) -> None:
    sweep.started = time.perf_counter()

    def hear(share: float | None) -> None:
        sweep.share = sweep.share if share is None else share
        if sweep.stopping.is_set():
            raise _StoppedError
        lock.release()
        time.sleep(_PAUSE)
        lock.acquire()

    try:
        with lock, progress_listener(hear):
            hear(0.0)
            result = make()
        sweep.seconds, sweep.share, sweep.result = time.perf_counter() - sweep.started, 1.0, result
    except _StoppedError:
        sweep.error = "stopped"
    except MechXAIError as error:
        sweep.error = str(error)
    except Exception as error:  # noqa: BLE001 - a thread of its own: nobody else would hear of it
        sweep.error = f"{type(error).__name__}: {error}"
