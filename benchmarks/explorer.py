"""How long the explorer takes: to its first picture, and from a click or a key to what follows.

``make bench-explorer``; on an idle machine, in headless Chromium, server and browser on the same cores.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import threading
import time

from werkzeug.serving import make_server

from benchmarks.browser import Page
from benchmarks.machine import conditions, one_thread, results, write
from benchmarks.timing import digits
from mechxai.cli.explore import explorer_state
from mechxai.explore.app import application

QUIET = 0.4  # seconds in which nothing may change any more
NAME, MODEL = "explorer.json", "zoo/ioi"
FIGURES = "document.querySelectorAll('[data-drawn]').length"
LOADING = "document.querySelector('[data-dash-is-loading=true]')"
WAITING = "Object.values(window.dash_stores[0].getState().callbacks).some((one) => one.length)"
PAUSE = "new Promise((done) => setTimeout(done, 50))"
WHERE = "document.getElementById('where').textContent"


class Served:
    """``with Served(state) as address``: the explorer in a thread."""

    def __init__(self, state):
        self._server = make_server("127.0.0.1", 0, application(state).server, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self):
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line per request
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def first_picture(page, address):
    """Seconds from the navigation to the first figure that is painted, by the page's own clock."""
    page.open("about:blank")
    page.open(address)
    page.wait(f"location.href !== 'about:blank' && {FIGURES} > 0 && window.firstPicture")
    return page.run("window.firstPicture") / 1000


def moved(page, name, times):
    """Seconds from a key to the last change it makes of the page, by the page's own clock, each of several times."""
    found = []
    for _ in range(times):
        settle(page)
        before = page.run(WHERE)
        page.press(name)
        page.wait(f"{WHERE} !== {json.dumps(before)}")
        settle(page)
        time.sleep(QUIET)
        found.append(page.run("followed - pressed") / 1000)
    return found


def settle(page):
    """Waits until no request is under way or about to be sent, and the figures are drawn."""
    busy = f"Boolean({LOADING} || {WAITING})"
    while True:
        page.wait(f"!{busy}")
        page.run(PAUSE)  # what one answer asks for next
        if not page.run(busy):
            return


def main():
    """Measures, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once; nothing committed is touched")
    quick = parser.parse_args().quick
    one_thread()
    found = {"conditions": conditions("make bench-explorer") | {"model": MODEL, "load": os.getloadavg()[0]}}
    with Served(explorer_state({"model": MODEL})) as address, Page() as page:
        cold = first_picture(page, address)
        warm = [first_picture(page, address) for _ in range(1 if quick else 5)]
        page.run("document.querySelector('.panel.lens').focus()")
        found["milliseconds"] = {
            "first picture, nothing in the browser's cache": digits(1000 * cold),
            "first picture after that": _middle(warm),
            "another position": _middle(moved(page, "ArrowLeft", 2 if quick else 9)),
            "another layer": _middle(moved(page, "ArrowDown", 1 if quick else 3)),
            "another head": _middle(moved(page, "]", 1 if quick else 5)),
        }
    target = write(NAME, found, quick=quick)
    print(f"written to {target}; {results(NAME, quick=quick)}", file=sys.stderr)
    print(json.dumps(found["milliseconds"], indent=1))


def _middle(seconds):
    return digits(1000 * statistics.median(seconds))


if __name__ == "__main__":
    main()
