"""The template of all figures, set on each figure; plotly's global defaults stay unchanged."""

import plotly.graph_objects as go

from mechxai.figures.colors import LINES
from mechxai.figures.text import wrapped

FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif"
INK = "#1f2933"
QUIET = "#616e7c"
MISSING = "#c9ced6"
# Only these buttons: plotly's default set includes one that uploads the figure.
CONFIG = {
    "displayModeBar": "hover",
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
}
_MODE_BAR = 120
_TITLE_LINE, _SUBTITLE_LINE = 22, 17
_AXIS = {
    "showline": True,
    "linecolor": "#9aa5b1",
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": "#9aa5b1",
    "gridcolor": "#e4e7eb",
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 10, "font": {"size": 13}},
    "tickfont": {"size": 11},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": LINES,
        "modebar": {"remove": ["sendChartToCloud"]},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": "#9aa5b1",
            "font": {"family": FONT, "size": 12, "color": INK},
            "align": "left",
        },
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.0,
            "xanchor": "left",
            "x": 0,
            "traceorder": "normal",
        },
        "coloraxis": {"colorbar": {"thickness": 14, "outlinewidth": 0, "ticklen": 3, "tickfont": {"size": 11}}},
    }
)


def headline(title: str, width: int) -> str:
    """A bold title, broken into lines that fit a figure of ``width`` pixels."""
    return "<br>".join(f"<b>{line}</b>" for line in wrapped(title, int((width - _MODE_BAR) / 8.4)))


def dress(
    figure: go.Figure, title: str, subtitle: list[str], *, size: tuple[int, int], room: tuple[int, int] = (0, 0)
) -> go.Figure:
    """Sets the template, the title and the size of a figure.

    Args:
        figure: changed in place.
        title: one sentence; broken into lines that fit.
        subtitle: smaller lines below the title; empty ones are left out.
        size: width and height of the plotting area in pixels.
        room: extra pixels above the plotting area (for a legend) and below it (for long labels).

    Returns:
        The same figure.
    """
    width = max(size[0] + 190, 680)
    heading = headline(title, width)
    subtitle_lines = [line for part in subtitle if part for line in wrapped(part, int(width / 6.3))]
    breaks = heading.count("<br>")
    top = 56 + _TITLE_LINE * breaks + _SUBTITLE_LINE * len(subtitle_lines) + room[0]
    figure.update_layout(
        template=TEMPLATE,
        width=width,
        height=size[1] + top + 80 + room[1],
        margin={"l": 60, "r": 30, "t": top, "b": 60 + room[1]},
        title={
            "text": heading,
            "subtitle": {"text": "<br>".join(subtitle_lines), "font": {"size": 12, "color": QUIET}},
            "font": {"size": 16},
            "x": 0,
            "xref": "container",
            # Plotly centres several lines where the centre of a single line would be.
            "pad": {"l": 16, "t": 14 + breaks * _TITLE_LINE // 2},
            "y": 1,
            "yref": "container",
            "yanchor": "top",
        },
    )
    return figure
