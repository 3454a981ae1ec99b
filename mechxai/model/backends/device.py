"""Loading any model: its device by name, and silence while libraries load it."""

import functools
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch

from mechxai.core.errors import ConfigError

_one_at_a_time = threading.RLock()  # the settings below belong to the process: two threads load one after the other


def device_of(name: str) -> torch.device:
    """The torch device of a name; ``auto`` is the first GPU, or the CPU where there is none.

    Raises:
        ConfigError: not a device, or a GPU that this machine does not have.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ConfigError(
            f"device={name!r} is not a device", allowed="auto, cpu, cuda, cuda:0, cuda:1 and so on"
        ) from error
    n_devices = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= n_devices:
        raise ConfigError(
            f"device={name!r} is not available: this machine has {n_devices} CUDA devices", fix="Use device='cpu'"
        )
    return device


class _Muted(io.StringIO):
    """A stream that drops what the loading thread writes and passes on what other threads write."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream, self._loading_thread = stream, threading.get_ident()

    def write(self, text: str, /) -> int:
        """Writes the text, unless the loading thread does so."""
        return len(text) if threading.get_ident() == self._loading_thread else self._stream.write(text)

    def flush(self) -> None:
        """Flushes the stream underneath."""
        self._stream.flush()


@contextmanager
def quiet_loading() -> Generator[None]:
    """Silences libraries while a model loads: progress bars, warnings, log messages, printed lines.

    Progress bars of notebooks (``tqdm.auto``) are silenced as well. Afterwards every setting is as it was, and so is
    torch's random generator: libraries draw random weights before they fill in the real ones.

    Yields:
        Nothing.
    """
    with _one_at_a_time, ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(redirect_stdout(_Muted(sys.stdout)))
        stack.enter_context(redirect_stderr(_Muted(sys.stderr)))
        stack.enter_context(_no_progress_bars())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        yield


@contextmanager
def _no_progress_bars() -> Generator[None]:
    """Disables every tqdm bar that this thread, or a thread started from now on, creates.

    All bars derive from one class, those of transformers, of huggingface_hub and of notebooks included, so no library's
    own switch has to be set and restored.
    """
    from tqdm.std import tqdm  # noqa: PLC0415 - `tqdm.auto` would look for notebook widgets, and warn

    original = vars(tqdm)["__init__"]  # as it stands in the class: it may be a partial method
    others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
    tqdm.__init__ = _disabling(tqdm.__init__, others)
    try:
        yield
    finally:
        tqdm.__init__ = original


def _disabling(original: Callable[..., None], others: set[int | None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        disable = {} if threading.get_ident() in others else {"disable": True}
        original(self, *args, **kwargs | disable)

    return init
