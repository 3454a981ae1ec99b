"""The server's answer to a view: figures, tokens, commands and facts, and a stamp of what each depends on."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from mechxai.core.errors import MechXAIError
from mechxai.explore.commands import commands
from mechxai.explore.palette import Picture
from mechxai.explore.panel import ALL_PANELS, METHOD_PANELS, panel_figure, stamp
from mechxai.explore.panel_context import PanelContext
from mechxai.explore.panels import tokens
from mechxai.explore.view import View
from mechxai.figures.text import printable

_LOG = logging.getLogger("mechxai.explore")
_TOKEN_FIELDS = ("model", "prompt", "pos", "answer", "wrong", "layer", "head", "inputs")
_HEIGHT = 300
Answer = dict[str, Any]


def answer(context: PanelContext, previous_stamps: Mapping[str, str] | None = None) -> Answer:
    """Everything the page shows of a view, reduced to what has changed.

    Args:
        context: of the view.
        previous_stamps: the stamps of what the page shows now.

    Returns:
        ``panels``, name -> ``figure`` of panels to draw, or ``shapes`` where only the frame around the chosen cell
        moves; ``tokens``, None where they are unchanged; ``commands``, the same for the shell and in Python; ``facts``,
        the numbers of positions, layers and heads, and the view's place in numbers and in words; ``stamps``, what each
        part depends on: a part with an equal stamp need not be drawn again.
    """
    previous = previous_stamps or {}
    stamps = {panel.name: stamp(panel, context) for panel in ALL_PANELS}
    stamps["tokens"] = repr([getattr(context.view, name) for name in _TOKEN_FIELDS])
    changed = {name for name, text in stamps.items() if previous.get(name) != text}
    panels = {name: {"figure": figure} for name, figure in _figures(context, changed).items()}
    for name, entry in panels.items():
        cells = stamps[name].partition("\n")[0]
        if cells and cells == previous.get(name, "").partition("\n")[0]:
            panels[name] = {"shapes": entry["figure"]["layout"].get("shapes", [])}
    return {
        "panels": panels,
        "tokens": token_buttons(context) if "tokens" in changed else None,
        "commands": commands(context),
        "facts": _facts(context),
        "stamps": stamps,
    }


def token_buttons(context: PanelContext) -> list[Picture]:
    """The prompt's tokens as buttons; uncoloured where this model does not provide the scores."""
    try:
        return tokens.draw(context, tokens.values(context))
    except MechXAIError:
        return tokens.draw(context, np.zeros(context.analysis.n_pos))


def _figures(context: PanelContext, names: Collection[str]) -> dict[str, Picture]:
    return {
        panel.name: _safe_figure(context, lambda panel=panel: panel_figure(panel, context))
        for panel in ALL_PANELS
        if panel.name in names
    }


def _safe_figure(context: PanelContext, draw: Callable[[], Picture]) -> Picture:
    """A panel's figure, or its error as a sentence, so that the other panels are still drawn."""
    try:
        return draw()
    except MechXAIError as error:
        return context.palette.message(printable(str(error))[:140], _HEIGHT)
    except Exception:  # noqa: BLE001 - an error in one panel is logged and leaves the others usable
        _LOG.exception("a panel of the explorer failed")
        return context.palette.message("this panel failed; the terminal shows the error", _HEIGHT)


def _facts(context: PanelContext) -> dict[str, object]:
    view, analysis = context.view, context.analysis
    a = analysis.model.architecture
    layer = "output" if view.layer == a.n_layers else str(view.layer)
    place = f"“{printable(analysis.tokens[view.pos])}” (position {view.pos}), layer {layer}"
    question = analysis.question_text(context.question)
    return {
        "n_pos": analysis.n_pos,
        "n_layers": a.n_layers + 1,
        "n_heads": a.n_heads,
        "pos": view.pos,
        "layer": view.layer,
        "head": view.head,
        "has_run_button": {panel.name: not panel.quick(context) for panel in METHOD_PANELS},
        "where": f"{place}, head {context.block}.{view.head}; {question}.",
        "query": view.query(),
        "defaults": asdict(View()),
    }
