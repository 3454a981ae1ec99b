"""One browser draws several figures, and its end costs none of them."""

import sys
import threading
import time
import types

import plotly.graph_objects as go
import pytest

from mechxai.figures import browser
from mechxai.figures.browser import browser_available, draw, one_browser

OPTIONS = {"format": "png", "width": 200, "height": 100, "scale": 1.0}
FIGURE = go.Figure(go.Bar(y=[1.0, 2.0])).to_dict()
needs_browser = pytest.mark.skipif(not browser_available(), reason="no Chrome or Chromium")


@pytest.fixture
def opened(monkeypatch):
    """A list that grows with each browser that is opened."""
    import kaleido

    found = []

    class Counted(kaleido.Kaleido):
        async def __aenter__(self):
            found.append(self)
            return await super().__aenter__()

    monkeypatch.setattr(kaleido, "Kaleido", Counted)
    return found


def is_png(image):
    return image.startswith(b"\x89PNG")


def wait(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def threads():
    return {one for one in threading.enumerate() if one.is_alive()}


@needs_browser
def test_one_browser_draws_all_and_is_gone_afterwards(opened):
    before = threads()
    with one_browser(), one_browser():
        assert all(is_png(draw(FIGURE, OPTIONS)) for _ in range(3))
        assert is_png(draw(FIGURE, OPTIONS))
    assert len(opened) == 1
    wait(lambda: threads() <= before)
    assert is_png(draw(FIGURE, OPTIONS)), "elsewhere each figure has its own"
    assert len(opened) == 2


@needs_browser
def test_it_closes_while_nothing_is_drawn_and_opens_again(opened, monkeypatch):
    monkeypatch.setattr(browser, "_IDLE", 0.2)
    with one_browser():
        assert is_png(draw(FIGURE, OPTIONS))
        wait(lambda: not browser._Browser.open_one._thread.is_alive())
        assert is_png(draw(FIGURE, OPTIONS))
    assert len(opened) == 2


@needs_browser
def test_a_figure_survives_the_browser(opened, monkeypatch):
    with one_browser():
        assert is_png(draw(FIGURE, OPTIONS))

        async def dead(*_, **__):
            raise RuntimeError("the browser died")

        monkeypatch.setattr(opened[0], "calc_fig", dead)
        assert is_png(draw(FIGURE, OPTIONS))
        assert is_png(draw(FIGURE, OPTIONS))
    assert len(opened) == 3, "one for each figure from then on"


def test_one_that_cannot_be_opened_holds_nothing_up(monkeypatch):
    def fails(**_):
        raise OSError("no memory for a browser")

    broken = types.SimpleNamespace(Kaleido=fails, calc_fig_sync=lambda *_, **__: b"drawn elsewhere")
    monkeypatch.setitem(sys.modules, "kaleido", broken)
    with one_browser():
        assert draw(FIGURE, OPTIONS) == b"drawn elsewhere"


def test_none_is_opened_where_nothing_is_drawn(opened):
    before = threads()
    with one_browser():
        assert threads() <= before
    assert opened == []


def test_without_kaleido_there_is_none(monkeypatch):
    monkeypatch.setattr(browser.importlib.util, "find_spec", lambda _: None)
    assert not browser_available()
