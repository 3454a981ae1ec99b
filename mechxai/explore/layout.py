"""The page: where panels stand, and the controls that change the view."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from mechxai.explore.answers import Answer
from mechxai.explore.panel import PANELS, SWEEPS, Panel, SweepPanel
from mechxai.explore.view import COLORS, INPUTS, SITES, View
from mechxai.figures.text import words

_FIELDS = {"answer": "answer", "wrong": "against"}
# how choices are called where their own name does not say it
_NAMES = {
    ("color", "top_logprob"): "probability of the likeliest",
    ("color", "answer_logprob"): "probability of the answer",
    ("color", "answer_rank"): "rank of the answer",
    ("color", "kl_to_final"): "KL to the output",
    ("inputs", "attention"): "attention of the chosen head",
    ("lens", "logit"): "logit lens",
    ("lens", "tuned"): "tuned lens",
    ("site", "resid_pre"): "resid_pre",
    ("site", "attn_out"): "attn_out",
    ("site", "mlp_out"): "mlp_out",
    ("site", "z"): "z, by head",
}
_ASKS = {
    "model": "Model",
    "task": "Task whose examples are shown",
    "inputs": "What colours the tokens",
    "lens": "Lens",
    "color": "What colours the lens",
    "site": "Where patching patches",
}
_AREAS = ("lens", "next", "attention", "heads", "layers", "sources", "patching", "routes", "factors", "circuit")


@dataclass(frozen=True)
class Choices:
    """What can be chosen on the page, and what stands beside the view.

    Attributes:
        models: by name.
        tasks: whose examples can be shown.
        lenses: that there are.
        problem: why the address' own view is not shown; empty where it is.
        results: title -> figure, of a run that was opened.
    """

    models: Sequence[str]
    tasks: Sequence[str]
    lenses: Sequence[str]
    problem: str
    results: Mapping[str, go.Figure]


def page(view: View, choices: Choices, shown: Answer) -> Component:
    """The whole page, its first picture drawn."""
    finished = json.dumps([None] * len(SWEEPS))
    stores = {
        "view": asdict(view),
        "theme": "light",
        "pair": "",
        "finished": finished,
        "shown": shown,
        "stamps": {},
        "results": [figure.to_plotly_json() for figure in choices.results.values()],
    }
    return html.Div(
        [
            *(dcc.Store(id=name, data=data) for name, data in stores.items()),
            dcc.Interval(id="tick", interval=400, disabled=True),
            _header(view, choices),
            html.Main([_ask(view, choices), _prompt(view, shown), _grid(view, choices), _below(choices)]),
        ],
        id="page",
    )


def _header(view: View, choices: Choices) -> Component:
    return html.Header(
        [
            html.H1([html.Span("MechXAI", className="brand"), " explorer"]),
            html.Div(_select("model", choices.models, view.model), className="model"),
            html.Div(
                [
                    html.Button("Copy link", id="share", type="button", title="A link to exactly this view"),
                    html.Button("Save page", id="save", type="button", title="What is shown, in one file"),
                    html.Button("Dark", id="dress", type="button", title="Light or dark"),
                ],
                className="actions",
            ),
        ]
    )


def _ask(view: View, choices: Choices) -> Component:
    return html.Section(
        [
            html.Div([_text("prompt", view.prompt), _text("corrupted", view.corrupted)], className="texts"),
            html.Div(
                [
                    _field("answer", view.answer, "the model's own"),
                    _field("wrong", view.wrong, "its next choice"),
                    html.Button("Read", id="read", type="button", className="go", title="Ctrl + Enter"),
                    html.Span("or an example of", className="quiet"),
                    _select("task", choices.tasks, choices.tasks[0]),
                    html.Button("Another", id="another", type="button", title="Another prompt of this task"),
                ],
                className="line",
            ),
            html.P(choices.problem, id="message", className="trouble", role="alert"),
            html.P(id="trouble", className="trouble", role="alert"),
        ],
        className="ask",
        **_aria(label="What is asked"),
    )  # fmt: skip


def _text(name: str, value: str) -> Component:
    return html.Label(
        [
            html.Span(name.capitalize()),
            dcc.Textarea(id=f"{name}-text", value=value, rows=2, spellCheck=False),
        ]
    )


def _field(name: str, value: str, hint: str) -> Component:
    box = dcc.Input(id=f"{name}-text", value=value, placeholder=hint, debounce=True, autoComplete="off")
    return html.Label([html.Span(_FIELDS[name]), box], className="field")


def _select(name: str, options: Sequence[str], value: str) -> Component:
    listed = [{"label": _NAMES.get((name, one), words(one)), "value": one} for one in options]
    box = dcc.Dropdown(id=f"{name}-choice", options=listed, value=value, clearable=False, searchable=len(options) > 12)
    # dash says what is chosen and not what for: its button is labelled by an element of this id, if there is one
    return html.Div([html.Span(_ASKS[name], id=f"{name}-choice-value-count", hidden=True), box], className="select")


def _prompt(view: View, shown: Answer) -> Component:
    return html.Section(
        [
            html.Div(
                [
                    html.H2("Which inputs mattered"),
                    html.Div(_select("inputs", INPUTS, view.inputs), className="choice"),
                ],
                className="head",
            ),
            html.Div(id="tokens", className="tokens"),
            html.P(
                [
                    html.Span(shown["facts"]["where"], id="where", **_aria(live="polite")),
                    html.Span(" ← → position, ↑ ↓ layer, [ ] head", className="keys"),
                ],
                className="quiet where",
            ),
        ],
        className="panel moves prompt",
        tabIndex=0,
        **_aria(label="Prompt, token by token"),
    )


def _grid(view: View, choices: Choices) -> Component:
    panels: dict[str, Panel | SweepPanel] = {one.name: one for one in (*PANELS, *SWEEPS)}
    controls = {
        "lens": [_select("lens", choices.lenses, view.lens), _select("color", COLORS, view.color)],
        "patching": [_select("site", SITES, view.site)],
    }
    own = [_panel(panels[name], controls.get(name, [])) for name in _AREAS]
    return html.Div(own, className="grid")


def _panel(panel: Panel | SweepPanel, controls: Sequence[Component]) -> Component:
    extra: list[Component] = []
    if isinstance(panel, SweepPanel):
        extra = [
            html.Button("Run", id=f"{panel.name}-run", type="button", className="go"),
            html.Button("Stop", id=f"{panel.name}-stop", type="button", hidden=True),
            html.Progress(id=f"{panel.name}-progress", max="1", value="0", hidden=True),
            html.Span(id=f"{panel.name}-said", className="quiet", **_aria(live="polite")),
        ]
    save: dict[str, Any] = {"data-png": panel.name}
    png = html.Button("PNG", type="button", className="png", title="Save this panel as a picture", **save)
    head = html.Div([html.H2(panel.title), html.Div([*controls, png], className="choice")], className="head")
    return html.Section(
        [
            head,
            html.P(panel.about, className="quiet about"),
            *([html.Div(extra, className="line")] if extra else []),
            html.Div(id=panel.name, className="drawing"),
        ],
        className=f"panel moves {panel.name}",
        tabIndex=0,
        **_aria(label=panel.title),
    )


def _aria(**given: str) -> dict[str, Any]:
    """Attributes for those who listen to the page."""
    return {f"aria-{name}": value for name, value in given.items()}


def _below(choices: Choices) -> Component:
    results = [
        html.Section([html.H2(title), html.Div(id=f"result-{index}")], className="panel result")
        for index, title in enumerate(choices.results)
    ]
    views = [
        html.Summary("Every head at once: head, model and neuron view"),
        html.Iframe(id="views", title="Attention views", sandbox="allow-scripts"),
    ]
    same = [
        html.Summary("The same from the command line and in Python"),
        html.Button("Copy", id="copy", type="button"),
        html.Pre(id="commands", tabIndex=0),
    ]
    return html.Div(
        [*results, html.Details(views, id="views-box", className="panel"), html.Details(same, className="panel")]
    )
