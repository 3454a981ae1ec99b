"""Figures as files: HTML that opens without a network, and PNG where a browser is installed."""

import html
import os
from pathlib import Path
from typing import Literal, get_args

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mechxai.core.errors import ArtifactError, check_choice
from mechxai.core.files import write_atomic
from mechxai.figures.browser import browser_available, draw
from mechxai.figures.theme import CONFIG

PlotlyJs = Literal["embed", "directory"]
_SCRIPT = "plotly.min.js"


def save_html(figure: go.Figure, path: str | os.PathLike[str], *, plotlyjs: PlotlyJs = "embed") -> Path:
    """Writes a page with the figure that opens without a network.

    Args:
        figure: any plotly figure.
        path: of the page.
        plotlyjs: ``embed`` for one self-contained file (4.8 MB), ``directory`` for small pages that share one
            ``plotly.min.js`` in their folder.

    Returns:
        The path.

    Raises:
        ConfigError: another value of ``plotlyjs``.
    """
    check_choice("plotlyjs", plotlyjs, get_args(PlotlyJs))
    target = Path(path)
    if plotlyjs == "directory" and not (target.parent / _SCRIPT).is_file():
        write_atomic(target.parent / _SCRIPT, get_plotlyjs())
    include = True if plotlyjs == "embed" else "directory"
    page = figure.to_html(include_plotlyjs=include, div_id="figure", config=CONFIG)
    return write_atomic(target, page.replace("<head>", f"<head><title>{html.escape(target.stem)}</title>", 1))


def figure_div(figure: go.Figure, identifier: str) -> str:
    """The figure as part of a page that loads plotly.js itself; text in the figure cannot end the script."""
    return figure.to_html(include_plotlyjs=False, full_html=False, div_id=identifier, config=CONFIG)


def save_png(figure: go.Figure, path: str | os.PathLike[str], *, scale: float = 2.0) -> Path:
    """Writes a PNG with kaleido: about 3 s, or 0.3 s per further figure inside `shared_browser`.

    Returns:
        The path.

    Raises:
        ArtifactError: kaleido or a browser is missing, or the browser failed. No partial file remains.
    """
    target = Path(path)
    if not browser_available():
        raise ArtifactError(
            f"Cannot write {target}: a PNG needs kaleido and Chrome or Chromium",
            fix="Install mechxai[png] and Chromium (apt install chromium, or plotly_get_chrome), or use save_html",
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
        raise ArtifactError(f"Cannot write {target}: {error}", fix="Use save_html") from error
    return write_atomic(target, image)
