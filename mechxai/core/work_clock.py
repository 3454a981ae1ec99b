"""A clock of work: seconds of this thread, and those that finished pieces took when an earlier process computed them.

The difference of two readings is what the work between them costs as a whole, however often it was interrupted.
"""

import threading
import time

_credit = threading.local()


def work_seconds() -> float:
    """The time in seconds, for differences."""
    return time.perf_counter() + getattr(_credit, "seconds", 0.0)


def add_earlier_work(seconds: float) -> None:
    """Counts the seconds that a loaded piece took to compute."""
    _credit.seconds = getattr(_credit, "seconds", 0.0) + seconds
