"""Figures as files: HTML that opens from disk without a network, PNG where a browser is at hand."""

import html
import os
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mechxai.core.errors import ArtifactError, ConfigError, nearest
from mechxai.core.files import write_atomic
from mechxai.figures.browser import browser_available, draw
from mechxai.figures.theme import CONFIG

_SCRIPT = "plotly.min.js"
_MODES: dict[str, bool | str] = {"embed": True, "directory": "directory"}


def save_html(figure: go.Figure, path: str | os.PathLike[str], *, plotlyjs: str = "embed") -> Path:
    """Writes a page with the figure; it opens from disk, offline.

    Args:
        figure: any.
        path: of the page.
        plotlyjs: ``embed`` for one file that stands alone (4.8 MB), ``directory`` for small pages that share one
            ``plotly.min.js`` in their folder.

    Raises:
        ConfigError: another mode.
    """
    if plotlyjs not in _MODES:
        raise ConfigError(f"save_html(plotlyjs={plotlyjs!r}) was asked", allowed=nearest(plotlyjs, _MODES))
    target = Path(path)
    if plotlyjs == "directory" and not (target.parent / _SCRIPT).is_file():
        write_atomic(target.parent / _SCRIPT, get_plotlyjs())
    page = figure.to_html(include_plotlyjs=_MODES[plotlyjs], div_id="figure", config=CONFIG)
    return write_atomic(target, page.replace("<head>", f"<head><title>{html.escape(target.stem)}</title>", 1))


def figure_div(figure: go.Figure, identifier: str) -> str:
    """The figure as a piece of a page that has loaded plotly.js already; its JSON cannot end the script."""
    return figure.to_html(include_plotlyjs=False, full_html=False, div_id=identifier, config=CONFIG)


def save_png(figure: go.Figure, path: str | os.PathLike[str], *, scale: float = 2.0) -> Path:
    """Writes a PNG through kaleido; about three seconds for a figure, 0.3 inside `one_browser`.

    Raises:
        ArtifactError: no kaleido, no browser, or the browser failed. Nothing else, and no file is left behind.
    """
    target = Path(path)
    if not browser_available():
        raise ArtifactError(
            f"PNG {target} was asked",
            got="no kaleido, or no Chrome or Chromium",
            fix="install mechxai[png] and Chromium (apt install chromium, or plotly_get_chrome), or use save_html",
        )
    options = {
        "format": "png",
        "scale": scale,
        "width": figure.layout.width or 700,
        "height": figure.layout.height or 500,
    }
    try:
        image = draw(str(figure.to_json()), options)
    except OSError as error:
        raise ArtifactError(f"PNG {target} was asked", got=str(error), fix="use save_html") from error
    return write_atomic(target, image)
