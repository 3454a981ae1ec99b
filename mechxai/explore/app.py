"""The web application: one request per change of the view, which draws the panels that it changes and no others."""

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import flask
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update
from dash.development.base_component import Component

from mechxai.core.errors import MechXAIError
from mechxai.explore.answers import answer
from mechxai.explore.layout import Choices, page
from mechxai.explore.pages import add_pages
from mechxai.explore.palette import LIGHT, palette_of
from mechxai.explore.panel import SWEEPS, start
from mechxai.explore.panel_context import panel_context
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import LENSES, View
from mechxai.figures.plot import plot
from mechxai.figures.text import printable

_LOG = logging.getLogger("mechxai.explore")
_CHOICES = ("inputs", "lens", "color", "site")


def application(room: ExplorerState) -> Dash:
    """The explorer of a room as a Dash application; `mechxai.explore.serving.serve` runs it."""
    assets = str(Path(__file__).parent / "assets")
    app = Dash(__name__, title="MechXAI explorer", update_title="", serve_locally=True, assets_folder=assets)
    app.layout = lambda: _laid(room, _view_of_address(room))
    add_pages(app.server, room)
    _add_follow(app, room)
    _add_examples(app, room)
    for panel in SWEEPS:
        _add_sweep(app, room, panel.name)
    _add_tick(app, room)
    _add_clicks(app)
    return app


def _view_of_address(room: ExplorerState) -> View:
    """What the page's own address asks for; it comes along with the request for the layout."""
    query = urlsplit(flask.request.referrer or "").query if flask.has_request_context() else ""
    try:
        return View.of(dict(parse_qsl(query, max_num_fields=40))) if "prompt=" in query else room.first()
    except (MechXAIError, ValueError):
        return room.first()


def _laid(room: ExplorerState, view: View) -> Component:
    problem = ""
    try:
        scene = panel_context(room, view, LIGHT)
        shown = answer(scene)
    except MechXAIError as error:  # a link to what this explorer cannot show
        scene, problem = panel_context(room, room.first(), LIGHT), str(error)
        shown = answer(scene)
    results = {title: plot(result) for title, result in room.results.items()}
    lenses = LENSES if room.lenses else LENSES[:1]
    choices = Choices(list(room.models), room.tasks(scene.view.model), lenses, printable(problem), results)
    return page(scene.view, choices, shown)


def _add_follow(app: Dash, room: ExplorerState) -> None:
    @app.callback(
        Output("shown", "data"),
        Output("trouble", "children"),
        Input("view", "data"),
        Input("theme", "data"),
        Input("finished", "data"),
        State("stamps", "data"),
        prevent_initial_call=True,
    )
    def follow(*given: Any) -> tuple[dict[str, Any], str]:
        view, theme, _, before = given
        try:
            return answer(panel_context(room, View.of(view), palette_of(theme)), before), ""
        except MechXAIError as error:
            said = printable(str(error))
        except Exception:  # noqa: BLE001 - a mistake of ours, which the log tells; the page must not wait for ever
            _LOG.exception("the explorer")
            said = "this view failed; the terminal says why"
        return {"error": said, "at": time.monotonic()}, said  # never the same twice, so that the page hears of each


def _add_examples(app: Dash, room: ExplorerState) -> None:
    @app.callback(
        Output("view", "data"),
        Output("prompt-text", "value"),
        Output("corrupted-text", "value"),
        Output("message", "children", allow_duplicate=True),
        Input("another", "n_clicks"),
        Input("task-choice", "value"),
        Input("model-choice", "value"),
        State("view", "data"),
        prevent_initial_call=True,
    )
    def another(*asked: Any) -> tuple[object, ...]:
        clicks, task, model, given = asked
        if ctx.triggered_id == "model-choice" and model == given.get("model"):  # the page set it, by a link
            return (no_update,) * 4
        try:
            known = room.tasks(model)
            same, own = model == given.get("model"), task if task in known else known[0]
            one = room.example(model, own, clicks or 0) if same else room.opening(model)
        except MechXAIError as error:
            return no_update, no_update, no_update, printable(str(error))
        kept = {name: given[name] for name in _CHOICES if name in given}
        told = {name: getattr(one, name) for name in ("prompt", "corrupted", "answer", "wrong")}
        view = View.of({**kept, **told, "model": model})
        return asdict(view), one.prompt, one.corrupted, ""


