"""Trackers: the null tracker does nothing, and errors of a tracker become one warning."""

import logging
import threading
import time
from pathlib import Path

import pytest

from mechxai.tracking.tracker import NullTracker, SafeTracker, Tracker

CALLS = {
    "start": lambda tracker: tracker.start("run", {"seed": 0}, group="sweep", job_type="patching", run_id="abc"),
    "metrics": lambda tracker: tracker.metrics({"seconds": 1.0}),
    "summary": lambda tracker: tracker.summary({"recovered": 0.5}),
    "figure": lambda tracker: tracker.figure("resid_pre", object()),
    "table": lambda tracker: tracker.table("cells", ["layer", "value"], [[0, 0.5]]),
    "used": lambda tracker: tracker.used("model-ioi", "model", {"weight_hash": "abc"}),
    "artifact": lambda tracker: tracker.artifact(Path("result.nc"), "result", "result"),
    "where": lambda tracker: tracker.where(),
    "close": lambda tracker: tracker.close(failed=True),
}
MISSING = {
    "start": "the whole run",
    "metrics": "metrics",
    "summary": "summary",
    "figure": "figure resid_pre",
    "table": "table cells",
    "used": "input model-ioi",
    "artifact": "artifact result",
    "where": "address",
    "close": "end of the run",
}


class Failing:
    """Raises in the named methods; remembers all calls."""

    def __init__(self, *failing, error=None):
        self.failing = failing
        self.error = error or RuntimeError("disk full")
        self.calls = []

    def _called(self, name):
        self.calls.append(name)
        if name in self.failing:
            raise self.error

    def start(self, name, config, *, group=None, job_type=None, run_id=None):
        self._called("start")

    def metrics(self, values):
        self._called("metrics")

    def summary(self, values):
        self._called("summary")

    def figure(self, name, figure):
        self._called("figure")

    def table(self, name, columns, rows):
        self._called("table")

    def used(self, name, kind, content):
        self._called("used")

    def artifact(self, path, name, kind):
        self._called("artifact")

    def awaited(self):
        self._called("awaited")
        return True

    def where(self):
        self._called("where")
        return "here"

    def close(self, *, failed=False):
        self._called("close")
        self.failed = failed


class Hanging(Failing):
    def __init__(self):
        super().__init__()
        self.release = threading.Event()

    def close(self, *, failed=False):
        self.release.wait(30)


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.WARNING, logger="mechxai.tracking")
    return caplog


def test_null_tracker_does_nothing_and_says_so():
    tracker = NullTracker()
    for call in CALLS.values():
        assert call(tracker) is None
    assert isinstance(tracker, Tracker)
    assert isinstance(SafeTracker(tracker), Tracker)
    assert tracker == NullTracker()


def test_safe_tracker_passes_everything_on():
    inner = Failing()
    tracker = SafeTracker(inner)
    answers = {name: call(tracker) for name, call in CALLS.items()}
    assert inner.calls == list(CALLS)
    assert answers["where"] == "here"
    assert inner.failed is True
    assert tracker.problems == []
    assert tracker.note() is None


@pytest.mark.parametrize("broken", [name for name in CALLS if name != "start"])
def test_a_failing_call_is_one_warning_and_the_rest_goes_on(broken, warned):
    inner = Failing(broken)
    tracker = SafeTracker(inner)
    for call in CALLS.values():
        call(tracker)
    assert inner.calls == list(CALLS)
    assert tracker.problems == [f"{MISSING[broken]} (RuntimeError: disk full)"]
    assert tracker.note() == f"W&B: missing {MISSING[broken]} (RuntimeError: disk full)"
    assert [record.getMessage() for record in warned.records] == [tracker.note()]


def test_everything_failing_but_start_lists_every_loss(warned):
    tracker = SafeTracker(Failing(*[name for name in CALLS if name != "start"]))
    for call in CALLS.values():
        call(tracker)
    assert [problem.split(" (")[0] for problem in tracker.problems] == list(MISSING.values())[1:]


def test_after_a_failed_start_the_rest_is_skipped_quietly(warned):
    inner = Failing(*CALLS)
    tracker = SafeTracker(inner)
    for call in CALLS.values():
        assert call(tracker) is None
    assert inner.calls == ["start"]
    assert tracker.problems == ["the whole run (RuntimeError: disk full)"]
    assert len(warned.records) == 1


def test_whether_a_record_is_awaited():
    assert SafeTracker(Failing()).awaited()
    assert not SafeTracker(Failing("awaited")).awaited()
    assert not SafeTracker(NullTracker()).awaited()


def test_the_next_run_starts_afresh():
    inner = Failing("start")
    tracker = SafeTracker(inner)
    CALLS["start"](tracker)
    inner.failing = ()
    CALLS["start"](tracker)
    CALLS["metrics"](tracker)
    assert inner.calls == ["start", "start", "metrics"]
    assert tracker.problems == []


def test_many_steps_that_fail_alike_are_one_problem(warned):
    tracker = SafeTracker(Failing("metrics"))
    CALLS["start"](tracker)
    for _ in range(100):
        CALLS["metrics"](tracker)
    assert len(tracker.problems) == len(warned.records) == 1


def test_a_close_that_hangs_is_left_behind(warned):
    inner = Hanging()
    tracker = SafeTracker(inner, close_timeout=0.1)
    began = time.monotonic()
    CALLS["start"](tracker)
    tracker.close()
    assert time.monotonic() - began < 5
    inner.release.set()
    assert "no answer within 0.1 s" in tracker.problems[0]


def test_after_a_long_wait_in_vain_what_would_wait_again_is_not_tried(warned):
    inner = Failing("used")
    tracker = SafeTracker(inner, patience=-1.0)  # any wait is long
    for call in CALLS.values():
        call(tracker)
    assert inner.calls == [name for name in CALLS if name != "artifact"]
    assert [problem.split(" (")[0] for problem in tracker.problems] == ["input model-ioi", "artifact result"]
    assert "no answer before" in tracker.problems[1]
    CALLS["start"](tracker)  # the next run tries again
    CALLS["artifact"](tracker)
    assert inner.calls[-2:] == ["start", "artifact"]


def test_secrets_in_an_error_message_do_not_reach_the_notes(warned):
    tracker = SafeTracker(Failing("metrics", error=ValueError("refused: api_key=12345, retry")))
    CALLS["start"](tracker)
    CALLS["metrics"](tracker)
    assert "12345" not in tracker.problems[0] + warned.text
    assert "retry" in tracker.problems[0]


def test_an_interrupt_is_not_a_tracking_problem():
    tracker = SafeTracker(Failing("metrics", error=KeyboardInterrupt()))
    CALLS["start"](tracker)
    with pytest.raises(KeyboardInterrupt):
        CALLS["metrics"](tracker)
