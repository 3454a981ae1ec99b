"""Pages beside the explorer's own, and what every answer of the server carries."""

import html
from collections.abc import Callable
from urllib.parse import urlsplit

import flask
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mechxai.core.errors import MechXAIError
from mechxai.explore.answers import coloured
from mechxai.explore.commands import commands
from mechxai.explore.palette import LIGHT, Picture
from mechxai.explore.panel import PANELS, SWEEPS, drawn
from mechxai.explore.panel_context import PanelContext, panel_context
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import View
from mechxai.figures.attention_view import attention_html
from mechxai.figures.export import figure_div
from mechxai.methods.attention.attention_patterns import AttentionPatterns

_HOSTS = ("127.0.0.1", "localhost", "::1")
_WIDTH = 1000  # of saved figures, in pixels
_MOST_BYTES = 2_000_000
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


def add_pages(server: flask.Flask, room: ExplorerState) -> None:
    """Adds the saved page, the page of attention views, and the guard of all requests."""
    server.config["MAX_CONTENT_LENGTH"] = server.config["MAX_FORM_MEMORY_SIZE"] = _MOST_BYTES
    server.before_request(_guard)
    server.after_request(_guarded)
    for name, made in (("export", saved), ("attention", _attention)):  # posted, as servers refuse long addresses
        server.add_url_rule(f"/{name}.html", name, lambda made=made: _answer(room, made), methods=["POST"])
    server.add_url_rule("/plotly.js", "plotly", _plotly)


def _guard() -> flask.Response | None:
    """Refuses what does not come from this machine's own pages: another site's name for us, or its requests."""
    host = urlsplit(f"//{flask.request.host}").hostname
    origin = flask.request.headers.get("Origin")
    if host not in _HOSTS or (origin is not None and urlsplit(origin).netloc != flask.request.host):
        return flask.Response("This explorer answers pages of this machine alone.", 403, mimetype="text/plain")
    return None


def _guarded(response: flask.Response) -> flask.Response:
    if "Content-Security-Policy" not in response.headers:
        response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def _plotly() -> flask.Response:
    """Plotly's script, which the page asks for when a picture is to be saved; kept by the browser."""
    response = flask.Response(get_plotlyjs(), mimetype="text/javascript")
    response.headers["Cache-Control"] = "private, max-age=86400"
    return response


def _answer(room: ExplorerState, made: Callable[[PanelContext], str]) -> flask.Response:
    if flask.request.headers.get("Sec-Fetch-Site", "none") not in (
        "none",
        "same-origin",
    ):  # another site's image or frame
        return flask.Response("This page is for the explorer's own.", 403, mimetype="text/plain")
    try:
        scene = panel_context(room, View.of(flask.request.form), LIGHT)
        page = made(scene)
    except MechXAIError as error:
        return flask.Response(str(error), 400, mimetype="text/plain")
    response = flask.Response(page, mimetype="text/html")
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"  # for those who open it as a page
    return response


def saved(scene: PanelContext) -> str:
    """One page that holds what is shown and opens anywhere, offline; tokens are escaped."""
    view, parts = scene.view, []
    layer = "output" if view.layer == scene.reading.model.architecture.n_layers else view.layer
    for panel in (*PANELS, *SWEEPS):
        try:
            figure = drawn(panel, scene)
        except MechXAIError as error:
            parts.append(f"<h2>{html.escape(panel.title)}</h2><p>{html.escape(str(error))}</p>")
            continue
        figure["layout"] |= {"width": figure["layout"].get("meta", {}).get("width", _WIDTH), "autosize": False}
        head = f"<h2>{html.escape(panel.title)}</h2><p>{html.escape(panel.about)}</p>"
        parts.append(head + figure_div(go.Figure(figure), panel.name))
    body = [
        f"<p class=tokens>{' '.join(_token(one) for one in coloured(scene))}</p>",
        f"<p>position {view.pos}, layer {layer}, head {scene.block}.{view.head}; {scene.pair}</p>",
        *parts,
        f"<h2>The same from the command line and in Python</h2><pre>{html.escape(commands(scene))}</pre>",
    ]
    return _PAGE.format(title=html.escape(f"{view.model}: one prompt"), plotly=get_plotlyjs(), body="".join(body))


def _token(one: Picture) -> str:
    ground = LIGHT.sign(one["share"]) + f"{round(160 * abs(one['share'])):02x}"  # its last two digits: how opaque
    name = " class=chosen" if one["chosen"] else ""
    return (
        f'<span{name} title="{html.escape(one["said"])}" style="background:{ground}">{html.escape(one["text"])}</span>'
    )


def _attention(scene: PanelContext) -> str:
    with scene.room.lock(scene.view.model):
        result = AttentionPatterns()(scene.reading.model, scene.reading.batch)
    return attention_html(result)
