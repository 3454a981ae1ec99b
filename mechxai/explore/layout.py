"""The page's layout: panels, and the controls that change the view."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from mechxai.explore.panel import ALL_PANELS, METHOD_PANELS, MethodPanel, Panel
from mechxai.explore.panel_answers import Answer
from mechxai.explore.view import Color, PatchSite, TokenColor, View
from mechxai.figures.text import words

_FIELD_LABELS = {"answer": "answer", "wrong": "wrong answer"}
# labels of choices whose own name is not plain enough
_OPTION_LABELS = {
    ("color", "top_logprob"): "probability of the top token",
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
_SELECT_LABELS = {
    "model": "Model",
    "task": "Task of the example",
    "inputs": "Colour of the tokens",
    "lens": "Lens",
    "color": "Colour of the lens",
    "site": "Site of the patch",
}
_AREAS = ("lens", "next", "attention", "heads", "layers", "sources", "patching", "routes", "factors", "circuit")


@dataclass(frozen=True)
class Choices:
    """The choices on the page, and what it shows besides the view.

    Attributes:
        models: names of models.
        tasks: names of tasks with examples.
        lenses: names of lenses.
        problem: why the view of the address is not shown; empty where it is.
        results: title -> figure of a stored run's result.
    """

    models: Sequence[str]
    tasks: Sequence[str]
    lenses: Sequence[str]
    problem: str
    results: Mapping[str, go.Figure]


def page(view: View, choices: Choices, shown: Answer) -> Component:
    """The whole page, with its first figures."""
    finished = json.dumps([None] * len(METHOD_PANELS))
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
            html.Main([_inputs(view, choices), _prompt(view, shown), _grid(view, choices), _below(choices)]),
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
                    html.Button("Copy link", id="share", type="button", title="Copy a link to this view"),
                    html.Button("Save page", id="save", type="button", title="Save this page as one file"),
                    html.Button("Dark", id="theme-switch", type="button", title="Switch between light and dark"),
                ],
                className="actions",
            ),
        ]
    )


def _inputs(view: View, choices: Choices) -> Component:
    return html.Section(
        [
            html.Div([_text("prompt", view.prompt), _text("corrupted", view.corrupted)], className="texts"),
            html.Div(
                [
                    _field("answer", view.answer, "the model's first choice"),
                    _field("wrong", view.wrong, "the model's next choice"),
                    html.Button("Read", id="read", type="button", className="go", title="Ctrl + Enter"),
                    html.Span("or an example of task", className="quiet"),
                    _select("task", choices.tasks, choices.tasks[0]),
                    html.Button("Another", id="another", type="button", title="Another example of this task"),
                ],
                className="line",
            ),
            html.P(choices.problem, id="message", className="trouble", role="alert"),
            html.P(id="trouble", className="trouble", role="alert"),
        ],
        className="ask",
        **_aria(label="Prompt and answers"),
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
    return html.Label([html.Span(_FIELD_LABELS[name]), box], className="field")


def _select(name: str, options: Sequence[str], value: str) -> Component:
    listed = [{"label": _OPTION_LABELS.get((name, option), words(option)), "value": option} for option in options]
    box = dcc.Dropdown(id=f"{name}-choice", options=listed, value=value, clearable=False, searchable=len(options) > 12)
    # dash labels its button by the element of this id; without it, screen readers read only the value
    label = html.Span(_SELECT_LABELS[name], id=f"{name}-choice-value-count", hidden=True)
    return html.Div([label, box], className="select")


def _prompt(view: View, shown: Answer) -> Component:
    return html.Section(
        [
            html.Div(
                [
                    html.H2("Tokens of the prompt"),
                    html.Div(_select("inputs", get_args(TokenColor), view.inputs), className="choice"),
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
    panels: dict[str, Panel | MethodPanel] = {panel.name: panel for panel in ALL_PANELS}
    controls = {
        "lens": [_select("lens", choices.lenses, view.lens), _select("color", get_args(Color), view.color)],
        "patching": [_select("site", get_args(PatchSite), view.site)],
    }
    sections = [_panel(panels[name], controls.get(name, [])) for name in _AREAS]
    return html.Div(sections, className="grid")


def _panel(panel: Panel | MethodPanel, controls: Sequence[Component]) -> Component:
    extra: list[Component] = []
    if isinstance(panel, MethodPanel):
        extra = [
            html.Button("Run", id=f"{panel.name}-run", type="button", className="go"),
            html.Button("Stop", id=f"{panel.name}-stop", type="button", hidden=True),
            html.Progress(id=f"{panel.name}-progress", max="1", value="0", hidden=True),
            html.Span(id=f"{panel.name}-status", className="quiet", **_aria(live="polite")),
        ]
    save: dict[str, Any] = {"data-png": panel.name}
    png = html.Button("PNG", type="button", className="png", title="Save this panel as an image", **save)
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


def _aria(**attributes: str) -> dict[str, Any]:
    """Attributes for screen readers."""
    return {f"aria-{name}": value for name, value in attributes.items()}


def _below(choices: Choices) -> Component:
    results = [
        html.Section([html.H2(title), html.Div(id=f"result-{index}")], className="panel result")
        for index, title in enumerate(choices.results)
    ]
    views = [
        html.Summary("Attention of all heads: head, model and neuron view"),
        html.Iframe(id="views", title="Attention views", sandbox="allow-scripts"),
    ]
    code = [
        html.Summary("Reproduce this from the command line or in Python"),
        html.Button("Copy", id="copy", type="button"),
        html.Pre(id="commands", tabIndex=0),
    ]
    return html.Div(
        [*results, html.Details(views, id="views-box", className="panel"), html.Details(code, className="panel")]
    )
