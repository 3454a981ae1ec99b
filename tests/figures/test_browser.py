"""One browser draws several figures, and its end costs none of them."""

import subprocess
import sys
import threading
import time

import plotly.graph_objects as go
import pytest

from mechxai.figures import browser
from mechxai.figures.browser import browser_available, draw, shared_browser

OPTIONS = {"format": "png", "width": 200, "height": 100, "scale": 1.0}
FIGURE = go.Figure(go.Bar(y=[1.0, 2.0])).to_json()
needs_browser = pytest.mark.skipif(not browser_available(), reason="no Chrome or Chromium")


@pytest.fixture
def opened(monkeypatch):
    """A list that grows with each process that is started."""
    found = []

    def counted(*given, **more):
        found.append(subprocess.Popen(*given, **more))
        return found[-1]

    monkeypatch.setattr(browser, "subprocess", type("Counted", (), {**vars(subprocess), "Popen": counted}))
    return found


@pytest.fixture
def stand_in(monkeypatch, opened):
    """What the process is instead: its program, run with every line that it is asked.

    Returns:
        A function of the program.
    """

    def settle(program):
        lines = "import sys, time\nfor number, line in enumerate(sys.stdin.buffer):\n    "
        monkeypatch.setattr(browser, "_COMMAND", (sys.executable, "-u", "-c", lines + program))

    return settle


DRAWN = """print('{"size": 5}\\nimage', end="")"""


def is_png(image):
    return image.startswith(b"\x89PNG")


@needs_browser
def test_one_browser_draws_all_and_is_gone_afterwards(opened):
    with shared_browser(), shared_browser():
        assert all(is_png(draw(FIGURE, OPTIONS)) for _ in range(3))
    assert [one.poll() for one in opened] == [0]
    assert is_png(draw(FIGURE, OPTIONS)), "elsewhere each figure has its own"
    assert [one.poll() for one in opened] == [0, 0]


@needs_browser
def test_a_figure_survives_the_browser_and_a_bad_one_costs_no_other(opened):
    with shared_browser():
        assert is_png(draw(FIGURE, OPTIONS))
        opened[0].kill()
        assert is_png(draw(FIGURE, OPTIONS))
        with pytest.raises(OSError, match="format"):
            draw(FIGURE, {**OPTIONS, "format": "painting"})
        assert is_png(draw(FIGURE, OPTIONS))


def test_it_closes_where_nothing_is_drawn_for_a_while():
    pytest.importorskip("kaleido")
    code = "from mechxai.figures import kaleido_process as one; one.IDLE = 0.0; one.main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait(120) == 0


def test_one_that_has_closed_is_opened_again(stand_in, opened):
    stand_in(f"{DRAWN}; sys.exit()")
    with shared_browser():
        assert [draw(FIGURE, OPTIONS) for _ in range(3)] == [b"image"] * 3
    assert len(opened) == 3


def test_an_error_is_told_after_a_second_try(stand_in, opened):
    stand_in("""print('{"error": "ValueError: no such format"}') if number else """ + DRAWN)
    with shared_browser():
        assert draw(FIGURE, OPTIONS) == b"image"
        assert draw(FIGURE, OPTIONS) == b"image"
    assert len(opened) == 2
    stand_in("""print('{"error": "ValueError: no such format"}')""")
    with shared_browser(), pytest.raises(OSError, match="ValueError: no such format"):
        draw(FIGURE, OPTIONS)
    assert len(opened) == 3


def test_one_that_hangs_is_ended(stand_in, opened, monkeypatch):
    monkeypatch.setattr(browser, "_TIMEOUT", 0.5)
    stand_in("time.sleep(600)")
    began = time.monotonic()
    with shared_browser(), pytest.raises(OSError, match="longer than"):
        draw(FIGURE, OPTIONS)
    assert time.monotonic() - began < 60
    assert all(one.poll() is not None for one in opened)


def test_half_an_answer_is_none(stand_in, opened):
    stand_in(f"""{DRAWN} if number == 0 else print('{{"size": 50}}\\nimage', end="") or sys.exit()""")
    with shared_browser():
        assert [draw(FIGURE, OPTIONS) for _ in range(3)] == [b"image"] * 3
    assert len(opened) == 3


def test_an_interrupted_figure_is_not_taken_for_the_next(stand_in, opened, monkeypatch):
    stand_in(DRAWN)

    def interrupted(*_):
        raise KeyboardInterrupt

    with shared_browser():
        with monkeypatch.context() as patched:
            patched.setattr(browser.json, "loads", interrupted)
            with pytest.raises(KeyboardInterrupt):
                draw(FIGURE, OPTIONS)
        assert draw(FIGURE, OPTIONS) == b"image"
    assert len(opened) == 2


def test_threads_share_one(stand_in, opened):
    stand_in(DRAWN)
    found = []
    with shared_browser():
        threads = [threading.Thread(target=lambda: found.append(draw(FIGURE, OPTIONS))) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert found == [b"image"] * 4
    assert len(opened) == 1


def test_none_is_opened_where_nothing_is_drawn(opened):
    with shared_browser():
        pass
    assert opened == []


def test_without_kaleido_there_is_none(monkeypatch):
    monkeypatch.setattr(browser.importlib.util, "find_spec", lambda _: None)
    assert not browser_available()
