"""Everything that is drawn of a scene, and what each part depends on."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from dash import html

from mechxai.core.errors import MechXAIError
from mechxai.explore.commands import commands
from mechxai.explore.palette import Picture
from mechxai.explore.panel import PANELS, SWEEPS, drawn, stamp
from mechxai.explore.panels import tokens
from mechxai.explore.scene import Scene
from mechxai.figures.text import printable

_LOG = logging.getLogger("mechxai.explore")
_TOKENS = ("model", "prompt", "pos", "answer", "wrong", "layer", "head", "inputs")
_HEIGHT = 300
ALL = (*PANELS, *SWEEPS)


@dataclass(frozen=True)
class Drawn:
    """What is shown of a scene.

    Attributes:
        figures: by panel; of those that are to be drawn.
        frames: by panel; of those of which only the frame around the chosen cell moves, where it goes.
        tokens: the prompt's buttons; None where they stay.
        commands: the same for the shell and in Python.
        facts: what the page's script needs to know: how far positions, layers and heads go, where the view stands, and
            that in words.
        stamps: what each part depends on; a part whose stamp stays need not be drawn again.
    """

    figures: Mapping[str, Picture]
    frames: Mapping[str, list[Picture]]
    tokens: list[html.Button] | None
    commands: str
    facts: Mapping[str, object]
    stamps: Mapping[str, str]


def drawing(scene: Scene, before: Mapping[str, str] | None = None) -> Drawn:
    """What is shown of a scene; of what was shown before, only what changes.

    Args:
        scene: what is shown.
        before: stamps of what is there.
    """
    stamps = {panel.name: stamp(panel, scene) for panel in ALL}
    stamps["tokens"] = repr([getattr(scene.view, name) for name in _TOKENS])
    changed = {name for name, one in stamps.items() if (before or {}).get(name) != one}
    shown = _tokens(scene) if "tokens" in changed else None
    figures = _figures(scene, changed)
    cells = {name: stamps[name].partition("\n")[0] for name in figures}
    still = [name for name, one in cells.items() if one and one == (before or {}).get(name, "").partition("\n")[0]]
    frames = {name: figures.pop(name)["layout"].get("shapes", []) for name in still}
    return Drawn(figures, frames, shown, commands(scene), _facts(scene), stamps)


def _tokens(scene: Scene) -> list[html.Button]:
    """The prompt's buttons; without colours where what colours them cannot be had of this model."""
    try:
        return tokens.draw(scene, tokens.values(scene))
    except MechXAIError:
        return tokens.draw(scene, np.zeros(scene.reading.n_pos))


def _figures(scene: Scene, wanted: Collection[str]) -> dict[str, Picture]:
    return {panel.name: _safely(scene, lambda one=panel: drawn(one, scene)) for panel in ALL if panel.name in wanted}


def _safely(scene: Scene, draw: Callable[[], Picture]) -> Picture:
    """A panel's figure; what one panel cannot show keeps no other from being drawn."""
    try:
        return draw()
    except MechXAIError as error:
        return scene.palette.said(printable(str(error))[:140], _HEIGHT)
    except Exception:  # noqa: BLE001 - a mistake of ours in one panel, which the log tells
        _LOG.exception("a panel of the explorer")
        return scene.palette.said("this panel failed; the terminal says why", _HEIGHT)


def _facts(scene: Scene) -> dict[str, object]:
    a, view, reading = scene.reading.model.architecture, scene.view, scene.reading
    pair = (scene.asked.answer, scene.asked.wrong)
    said = " against ".join(f"“{printable(reading.text(one))}”" for one in pair)
    layer = "output" if view.layer == a.n_layers else str(view.layer)
    place = f"“{printable(reading.tokens[view.pos])}” (position {view.pos}), layer {layer}"
    return {
        "n_pos": reading.n_pos,
        "n_layers": a.n_layers + 1,
        "n_heads": a.n_heads,
        "pos": view.pos,
        "layer": view.layer,
        "head": view.head,
        "where": f"{place}, head {scene.block}.{view.head}; asked: {said}.",
        "query": view.query(),
    }
