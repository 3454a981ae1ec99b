"""The web application: each change of the view is one request, which draws only the panels that it changes."""

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl, urlsplit

import flask
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update
from dash.development.base_component import Component

from mechxai.core.errors import MechXAIError
from mechxai.explore.layout import Choices, page
from mechxai.explore.pages import add_pages
from mechxai.explore.palette import LIGHT, palette_of
from mechxai.explore.panel import METHOD_PANELS, MethodPanel, start
from mechxai.explore.panel_answers import answer
from mechxai.explore.panel_context import PanelContext, panel_context
from mechxai.explore.requests import check_requests
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import LensName, View
from mechxai.figures.plot import plot
from mechxai.figures.text import printable

_LOG = logging.getLogger("mechxai.explore")
_CHOICES = ("inputs", "lens", "color", "site")


def application(state: ExplorerState) -> Dash:
    """The explorer as a Dash application; `mechxai.explore.serving.serve` runs it."""
    assets = str(Path(__file__).parent / "assets")
    app = Dash(__name__, title="MechXAI explorer", update_title="", serve_locally=True, assets_folder=assets)
    app.layout = lambda: _layout(state, _view_of_address(state))
    check_requests(app)
    add_pages(app.server, state)
    _add_view_changes(app, state)
    _add_examples(app, state)
    for panel in METHOD_PANELS:
        _add_run_buttons(app, state, panel)
    _add_progress(app, state)
    _add_clientside(app)
    return app


def _view_of_address(state: ExplorerState) -> View:
    """The view of the page's address, which arrives as the referrer of the layout request."""
    try:
        query = urlsplit(flask.request.referrer or "").query if flask.has_request_context() else ""
        return View.of(dict(parse_qsl(query, max_num_fields=40))) if "prompt=" in query else state.first_view()
    except (MechXAIError, ValueError):
        return state.first_view()


def _layout(state: ExplorerState, view: View) -> Component:
    problem = ""
    try:
        context = panel_context(state, view, LIGHT)
        shown = answer(context)
    except MechXAIError as error:  # a link that this explorer cannot show
        context, problem = panel_context(state, state.first_view(), LIGHT), str(error)
        shown = answer(context)
    results = {title: plot(result) for title, result in state.results.items()}
    lenses = get_args(LensName) if state.lenses else ("logit",)
    choices = Choices(list(state.models), state.tasks(context.view.model), lenses, printable(problem), results)
    return page(context.view, choices, shown)


def _light_context(state: ExplorerState, view: Mapping[str, object]) -> PanelContext:
    return panel_context(state, View.of(view), LIGHT)


def _add_view_changes(app: Dash, state: ExplorerState) -> None:
    @app.callback(
        Output("shown", "data"),
        Output("trouble", "children"),
        Input("view", "data"),
        Input("theme", "data"),
        Input("finished", "data"),
        State("stamps", "data"),
        prevent_initial_call=True,
    )
    def show_view(*arguments: Any) -> tuple[dict[str, Any], str]:
        view, theme, _, stamps = arguments
        try:
            return answer(panel_context(state, View.of(view), palette_of(theme)), stamps), ""
        except MechXAIError as error:
            problem = printable(str(error))
        except Exception:  # noqa: BLE001 - logged; without an answer the page would wait for ever
            _LOG.exception("the explorer failed")
            problem = "this view failed; the terminal shows the error"
        return {"error": problem, "at": time.monotonic()}, problem  # the time makes each error a change for the page


def _add_examples(app: Dash, state: ExplorerState) -> None:
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
    def show_example(*arguments: Any) -> tuple[object, ...]:
        clicks, task, chosen, view = arguments
        model = chosen or ""  # nothing chosen: the first
        same_model = model == view.get("model")
        if ctx.triggered_id == "model-choice" and same_model:  # set by the page itself, for a link
            return (no_update,) * 4
        try:
            tasks = state.tasks(model)
            known_task = task if task in tasks else tasks[0]
            example = state.example(model, known_task, clicks or 0) if same_model else state.opening_view(model)
        except MechXAIError as error:
            return no_update, no_update, no_update, printable(str(error))
        choices = {name: view[name] for name in _CHOICES if name in view}
        texts = {name: getattr(example, name) for name in ("prompt", "corrupted", "answer", "wrong")}
        new = View.of({**choices, **texts, "model": model})
        return asdict(new), example.prompt, example.corrupted, ""


def _add_run_buttons(app: Dash, state: ExplorerState, panel: MethodPanel) -> None:
    @app.callback(
        Output("message", "children", allow_duplicate=True),
        Output("tick", "disabled", allow_duplicate=True),
        Input(f"{panel.name}-run", "n_clicks"),
        State("view", "data"),
        prevent_initial_call=True,
    )
    def start_run(_clicks: int | None, view: Mapping[str, object]) -> tuple[str, object]:
        try:
            start(panel, _light_context(state, view))
        except MechXAIError as error:
            return printable(str(error)), no_update
        return "", False

    @app.callback(
        Output(f"{panel.name}-stop", "n_clicks"),
        Input(f"{panel.name}-stop", "n_clicks"),
        State("view", "data"),
        prevent_initial_call=True,
    )
    def stop_run(_clicks: int | None, view: Mapping[str, object]) -> object:
        with contextlib.suppress(MechXAIError):
            state.background.stop(panel.key(_light_context(state, view)))
        return no_update


def _add_progress(app: Dash, state: ExplorerState) -> None:
    outputs = [Output("finished", "data"), Output("tick", "disabled")]
    for panel in METHOD_PANELS:
        outputs += [Output(f"{panel.name}-progress", "value"), Output(f"{panel.name}-progress", "hidden")]
        outputs += [Output(f"{panel.name}-stop", "hidden"), Output(f"{panel.name}-status", "children")]

    @app.callback(
        *outputs, Input("tick", "n_intervals"), Input("pair", "data"), State("view", "data"), State("finished", "data")
    )
    def show_progress(*arguments: Any) -> tuple[object, ...]:
        view, finished = arguments[2:]
        try:
            context = _light_context(state, view)
            runs = [state.background.get(panel.key(context)) for panel in METHOD_PANELS]
        except MechXAIError:
            return (no_update, no_update, *(["0", True, True, ""] * len(METHOD_PANELS)))
        values: list[object] = []
        for run in runs:
            idle = run is None or not run.running
            values += ["0" if run is None else f"{run.share:.3f}", idle, idle, "" if run is None else run.status]
        done = json.dumps([None if run is None or run.running else run.error for run in runs])
        running = any(run is not None and run.running for run in runs)
        # only a tick may end the polling: another request may have begun before the run
        disabled = False if running else (True if ctx.triggered_id == "tick" else no_update)
        return (no_update if done == finished else done, disabled, *values)


def _add_clientside(app: Dash) -> None:
    """Callbacks that run in the page: clicks and choices change the view, and the view changes the address."""
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
        ClientsideFunction("mechxai", "themed"),
        Output("theme", "data"),
        Input("theme-switch", "n_clicks"),
        State("theme", "data"),
    )
