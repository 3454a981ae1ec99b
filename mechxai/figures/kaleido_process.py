"""A process that draws: a figure and its options a line of standard input, a size and so many bytes of standard output.

`browser` starts it by its path, and it imports nothing of this package. It ends with its input, when it has had nothing
to draw for a while, and after an error, so that the next figure gets a new browser.
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


async def serve(answers: BinaryIO) -> None:
    """Draws what it is asked, until nothing is asked any more."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes]()

    def read() -> None:
        for line in iter(sys.stdin.buffer.readline, b""):
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, b"")

    threading.Thread(target=read, daemon=True).start()
    kaleido: Any = importlib.import_module("kaleido")
    async with kaleido.Kaleido(n=1, mathjax=False) as browser:  # mathjax would be asked of a network
        with contextlib.suppress(TimeoutError):
            while line := await asyncio.wait_for(lines.get(), IDLE):
                asked = json.loads(line)
                image = await browser.calc_fig(asked["figure"], opts=asked["options"])
                _answer(answers, {"size": len(image)}, image)


def _answer(answers: BinaryIO, head: dict[str, Any], body: bytes = b"") -> None:
    answers.write(json.dumps(head).encode() + b"\n" + body)
    answers.flush()


def main() -> None:
    """Serves; an error is the last answer."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what others print is no answer
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    try:
        asyncio.run(serve(answers))
    except Exception as error:  # noqa: BLE001 - told to whoever asked
        with contextlib.suppress(OSError):
            _answer(answers, {"error": f"{type(error).__name__}: {error}"})
    os._exit(0)  # the thread may still be reading


if __name__ == "__main__":
    main()
