"""Text for figures: tokens made harmless and visible, numbers at a readable length."""

import html
import math
import textwrap
import unicodedata


def printable(text: str) -> str:
    r"""The text with what cannot be seen (line breaks, tabs, control and direction marks) as escapes such as ``\n``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shortened(text: str, limit: int) -> str:
    """At most ``limit`` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def safe(text: object, limit: int | None = None) -> str:
    """Any text for a plotly label, which reads HTML tags: made visible, cut to ``limit``, escaped."""
    shown = printable(str(text))
    return html.escape(_isolated(shown if limit is None else shortened(shown, limit)), quote=False)


def _isolated(text: str) -> str:
    """Text with letters that run from right to left keeps them from turning what stands around it."""
    leftward = any(unicodedata.bidirectional(char) in {"R", "AL", "AN"} for char in text)
    return f"\u2068{text}\u2069" if leftward else text


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a plotly title, each made harmless."""
    return [safe(line) for line in textwrap.wrap(printable(text), width)] or [""]


def number(value: float, unit: str = "") -> str:
    """Three telling digits and the unit: ``0.831``, ``12.4 logits``; ``no value`` for NaN."""
    if math.isnan(value):
        return "no value"
    size = abs(value)
    if math.isinf(value):
        shown = "∞" if value > 0 else "-∞"
    elif size < 1e6 and (value == int(value) or size >= 999.5):
        shown = f"{value:.0f}"
    else:
        shown = f"{value:.3g}"
    signed = shown.replace("-", "\N{MINUS SIGN}", 1) if shown.startswith("-") else shown
    return signed + (f" {unit}" if unit and unit != "1" else "")


def interval(low: float, high: float) -> str:
    """``0.71 to 0.93``; empty when either end is missing."""
    return "" if math.isnan(low) or math.isnan(high) else f"{number(low)} to {number(high)}"


def words(name: str) -> str:
    """An identifier as words: ``activation_patching`` becomes ``activation patching``."""
    return name.replace("_", " ")
