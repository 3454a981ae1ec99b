"""Further pages of the server (saved page, attention views, plotly's script), and the headers of all answers."""

import html
from collections.abc import Callable

import flask
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mechxai.core.errors import MechXAIError
from mechxai.explore.commands import commands
from mechxai.explore.palette import LIGHT, Picture
from mechxai.explore.panel import ALL_PANELS, panel_figure
from mechxai.explore.panel_answers import token_buttons
from mechxai.explore.panel_context import PanelContext, panel_context
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import View
from mechxai.figures.attention_view import attention_html
from mechxai.figures.export import figure_div
from mechxai.methods.attention.attention_patterns import AttentionPatterns

_WIDTH = 1000  # of saved figures, in pixels
_MAX_BYTES = 2_000_000  # of a request
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 Inter,'Helvetica Neue',Arial,sans-serif;color:#1f2933;max-width:1080px;
margin:2rem auto;padding:0 1rem}}
h1{{font-size:1.4rem}}h2{{font-size:1.05rem;margin:2rem 0 0}}p{{color:#52606d;margin:.2rem 0}}
pre{{background:#f5f7fa;padding:1rem;overflow-x:auto;white-space:pre-wrap}}
.tokens{{line-height:2}}.tokens span{{color:#1f2933;padding:.15rem .2rem;border-radius:3px;white-space:pre}}
.chosen{{outline:2px solid #c2570c}}</style>
<script>{plotly}</script></head><body><h1>{title}</h1>{body}</body></html>"""


def add_pages(server: flask.Flask, state: ExplorerState) -> None:
    """Adds the saved page, the page of attention views, plotly's script, and the headers of all answers."""
    server.config["MAX_CONTENT_LENGTH"] = server.config["MAX_FORM_MEMORY_SIZE"] = _MAX_BYTES
    server.after_request(_with_security_headers)
    for name, page in (("export", saved_page), ("attention", _attention_page)):  # POST: long addresses are refused
        server.add_url_rule(f"/{name}.html", name, lambda page=page: _response(state, page), methods=["POST"])
    server.add_url_rule("/plotly.js", "plotly", _plotly)


def _with_security_headers(response: flask.Response) -> flask.Response:
    if "Content-Security-Policy" not in response.headers:
        response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def _plotly() -> flask.Response:
    """The script of plotly, which the page loads to save an image; cached by the browser."""
    response = flask.Response(get_plotlyjs(), mimetype="text/javascript")
    response.headers["Cache-Control"] = "private, max-age=86400"
    return response


def _response(state: ExplorerState, page: Callable[[PanelContext], str]) -> flask.Response:
    """A page about the view of the request."""
    site = flask.request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin"):  # an image or a frame of another site
        return flask.Response("This address answers only the explorer's own page.", 403, mimetype="text/plain")
    try:
        text = page(panel_context(state, View.of(flask.request.form), LIGHT))
    except MechXAIError as error:
        return flask.Response(str(error), 400, mimetype="text/plain")
    response = flask.Response(text, mimetype="text/html")
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"  # if it is opened as a page
    return response


def saved_page(context: PanelContext) -> str:
    """One self-contained page with everything that is shown; it opens offline, and tokens are escaped."""
    view, parts = context.view, []
    layer = "output" if view.layer == context.analysis.model.architecture.n_layers else view.layer
    for panel in ALL_PANELS:
        try:
            figure = panel_figure(panel, context)
        except MechXAIError as error:
            parts.append(f"<h2>{html.escape(panel.title)}</h2><p>{html.escape(str(error))}</p>")
            continue
        figure["layout"] |= {"width": figure["layout"].get("meta", {}).get("width", _WIDTH), "autosize": False}
        head = f"<h2>{html.escape(panel.title)}</h2><p>{html.escape(panel.about)}</p>"
        parts.append(head + figure_div(go.Figure(figure), panel.name))
    body = [
        f"<p class=tokens>{' '.join(_token(button) for button in token_buttons(context))}</p>",
        f"<p>position {view.pos}, layer {layer}, head {context.block}.{view.head}; {context.contrast_label}</p>",
        *parts,
        f"<h2>Reproduce this from the command line or in Python</h2><pre>{html.escape(commands(context))}</pre>",
    ]
    return _PAGE.format(title=html.escape(f"{view.model}: one prompt"), plotly=get_plotlyjs(), body="".join(body))


def _token(button: Picture) -> str:
    color = LIGHT.sign(button["share"]) + f"{round(160 * abs(button['share'])):02x}"  # the last two digits: opacity
    chosen = " class=chosen" if button["chosen"] else ""
    hover, text = html.escape(button["hover"]), html.escape(button["text"])
    return f'<span{chosen} title="{hover}" style="background:{color}">{text}</span>'


def _attention_page(context: PanelContext) -> str:
    with context.state.lock(context.view.model):
        result = AttentionPatterns()(context.analysis.model, context.analysis.batch)
    return attention_html(result)
