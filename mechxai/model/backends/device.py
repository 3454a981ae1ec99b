"""What loading any model needs: a device by name, and quiet."""

import io
import logging
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch

from mechxai.core.errors import ConfigError


def device_of(name: str) -> torch.device:
    """The device of a name; ``auto`` is the first GPU if there is one.

    Raises:
        ConfigError: no such device.
    """
    try:
        place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ConfigError(f"device={name!r} was asked", allowed="auto, cpu, cuda, cuda:0, cuda:1 ...") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name!r} was asked", got=f"{torch.cuda.device_count()} CUDA devices", fix="use cpu")
    return place


class _Muted(io.StringIO):
    """Standard output while a thread loads: what that thread writes is dropped, other threads go on to write."""

    def __init__(self, outside: Any) -> None:
        super().__init__()
        self._outside, self._loading = outside, threading.get_ident()

    def write(self, text: str, /) -> int:
        """The text, unless the loading thread writes it."""
        return len(text) if threading.get_ident() == self._loading else self._outside.write(text)

    def flush(self) -> None:
        """What others wrote."""
        self._outside.flush()


@contextmanager
def quiet_loading() -> Generator[None]:
    """The libraries' notices about deprecation, progress and folding, silenced while a model is loaded.

    Yields:
        Nothing.
    """
    from transformers.utils import logging as hf_logging  # noqa: PLC0415 - heavy

    before, bars = logging.root.manager.disable, hf_logging.is_progress_bar_enabled()
    try:
        logging.disable(logging.WARNING)
        hf_logging.disable_progress_bar()
        # loading draws random weights before it fills in the real ones: the caller's generator stays untouched
        with warnings.catch_warnings(), redirect_stdout(_Muted(sys.stdout)), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        if bars:
            hf_logging.enable_progress_bar()