def _add_sweep(app: Dash, room: ExplorerState, name: str) -> None:
    panel = next(one for one in SWEEPS if one.name == name)

    @app.callback(
        Output("message", "children", allow_duplicate=True),
        Output("tick", "disabled", allow_duplicate=True),
        Input(f"{name}-run", "n_clicks"),
        State("view", "data"),
        prevent_initial_call=True,
    )
    def begin(_clicks: int | None, given: Mapping[str, object]) -> tuple[str, object]:
        try:
            start(panel, panel_context(room, View.of(given), LIGHT))
        except MechXAIError as error:
            return printable(str(error)), no_update
        return "", False

    @app.callback(
        Output(f"{name}-stop", "n_clicks"),
        Input(f"{name}-stop", "n_clicks"),
        State("view", "data"),
        prevent_initial_call=True,
    )
    def end(_clicks: int | None, given: Mapping[str, object]) -> object:
        with contextlib.suppress(MechXAIError):
            room.sweeps.stop(panel.key(panel_context(room, View.of(given), LIGHT)))
        return no_update


def _add_tick(app: Dash, room: ExplorerState) -> None:
    outputs = [Output("finished", "data"), Output("tick", "disabled")]
    for panel in SWEEPS:
        outputs += [Output(f"{panel.name}-progress", "value"), Output(f"{panel.name}-progress", "hidden")]
        outputs += [Output(f"{panel.name}-stop", "hidden"), Output(f"{panel.name}-said", "children")]

    @app.callback(
        *outputs, Input("tick", "n_intervals"), Input("pair", "data"), State("view", "data"), State("finished", "data")
    )
    def tick(*asked: Any) -> tuple[object, ...]:
        given, finished = asked[2:]
        try:
            scene = panel_context(room, View.of(given), LIGHT)
            sweeps = [room.sweeps.get(panel.key(scene)) for panel in SWEEPS]
        except MechXAIError:
            return (no_update, no_update, *(["0", True, True, ""] * len(SWEEPS)))
        told: list[object] = []
        for sweep in sweeps:
            idle = sweep is None or not sweep.running
            told += ["0" if sweep is None else f"{sweep.share:.3f}", idle, idle, "" if sweep is None else sweep.said]
        done = json.dumps([None if one is None or one.running else one.error for one in sweeps])
        waiting = any(one is not None and one.running for one in sweeps)
        over = True if not waiting and ctx.triggered_id == "tick" else no_update  # a poll that runs ends itself alone
        return (no_update if done == finished else done, False if waiting else over, *told)


def _add_clicks(app: Dash) -> None:
    """What happens in the page: clicks and choices change the view, the view changes the address."""
    app.clientside_callback(
        ClientsideFunction("mechxai", "chosen"),
        Output("view", "data", allow_duplicate=True),
        *[Input(f"{name}-choice", "value") for name in _CHOICES],
        State("view", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("mechxai", "read"),
        Output("view", "data", allow_duplicate=True),
        Input("read", "n_clicks"),
        Input("answer-text", "value"),
        Input("wrong-text", "value"),
        State("prompt-text", "value"),
        State("corrupted-text", "value"),
        State("view", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("mechxai", "shown"),
        Output("where", "children"),
        Output("answer-text", "value"),
        Output("wrong-text", "value"),
        Output("stamps", "data"),
        Input("shown", "data"),
        State("view", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("mechxai", "results"), Output("results", "data"), Input("results", "data")
    )
    app.clientside_callback(
        ClientsideFunction("mechxai", "paired"), Output("pair", "data"), Input("view", "data"), State("pair", "data")
    )
    app.clientside_callback(
        ClientsideFunction("mechxai", "dress"),
        Output("theme", "data"),
        Input("dress", "n_clicks"),
        State("theme", "data"),
    )
