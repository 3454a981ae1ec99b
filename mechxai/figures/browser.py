"""A browser that stays open for several PNGs; kaleido opens one per figure, which takes longer than the figure.

It lives in a process of its own, which `kaleido_process` is, so that nothing of it is in the way of what is computed
meanwhile, and so that it ends with this process, however that ends.
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
_PATIENCE = 90.0  # seconds for it to open, and for a figure
_ENDING = 5.0  # seconds for it to end


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
    """A figure as an image: 0.3 seconds inside `one_browser` but for the first, three elsewhere.

    Args:
        figure: as plotly's ``to_json`` gives it.
        options: kaleido's: format, width, height, scale.

    Raises:
        OSError: there is no process to be had, or kaleido or the browser failed, in a new browser too.
    """
    asked = f'{{"figure": {figure}, "options": {json.dumps(dict(options))}}}\n'.encode()
    if _Browser.shared is not None:
        return _Browser.shared.draw(asked)
    with contextlib.closing(_Browser()) as browser:
        return browser.draw(asked)


class _Browser:
    """kaleido in a process of its own.

    Attributes:
        shared: the one that `one_browser` holds in this process.
    """

    shared: "_Browser | None" = None

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    def draw(self, asked: bytes) -> bytes:
        """A figure as an image; where the open browser fails or has closed, a new one is asked."""
        with self._lock:
            before = self._process
            try:
                return self._answer(asked)
            except BaseException as error:  # an interruption too: its answer must not be taken for the next one's
                self.close()
                if before is None or not isinstance(error, OSError):
                    raise
            return self._answer(asked)

    def close(self) -> None:
        """Closes it, where it is open."""
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            try:
                process.communicate(timeout=_ENDING)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
                process.communicate()

    def _answer(self, asked: bytes) -> bytes:
        if self._process is None:
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this process, which ends the other
            )
        process = self._process
        given, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        too_long = threading.Timer(_PATIENCE, process.kill)
        too_long.start()
        try:
            given.write(asked)
            given.flush()
            said = answers.readline()
            head = json.loads(said) if said.endswith(b"}\n") else {}
            image = answers.read(head.get("size", 0))
        finally:
            too_long.cancel()
        if not image or len(image) < head["size"]:
            raise OSError(head.get("error", f"the browser ended, or took longer than {_PATIENCE:.0f} s"))
        return image
