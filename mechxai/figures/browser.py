"""PNG rendering in a browser that stays open for several figures.

Kaleido opens a browser per figure, which takes longer than drawing it. Here the browser runs in a separate process
(`kaleido_process`), so that it does not interfere with computations and ends with this process in every case.
"""

import contextlib
import importlib
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("kaleido_process.py")))
_TIMEOUT = 90.0  # seconds to open the browser and draw a figure
_CLOSE_TIMEOUT = 5.0  # seconds


def browser_available() -> bool:
    """Whether kaleido is installed and finds Chrome or Chromium."""
    if importlib.util.find_spec("kaleido") is None:
        return False
    chromium = importlib.import_module("choreographer.browsers.chromium")
    return chromium.Chromium.find_browser(skip_local=False) is not None


@contextlib.contextmanager
def shared_browser() -> Iterator[None]:
    """Draws all figures inside the ``with`` block in one browser, which opens for the first figure.

    Yields:
        Nothing; `draw` uses the open browser.
    """
    if _Browser.shared is not None:
        yield
        return
    with contextlib.closing(_Browser()) as browser:
        _Browser.shared = browser
        try:
            yield
        finally:
            _Browser.shared = None


def draw(figure: str, options: Mapping[str, Any]) -> bytes:
    """Renders a figure as an image: about 3 s, or 0.3 s per further figure inside `shared_browser`.

    Args:
        figure: plotly's ``to_json``.
        options: kaleido's format, width, height and scale.

    Raises:
        OSError: the process did not start, or kaleido or the browser failed twice.
    """
    request = f'{{"figure": {figure}, "options": {json.dumps(dict(options))}}}\n'.encode()
    if _Browser.shared is not None:
        return _Browser.shared.draw(request)
    with contextlib.closing(_Browser()) as browser:
        return browser.draw(request)


class _Browser:
    """Kaleido in a separate process.

    Attributes:
        shared: the browser of this process's `shared_browser`.
    """

    shared: "_Browser | None" = None

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    def draw(self, request: bytes) -> bytes:
        """Renders a figure; if the open browser fails or has closed, tries once more in a new one."""
        with self._lock:
            process = self._process
            try:
                return self._render(request)
            except BaseException as error:  # interruptions too: a late image must not answer the next request
                self.close()
                if process is None or not isinstance(error, OSError):
                    raise
            return self._render(request)

    def close(self) -> None:
        """Ends the process if there is one."""
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            try:
                process.communicate(timeout=_CLOSE_TIMEOUT)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
                process.communicate()

    def _render(self, request: bytes) -> bytes:
        if self._process is None:
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches only this process, which ends the other
            )
        process = self._process
        stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        timer = threading.Timer(_TIMEOUT, process.kill)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # a process that has ended may still have said why
                stdin.write(request)
                stdin.flush()
            line = stdout.readline()
            header = json.loads(line) if line.endswith(b"}\n") else {}
            image = stdout.read(header.get("size", 0))
        finally:
            timer.cancel()
        if not image or len(image) < header["size"]:
            raise OSError(header.get("error", f"the browser ended, or took longer than {_TIMEOUT:.0f} s"))
        return image
