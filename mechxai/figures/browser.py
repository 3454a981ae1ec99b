"""A browser that stays open for several PNGs; kaleido opens one per figure, which takes longer than the figure."""

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

_IDLE = 60.0  # seconds without a figure after which it closes, and opens again for the next one
_PATIENCE = 90.0  # seconds for it to open, and for a figure
_OPTIONS = {"n": 1, "mathjax": False}  # with mathjax, kaleido's page asks a network for it


def browser_available() -> bool:
    """Whether kaleido is installed and finds Chrome or Chromium."""
    if importlib.util.find_spec("kaleido") is None:
        return False
    chromium = importlib.import_module("choreographer.browsers.chromium")
    return chromium.Chromium.find_browser(skip_local=False) is not None


@contextlib.contextmanager
def one_browser() -> Iterator[None]:
    """What is drawn meanwhile is drawn in one browser, which opens for the first figure.

    Yields:
        Nothing; `draw` knows of it.
    """
    if _Browser.open_one is not None:
        yield
        return
    browser = _Browser.open_one = _Browser()
    try:
        yield
    finally:
        _Browser.open_one = None
        browser.end()


def draw(figure: Mapping[str, Any], options: Mapping[str, Any]) -> bytes:
    """A figure as an image: 0.3 seconds inside `one_browser` but for the first, three elsewhere.

    Where the open browser fails, the figure gets one of its own; what that raises is raised here.

    Args:
        figure: as plotly's ``to_dict`` gives it.
        options: kaleido's: format, width, height, scale.
    """
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)  # what fails comes as an exception
    if _Browser.open_one is not None:
        try:
            return _Browser.open_one.draw(figure, options)
        except Exception:  # noqa: BLE001 - gone, killed or stuck, it is not asked again
            _Browser.open_one = None
    kaleido = importlib.import_module("kaleido")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kopts mean nothing to a kaleido server that already runs, which it says
        return kaleido.calc_fig_sync(figure, opts=dict(options), kopts=dict(_OPTIONS))


class _Browser:
    """kaleido in a thread with an event loop of its own.

    Attributes:
        open_one: the one that is open in this process.
    """

    open_one: "_Browser | None" = None

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._ready: Future[tuple[Any, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._used = False

    def _begin(self) -> None:
        """Opens it, where it is not open; does not wait."""
        if self._thread is None or not self._thread.is_alive():
            self._ready = Future()
            self._thread = threading.Thread(target=asyncio.run, args=(self._live(self._ready),), daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Closes it; waits a little."""
        if self._thread is None or not self._thread.is_alive():
            return
        with contextlib.suppress(Exception):
            _, loop, end = self._ready.result(_PATIENCE)
            loop.call_soon_threadsafe(end.set)
            self._thread.join(5.0)

    def draw(self, figure: Mapping[str, Any], options: Mapping[str, Any]) -> bytes:
        """A figure as an image."""
        self._begin()
        inside, loop, _ = self._ready.result(_PATIENCE)
        self._used = True
        return asyncio.run_coroutine_threadsafe(inside.calc_fig(figure, opts=dict(options)), loop).result(_PATIENCE)

    async def _live(self, ready: "Future[tuple[Any, asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
        end = asyncio.Event()
        try:
            kaleido = importlib.import_module("kaleido")
            async with kaleido.Kaleido(**_OPTIONS) as inside:
                ready.set_result((inside, asyncio.get_running_loop(), end))
                self._used = True
                while self._used and not end.is_set():
                    self._used = False
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(end.wait(), _IDLE)
        except Exception as error:  # noqa: BLE001 - told to whoever waits for it
            if not ready.done():
                ready.set_exception(error)
