"""Text in figures: tokens escaped and made visible, numbers at a readable length."""

import html
import math
import textwrap
import unicodedata


def printable(text: str) -> str:
    r"""The text with invisible characters (line breaks, control and direction marks) as escapes such as ``\n``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shortened(text: str, limit: int) -> str:
    """At most ``limit`` characters; a cut text ends in an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def safe(text: object, limit: int | None = None) -> str:
    """Any text as a plotly label (plotly renders HTML tags): made visible, cut to ``limit`` characters, escaped."""
    visible = printable(str(text))
    return html.escape(_isolated(visible if limit is None else shortened(visible, limit)), quote=False)


def _isolated(text: str) -> str:
    """Right-to-left text in isolation marks, so that it does not reorder its surroundings."""
    right_to_left = any(unicodedata.bidirectional(char) in {"R", "AL", "AN"} for char in text)
    return f"\u2068{text}\u2069" if right_to_left else text


def wrapped(text: str, width: int) -> list[str]:
    """The text broken into escaped lines of at most ``width`` characters, for plotly titles."""
    return [safe(line) for line in textwrap.wrap(printable(text), width)] or [""]


def number(value: float, unit: str = "") -> str:
    """Three significant digits and the unit: ``0.831``, ``12.4 logits``; ``no value`` for NaN."""
    if math.isnan(value):
        return "no value"
    magnitude = abs(value)
    if math.isinf(value):
        digits = "∞" if value > 0 else "-∞"
    elif magnitude < 1e6 and (value == int(value) or magnitude >= 999.5):
        digits = f"{value:.0f}"
    else:
        digits = f"{value:.3g}"
    signed = digits.replace("-", "\N{MINUS SIGN}", 1) if digits.startswith("-") else digits
    return signed + (f" {unit}" if unit and unit != "1" else "")


def interval(low: float, high: float) -> str:
    """``0.71 to 0.93``; empty when either end is NaN."""
    return "" if math.isnan(low) or math.isnan(high) else f"{number(low)} to {number(high)}"


def words(name: str) -> str:
    """An identifier as words: ``activation_patching`` becomes ``activation patching``."""
    return name.replace("_", " ")
