"""Everything that is shown of a scene, as the page's script draws it, and what each part depends on."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from mechxai.core.errors import MechXAIError
from mechxai.explore.commands import commands
from mechxai.explore.palette import Picture
from mechxai.explore.panel import PANELS, SWEEPS, drawn, stamp
from mechxai.explore.panel_context import PanelContext
from mechxai.explore.panels import tokens
from mechxai.explore.view import View
from mechxai.figures.text import printable

_LOG = logging.getLogger("mechxai.explore")
_TOKENS = ("model", "prompt", "pos", "answer", "wrong", "layer", "head", "inputs")
_HEIGHT = 300
ALL = (*PANELS, *SWEEPS)
Answer = dict[str, Any]


def answer(scene: PanelContext, before: Mapping[str, str] | None = None) -> Answer:
    """What is shown of a scene; of what was shown before, only what changes.

    Args:
        scene: what is shown.
        before: stamps of what is there.

    Returns:
        ``panels``, by name the ``figure`` of those that are to be drawn, or the ``shapes`` where only the frame around
        the chosen cell moves; ``tokens``, None where they stay; ``commands``, the same for the shell and in Python;
        ``facts``, how far positions, layers and heads go, where the view stands, and that in words; ``stamps``, what
        each part depends on: a part whose stamp stays need not be drawn again.
    """
    stamps = {panel.name: stamp(panel, scene) for panel in ALL}
    stamps["tokens"] = repr([getattr(scene.view, name) for name in _TOKENS])
    changed = {name for name, one in stamps.items() if (before or {}).get(name) != one}
    panels = {name: {"figure": figure} for name, figure in _figures(scene, changed).items()}
    for name, one in panels.items():
        cells = stamps[name].partition("\n")[0]
        if cells and cells == (before or {}).get(name, "").partition("\n")[0]:
            panels[name] = {"shapes": one["figure"]["layout"].get("shapes", [])}
    return {
        "panels": panels,
        "tokens": coloured(scene) if "tokens" in changed else None,
        "commands": commands(scene),
        "facts": _facts(scene),
        "stamps": stamps,
    }


def coloured(scene: PanelContext) -> list[Picture]:
    """The prompt's buttons; without colours where what colours them cannot be had of this model."""
    try:
        return tokens.draw(scene, tokens.values(scene))
    except MechXAIError:
        return tokens.draw(scene, np.zeros(scene.reading.n_pos))


def _figures(scene: PanelContext, wanted: Collection[str]) -> dict[str, Picture]:
    return {panel.name: _safely(scene, lambda one=panel: drawn(one, scene)) for panel in ALL if panel.name in wanted}


def _safely(scene: PanelContext, draw: Callable[[], Picture]) -> Picture:
    """A panel's figure; what one panel cannot show keeps no other from being drawn."""
    try:
        return draw()
    except MechXAIError as error:
        return scene.palette.said(printable(str(error))[:140], _HEIGHT)
    except Exception:  # noqa: BLE001 - a mistake of ours in one panel, which the log tells
        _LOG.exception("a panel of the explorer")
        return scene.palette.said("this panel failed; the terminal says why", _HEIGHT)


def _facts(scene: PanelContext) -> dict[str, object]:
    a, view, reading = scene.reading.model.architecture, scene.view, scene.reading
    layer = "output" if view.layer == a.n_layers else str(view.layer)
    place = f"“{printable(reading.tokens[view.pos])}” (position {view.pos}), layer {layer}"
    return {
        "n_pos": reading.n_pos,
        "n_layers": a.n_layers + 1,
        "n_heads": a.n_heads,
        "pos": view.pos,
        "layer": view.layer,
        "head": view.head,
        "started": {panel.name: not panel.quick(scene) for panel in SWEEPS},
        "where": f"{place}, head {scene.block}.{view.head}; asked: {reading.words(scene.asked)}.",
        "query": view.query(),
        "blank": asdict(View()),
    }
