"""One thread at a time per model: hooks, flags and frozen parameters belong to the model, not to a thread."""

import os
import threading
import weakref
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from mechxai.core.torch_modes import plain_torch

_locks: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()  # PyTorch module -> re-entrant lock
_guard = threading.Lock()  # of the table of locks
_thread = threading.local()


@contextmanager
def exclusive(*models: object) -> Generator[None]:
    """A ``with`` block in which no other thread attaches hooks to these models or runs them; autocast is off.

    A thread may nest such blocks. Two wrappers of one model share its lock. Several models are locked in one order
    everywhere, so that two threads never wait for each other.

    Args:
        *models: models or backends with the PyTorch module in ``inner``; others need no lock.
    """
    modules = {id(module): module for module in map(_module, models) if module is not None}
    with ExitStack() as stack:
        for _, module in sorted(modules.items()):
            stack.enter_context(_held(_lock_of(module)))
        stack.enter_context(plain_torch())
        yield


@contextmanager
def _held(lock: Any) -> Generator[None]:
    with lock:
        held = _locks_of_this_thread()
        held.append(lock)
        try:
            yield
        finally:
            held.pop()


@contextmanager
def released() -> Generator[None]:
    """A ``with`` block in which other threads may use the models that this thread holds; for pauses between passes."""
    held = list(_locks_of_this_thread())
    for lock in reversed(held):
        lock.release()
    try:
        yield
    finally:
        for lock in held:
            lock.acquire()


def _locks_of_this_thread() -> list[Any]:
    """The locks that this thread holds, in order; one that it holds twice is listed twice."""
    return vars(_thread).setdefault("held", [])


def _module(model: object) -> Any:
    """The module at the bottom of a wrapped model: the Hugging Face model under a bridge."""
    inner: Any = getattr(model, "inner", None)
    original = getattr(inner, "original_model", None)
    return inner if original is None else original


def _lock_of(module: Any) -> Any:
    with _guard:
        if module not in _locks:
            _locks[module] = threading.RLock()
        return _locks[module]


def _forget_locks() -> None:
    """Gives a forked process free locks: the threads that held them do not exist there."""
    global _guard  # noqa: PLW0603 - a thread of the parent process may hold it
    _guard = threading.Lock()
    _locks.clear()
    _locks_of_this_thread().clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
