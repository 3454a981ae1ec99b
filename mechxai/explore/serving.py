"""The explorer's server, reachable from this machine only."""

import logging
import socket
import threading
import webbrowser
from collections.abc import Callable

from werkzeug.serving import make_server

from mechxai.core.errors import ConfigError
from mechxai.explore.app import application
from mechxai.explore.state import ExplorerState

LOOPBACK = "127.0.0.1"
_MAX_PORTS = 20  # tried one after the other


def serve(state: ExplorerState, report: Callable[[str], None], *, port: int = 8050, browser: bool = True) -> None:
    """Serves the explorer until it is interrupted.

    Args:
        state: the models and the first view.
        report: called with the address, and at the end.
        port: the first port that is tried; the next ones follow where it is taken. 0 for any free port.
        browser: whether to open the page.

    Raises:
        ConfigError: none of the ports is free.
    """
    server = make_server(LOOPBACK, _free_port(port), application(state).server, threaded=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line per request
    address = f"http://{LOOPBACK}:{server.server_port}/"
    report(f"explorer: {address} (Ctrl-C ends it)")
    if browser:
        threading.Timer(0.2, webbrowser.open, [address]).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        report("explorer: ended")
    finally:
        state.background.close()
        server.server_close()


def _free_port(port: int) -> int:
    if port == 0:
        return 0
    for candidate in range(port, port + _MAX_PORTS):
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, candidate)) != 0:
                return candidate
    raise ConfigError(
        f"The ports {port} to {port + _MAX_PORTS - 1} are all taken", fix="Use another port, or port=0 for any free one"
    )
