"""Exported figures: pages that need no network, atomic writes, and errors of the browser."""

import inspect
import re
import sys

import pytest
from plotly.offline import get_plotlyjs

from mechxai.core.errors import ArtifactError, ConfigError
from mechxai.core.files import write_atomic
from mechxai.figures import browser, export
from mechxai.figures.browser import browser_available
from mechxai.figures.export import figure_div, save_html, save_png
from mechxai.figures.plot import plot
from tests.figures.examples import sweep

LINK = re.compile(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=")


def test_a_page_stands_alone(tmp_path):
    path = save_html(plot(sweep()), tmp_path / "deep" / "map.html")
    page = path.read_text()
    assert page.count(get_plotlyjs()) == 1
    rest = page.replace(get_plotlyjs(), "")
    assert not LINK.search(rest)
    assert "https://" not in rest
    assert "<title>map</title>" in rest


def test_pages_of_a_folder_share_one_script(tmp_path):
    for name in ("one", "two"):
        save_html(plot(sweep()), tmp_path / f"{name}.html", plotlyjs="directory")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "plotly.min.js", "two.html"]
    assert (tmp_path / "one.html").stat().st_size < 200_000
    assert LINK.findall((tmp_path / "one.html").read_text()) == ['<script charset="utf-8" src=']
    with pytest.raises(ConfigError, match="embed"):
        inspect.unwrap(save_html)(plot(sweep()), tmp_path / "x.html", plotlyjs="cdn")  # without checks of annotations


def test_no_button_uploads_the_figure():
    assert "modeBarButtons" in figure_div(plot(sweep()), "one")
    assert plot(sweep()).layout.template.layout.modebar.remove == ("sendChartToCloud",)


def test_a_token_cannot_end_the_script():
    labels = ["0: </script><script>alert(1)</script>", "1: b"]
    div = figure_div(plot(sweep(sizes=(2, 2), labels=labels)), "one")
    assert div.count("<script") == div.count("</script>") == 1
    assert "alert(1)" in div


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "page.html"
    target.write_text("before")
    monkeypatch.setattr(export.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_atomic(target, "after")
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_without_a_browser_a_png_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "browser_available", lambda: False)
    with pytest.raises(ArtifactError, match="save_html"):
        save_png(plot(sweep()), tmp_path / "map.png")
    assert not list(tmp_path.iterdir())


def test_a_browser_that_fails_is_an_artifact_error(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "browser_available", lambda: True)
    monkeypatch.setattr(browser, "_COMMAND", (sys.executable, "-c", """print('{"error": "the browser died"}')"""))
    with pytest.raises(ArtifactError, match="the browser died"):
        save_png(plot(sweep()), tmp_path / "map.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not browser_available(), reason="no Chrome or Chromium")
def test_png(tmp_path):
    path = save_png(plot(sweep()), tmp_path / "map.png", scale=1.0)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]
