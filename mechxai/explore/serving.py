"""The explorer's server, on this machine's own address and no other."""

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
_TRIES = 20


def serve(room: ExplorerState, say: Callable[[str], None], *, port: int = 8050, browser: bool = True) -> None:
    """Serves a room until it is interrupted.

    Args:
        room: what is shown.
        say: told of the address.
        port: the first that is tried; those after it when it is taken. 0 for any that is free.
        browser: open the page.

    Raises:
        ConfigError: none of the ports is free.
    """
    server = make_server(LOOPBACK, _free(port), application(room).server, threaded=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request says nothing to anyone
    address = f"http://{LOOPBACK}:{server.server_port}/"
    say(f"explorer: {address} (Ctrl-C ends it)")
    if browser:
        threading.Timer(0.2, webbrowser.open, [address]).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("explorer: ended")
    finally:
        room.sweeps.close()
        server.server_close()


def _free(port: int) -> int:
    if port == 0:
        return 0
    for one in range(port, port + _TRIES):
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, one)) != 0:
                return one
    raise ConfigError(
        f"port={port} was asked", got=f"{port} to {port + _TRIES - 1} are taken", fix="give another port, or port=0"
    )
