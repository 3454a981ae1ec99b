"""The checks of every request to the explorer: where it comes from, and whether it is one that the page makes."""

import logging
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import flask
from dash import Dash
from dash.exceptions import DashException

HOSTS = ("127.0.0.1", "localhost", "::1")
_CALLBACKS = "/_dash-update-component"
_LOG = logging.getLogger("mechxai.explore")
_STORES: dict[str, type] = {"view": dict, "stamps": dict, "theme": str, "finished": str}
_PROPERTIES: dict[str, type] = {"n_clicks": int, "n_intervals": int, "value": str}
_FAULTS = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


def check_requests(app: Dash) -> None:
    """Refuses requests under another host name, requests of other sites, and requests that the page does not make."""
    server = app.server
    server.before_request(_refusal)
    server.before_request(lambda: _malformed(app))
    server.register_error_handler(DashException, lambda _: _answer("There is no such address.", 404))
    for fault in _FAULTS:
        server.register_error_handler(fault, _failed)


def _refusal() -> flask.Response | None:
    """Refuses requests without a host, under another host name (DNS rebinding), and of other sites."""
    try:
        given = flask.request.headers.get("Host", "")
        host = urlsplit(f"//{given}").hostname
        origin = flask.request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc != given
    except ValueError:
        host, foreign = None, True
    if host not in HOSTS or foreign:
        return _answer("This explorer answers only pages of this machine.", 403)
    return None


def _malformed(app: Dash) -> flask.Response | None:
    """Refuses a callback that the page does not have, or with other inputs than it has."""
    if flask.request.path != _CALLBACKS or flask.request.method != "POST":
        return None
    try:
        body = flask.request.get_json(silent=True)
        fits = isinstance(body, dict) and _fits(app, cast("dict[str, Any]", body))
    except _FAULTS:
        fits = False
    return None if fits else _answer("This is no request of the explorer's page.", 400)


def _fits(app: Dash, body: Mapping[str, Any]) -> bool:
    output, changed = body.get("output"), body.get("changedPropIds", [])
    known: Mapping[str, Any] | None = app.callback_map.get(output) if isinstance(output, str) else None
    if known is None or not isinstance(changed, list) or not all(isinstance(name, str) for name in changed):
        return False
    if not isinstance(body.get("outputs"), (list, dict)):
        return False
    return all(_same(body.get(kind, []), known[kind]) for kind in ("inputs", "state"))


def _same(given: object, known: list[Mapping[str, Any]]) -> bool:
    """Whether the values are of the known components, in order, and of their kinds."""
    if not isinstance(given, list) or len(given) != len(known):
        return False
    pairs = zip(cast("list[object]", given), known, strict=True)
    return all(isinstance(one, dict) and _is_value_of(cast("dict[str, Any]", one), other) for one, other in pairs)


def _is_value_of(given: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    name, prop, value = given.get("id"), given.get("property"), given.get("value")
    if (name, prop) != (known["id"], known["property"]):
        return False
    kind = _PROPERTIES.get(str(prop)) or _STORES.get(str(name))
    if kind is None or (value is None and kind is not dict):
        return True
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        return False
    return name != "view" or not any(isinstance(part, (dict, list)) for part in cast("dict[str, Any]", value).values())


def _failed(error: Exception) -> flask.Response:
    """The answer where a request passes the checks and still cannot be handled: nothing of the inside is shown."""
    if flask.request.path.startswith("/_dash"):
        _LOG.warning("a request could not be handled", exc_info=error)
        return _answer("This request cannot be handled.", 400)
    raise error


def _answer(text: str, code: int) -> flask.Response:
    return flask.Response(text, code, mimetype="text/plain")
