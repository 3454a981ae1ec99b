"""Outputs of notebooks in the form in which they are saved."""

import nbformat
import pytest

from mechxai.figures.browser import browser_available
from notebooks.run import saved_outputs

new_output = nbformat.v4.new_output


def printed(name, text):
    return new_output("stream", name=name, text=text)


def test_prints_are_joined_and_standard_error_is_removed():
    outputs = [printed("stdout", "a\n"), printed("stderr", "50%\r"), printed("stdout", "b\n")]
    (saved,) = saved_outputs(outputs)
    assert (saved.name, saved.text) == ("stdout", "a\nb\n")


def test_large_html_is_removed_and_small_html_stays():
    table, page = "<table></table>", "<p>" + "x" * 60_000
    small, large = saved_outputs(
        [new_output("execute_result", {"text/html": html, "text/plain": "text"}) for html in (table, page)]
    )
    assert small.data == {"text/html": table, "text/plain": "text"}
    assert large.data == {"text/plain": "text"}


@pytest.mark.skipif(not browser_available(), reason="kaleido or a browser is missing")
def test_a_figure_becomes_a_png_of_its_size():
    figure = {"data": [{"type": "bar", "x": ["a"], "y": [1]}], "layout": {"width": 400, "height": 200}}
    (saved,) = saved_outputs([new_output("display_data", {"application/vnd.plotly.v1+json": figure})])
    assert set(saved.data) == {"image/png", "text/plain"}
    assert saved.metadata == {"image/png": {"width": 400, "height": 200}}
