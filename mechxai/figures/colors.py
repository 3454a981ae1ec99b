"""Colour scales: blue is towards the answer, red against it, white at the centre."""

from dataclasses import dataclass

import numpy as np

from mechxai.core.metric import METRICS

# ColorBrewer's RdBu, which is safe for colour-blind readers.
_RED = ("#67001f", "#b2182b", "#d6604d", "#f4a582", "#fddbc7")
_BLUE = ("#d1e5f0", "#92c5de", "#4393c3", "#2166ac", "#053061")
_STOPS = (*_RED, "#f7f7f7", *_BLUE)
TOWARDS, AGAINST = _BLUE[3], _RED[1]
DIVERGING = tuple((index / 10, color) for index, color in enumerate(_STOPS))
SEQUENTIAL = tuple((index / 5, color) for index, color in enumerate(_STOPS[5:]))
# Okabe and Ito's set for lines, also safe for colour-blind readers.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
_SIGNED = ("value", "recovered", "per_example", "selectivity", "agreement")
_TOWARDS = "towards the answer"


@dataclass(frozen=True)
class Scale:
    """A colour scale and its range.

    Attributes:
        stops: plotly's colour scale.
        low: value of the first colour.
        high: value of the last colour.
        note: the meaning of the colours, for the subtitle.
    """

    stops: tuple[tuple[float, str], ...]
    low: float
    high: float
    note: str

    @property
    def diverging(self) -> bool:
        """Whether the scale has a neutral colour in the middle."""
        return self.stops is DIVERGING

    def as_axis(self) -> dict[str, object]:
        """Range and stops of a plotly colour axis."""
        middle = {"cmid": (self.low + self.high) / 2} if self.diverging else {}
        return {"cmin": self.low, "cmax": self.high, "colorscale": self.stops, **middle}


def scale_of(values: np.ndarray, name: str, *, metric: object, center: float) -> Scale:
    """The scale of a variable: diverging and symmetric around ``center``, or sequential from 0 up.

    Args:
        values: the values to draw; NaN is ignored.
        name: of the variable. Effects and metrics are diverging even if no value is negative.
        metric: name of the metric, which decides what blue means.
        center: value of the neutral colour.
    """
    finite = values[np.isfinite(values)]
    higher_is = METRICS[metric].higher_is if isinstance(metric, str) and metric in METRICS else _TOWARDS
    signed = (name in _SIGNED or name.startswith("effect")) and (name != "value" or higher_is == _TOWARDS)
    if not signed and center == 0 and (finite >= 0).all():
        return Scale(SEQUENTIAL, 0.0, float(finite.max(initial=0.0)) or 1.0, "")
    reach = float(np.abs(finite - center).max(initial=0.0)) or 1.0
    return Scale(DIVERGING, center - reach, center + reach, _note(name, higher_is, center))


def _note(name: str, higher_is: str, center: float) -> str:
    middle = "white: 0" if center == 0 else f"white: {center:.3g}, no effect"
    if (name in ("value", "recovered", "per_example") or name.startswith("effect")) and higher_is == _TOWARDS:
        return f"blue: towards the answer, red: against, {middle}"
    if name == "recovered":
        return f"blue: towards the clean run, red: away from it, {middle}"
    if name in ("value", "per_example"):
        return f"blue: {higher_is}, red: the reverse, {middle}"
    return f"blue: above, red: below, {middle}"


def faint(color: str) -> str:
    """A hexadecimal colour, mostly transparent, for bands."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def diverging(share: float) -> str:
    """The hexadecimal colour of ``share`` (-1 to 1) on the diverging scale."""
    places = [place for place, _ in DIVERGING]
    channels = [[int(color[at : at + 2], 16) for _, color in DIVERGING] for at in (1, 3, 5)]
    red, green, blue = (round(float(np.interp((share + 1) / 2, places, channel))) for channel in channels)
    return f"#{red:02x}{green:02x}{blue:02x}"
