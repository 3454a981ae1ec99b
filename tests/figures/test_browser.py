"""One browser draws several figures, and figures survive its failures."""

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
    """The list of started processes."""
    processes = []

    def counted(*args, **kwargs):
        processes.append(subprocess.Popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(browser, "subprocess", type("Counted", (), {**vars(subprocess), "Popen": counted}))
    return processes


@pytest.fixture
def stand_in(monkeypatch, opened):
    """Replaces the process by a program that runs for every request line.

    Returns:
        A function that takes the program.
    """

    def settle(program):
        lines = "import sys, time\nfor number, line in enumerate(sys.stdin.buffer):\n    "
        monkeypatch.setattr(browser, "_COMMAND", (sys.executable, "-u", "-c", lines + program))

    return settle


DRAWN = """print('{"size": 5}\\nimage', end="")"""


def is_png(image):
    return image.startswith(b"\x89PNG")


@needs_browser
def test_one_browser_draws_all_figures_and_ends(opened):
    with shared_browser(), shared_browser():
        assert all(is_png(draw(FIGURE, OPTIONS)) for _ in range(3))
    assert [process.poll() for process in opened] == [0]
    assert is_png(draw(FIGURE, OPTIONS)), "outside shared_browser each figure opens a browser"
    assert [process.poll() for process in opened] == [0, 0]


@needs_browser
def test_figures_survive_a_killed_browser_and_a_bad_figure(opened):
    with shared_browser():
        assert is_png(draw(FIGURE, OPTIONS))
        opened[0].kill()
        assert is_png(draw(FIGURE, OPTIONS))
        with pytest.raises(OSError, match="format"):
            draw(FIGURE, {**OPTIONS, "format": "painting"})
        assert is_png(draw(FIGURE, OPTIONS))


def test_the_process_ends_when_idle():
    pytest.importorskip("kaleido")
    code = "from mechxai.figures import kaleido_process as process; process.IDLE = 0.0; process.main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait(120) == 0


def test_a_closed_browser_is_reopened(stand_in, opened):
    stand_in(f"{DRAWN}; sys.exit()")
    with shared_browser():
        assert [draw(FIGURE, OPTIONS) for _ in range(3)] == [b"image"] * 3
    assert len(opened) == 3


def test_an_error_is_raised_after_a_second_try(stand_in, opened):
    stand_in("""print('{"error": "ValueError: no such format"}') if number else """ + DRAWN)
    with shared_browser():
        assert draw(FIGURE, OPTIONS) == b"image"
        assert draw(FIGURE, OPTIONS) == b"image"
    assert len(opened) == 2
    stand_in("""print('{"error": "ValueError: no such format"}')""")
    with shared_browser(), pytest.raises(OSError, match="ValueError: no such format"):
        draw(FIGURE, OPTIONS)
    assert len(opened) == 3


def test_a_hanging_browser_is_killed(stand_in, opened, monkeypatch):
    monkeypatch.setattr(browser, "_TIMEOUT", 0.5)
    stand_in("time.sleep(600)")
    began = time.monotonic()
    with shared_browser(), pytest.raises(OSError, match="longer than"):
        draw(FIGURE, OPTIONS)
    assert time.monotonic() - began < 60
    assert all(process.poll() is not None for process in opened)


def test_a_truncated_image_is_drawn_again(stand_in, opened):
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
    images = []
    with shared_browser():
        threads = [threading.Thread(target=lambda: images.append(draw(FIGURE, OPTIONS))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert images == [b"image"] * 4
    assert len(opened) == 1


def test_no_browser_opens_without_a_figure(opened):
    with shared_browser():
        pass
    assert opened == []


def test_no_browser_without_kaleido(monkeypatch):
    monkeypatch.setattr(browser.importlib.util, "find_spec", lambda _: None)
    assert not browser_available()
