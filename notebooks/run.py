"""Executes the notebooks and saves them with their outputs: ``make notebooks``, or ``python -m notebooks.run 02 05``.

Figures and pages become PNGs of 256 colours, because GitHub shows neither plotly figures nor pages with scripts (needs
Chromium). Warnings, progress bars and execution times are removed.
"""

import base64
import html
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import plotly.io as pio
from nbclient import NotebookClient
from PIL import Image

from benchmarks.browser import Page
from mechxai.figures.browser import draw, shared_browser

FOLDER = Path(__file__).parent
_FIGURE = "application/vnd.plotly.v1+json"
_PAGE = re.compile(r'<iframe srcdoc="([^"]*)"')
_LARGEST_HTML = 50_000  # characters
_SCALE = 1.5  # pixels of a PNG per pixel of its figure
_COLORS = 256  # of a PNG; a quarter of the size without visible difference
_PAGE_SIZE = 900, 580  # pixels
_TIMEOUT = 600  # seconds per cell
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main(prefixes: list[str]) -> None:
    """Executes and saves the notebooks whose names begin with one of the prefixes; all of them without prefixes."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not prefixes or path.name.startswith(tuple(prefixes)):
            notebook = nbformat.read(path, as_version=4)
            with shared_browser():
                execute(notebook)
            nbformat.write(notebook, path)
            print(f"{path.name} ({path.stat().st_size // 1024} KiB)", file=sys.stderr)


def execute(notebook: Any) -> None:
    """Runs all cells in an empty folder, and leaves the outputs in the form in which they are saved."""
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook, timeout=_TIMEOUT, kernel_name="python3", record_timing=False, resources=resources
        ).execute()
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = saved_outputs(cell.outputs)


def saved_outputs(outputs: list[Any]) -> list[Any]:
    """A cell's outputs without standard error, successive prints joined, figures and pages as PNGs."""
    saved: list[Any] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if saved and saved[-1].output_type == "stream":
                saved[-1].text += output.text
                continue
        elif "data" in output:
            _draw(output)
        saved.append(output)
    return saved


def _draw(output: Any) -> None:
    """Replaces a figure or a page by its PNG, and removes other HTML that is too large for a repository."""
    source = output.data.get("text/html", "")
    output.metadata = nbformat.from_dict({})
    if _FIGURE in output.data:
        _show(output, "plotly figure", _figure_png(output.data[_FIGURE]))
    elif page := _PAGE.search(source):
        _show(output, f"HTML page, {len(source) // 1000} kB", _page_png(html.unescape(page[1])))
    elif len(source) > _LARGEST_HTML:
        del output.data["text/html"]


def _show(output: Any, text: str, picture: tuple[bytes, tuple[int, int]]) -> None:
    """Makes a picture the output, displayed at its size in pixels."""
    image, size = picture
    palette = Image.open(io.BytesIO(image)).convert("RGB").quantize(_COLORS, Image.Quantize.MAXCOVERAGE, dither=0)
    palette.save(small := io.BytesIO(), "PNG", optimize=True)
    png = base64.b64encode(small.getvalue()).decode()
    output.data = nbformat.from_dict({"image/png": png, "text/plain": f"<{text}>"})
    output.metadata = nbformat.from_dict({"image/png": {"width": size[0], "height": size[1]}})


def _figure_png(figure: Any) -> tuple[bytes, tuple[int, int]]:
    source = {"data": figure["data"], "layout": figure["layout"]}
    width, height = source["layout"].get("width", 700), source["layout"].get("height", 500)
    image = draw(
        pio.to_json(source, validate=False), {"format": "png", "scale": _SCALE, "width": width, "height": height}
    )
    return image, (width, height)


def _page_png(source: str) -> tuple[bytes, tuple[int, int]]:
    with tempfile.TemporaryDirectory() as folder, Page(*_PAGE_SIZE) as page:
        path, image = Path(folder, "page.html"), Path(folder, "page.png")
        path.write_text(source)
        page.prefer("light")
        page.open(path.as_uri())
        page.run("new Promise(done => setTimeout(done, 1000))")
        page.picture(image)
        return image.read_bytes(), _PAGE_SIZE


if __name__ == "__main__":
    main(sys.argv[1:])
