"""A process that renders figures with kaleido.

Each input line holds a figure and its options. Each answer is a line of JSON with the image's size in bytes, then the
image. `browser` starts this file by its path, and it imports nothing from this package. The process ends when its
input ends, after `IDLE` seconds without a figure, and after an error, so that the next figure gets a new browser.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import os
import sys
import threading
from typing import Any, BinaryIO

IDLE = 60.0  # seconds


async def serve(output: BinaryIO) -> None:
    """Renders figures from standard input until the input ends or no figure arrives for `IDLE` seconds."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes]()

    def read() -> None:
        for line in iter(sys.stdin.buffer.readline, b""):
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, b"")

    threading.Thread(target=read, daemon=True).start()
    kaleido: Any = importlib.import_module("kaleido")
    async with kaleido.Kaleido(n=1, mathjax=False) as browser:  # mathjax would be loaded from the network
        with contextlib.suppress(TimeoutError):
            while line := await asyncio.wait_for(lines.get(), IDLE):
                request = json.loads(line)
                image = await browser.calc_fig(request["figure"], opts=request["options"])
                _write(output, {"size": len(image)}, image)


def _write(output: BinaryIO, header: dict[str, Any], image: bytes = b"") -> None:
    output.write(json.dumps(header).encode() + b"\n" + image)
    output.flush()


def main() -> None:
    """Serves figures; an error is reported in the last header."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps other libraries' prints out of the answers
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    try:
        asyncio.run(serve(output))
    except Exception as error:  # noqa: BLE001 - reported to the parent process
        with contextlib.suppress(OSError):
            _write(output, {"error": f"{type(error).__name__}: {error}"})
    os._exit(0)  # the reading thread may still be blocked


if __name__ == "__main__":
    main()
