"""Where requests go, and where the key goes: to the given origin, and nowhere else."""

import http.server
import json
import threading

import pytest

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.model.generation.connection import Connection
from mechxai.model.generation.generator import Writing

KEY = "sk-quite/secret+value"


@pytest.fixture
def server():
    """A server whose answers and redirects a test sets.

    Yields:
        The server; its ``seen`` are the paths that were asked for.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.location, server.status, server.text = [], None, 307, "hello"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(self.path)
        if self.server.location is not None:
            self.send_response(self.server.status)
            self.send_header("Location", self.server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        echoed = [self.headers["Authorization"], self.headers["Authorization"].replace("/", "%2F").replace("+", "%2B")]
        choice = {"index": 0, "text": f"{self.server.text} {' '.join(echoed)}", "finish_reason": "stop"}
        answer = {"id": "1", "object": "text_completion", "created": 1, "model": echoed[0], "choices": [choice]}
        body = json.dumps(answer | {"debug": {echoed[0]: [echoed[0]]}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def address(server, path="/v1"):
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


@pytest.mark.parametrize(
    "url",
    [
        "//host/v1",
        "ftp://host/v1",
        "file:///etc/passwd",
        "http:///v1",
        "http:host",
        "host/v1",
        "javascript:alert(1)",
        "http://host:port/v1",
        "http://host:99999/v1",
        "http://[::1/v1",
        "http://host/v1#part",
        "http://host/v1#",
        "http://host/v1?",
        "http://user@host/v1",
        "http://ho st/v1",
        "http://host/\x1b[31m",
        "http://host\\@other/v1",
        "unix:///socket",
    ],
)
def test_only_plain_web_addresses_are_taken(url, monkeypatch):
    with pytest.raises(ConfigError, match="base_url"):
        Connection(url)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL"):
        _ = Connection().place


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "https://host.example/v1", "http://[::1]:80/v1", "HTTP://h"]
)
def test_web_addresses_are_taken(url):
    assert Connection(url).place == url


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for location in (f"http://localhost:{server.server_address[1]}/v1/completions", "//other.example/x", "ftp://x"):
        server.seen.clear()
        server.location, server.status = location, status
        with pytest.raises(ConfigError, match="which is not followed"):
            mx.load_generator("m", connection=Connection(address(server))).write(["Tom"], Writing(2))
        assert server.seen == ["/v1/completions"]


def test_a_key_that_the_server_echoes_lands_in_no_file(server, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = lambda: mx.load_generator("m", connection=Connection(address(server), cache=str(tmp_path)))  # noqa: E731
    first = made().write([f"Tom {KEY}"], Writing(2))
    files = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    for text in files:
        for form in (KEY, KEY.replace("/", "%2F").replace("+", "%2B"), json.dumps(KEY)[1:-1], "quite"):
            assert form not in text
        assert "hello Bearer ***" in text
    assert made().write([f"Tom {KEY}"], Writing(2)) == first, "a kept answer is the one that was given"
    assert len(server.seen) == 1


def test_a_key_in_the_address_is_refused(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abcdef")
    with pytest.raises(ConfigError, match="has the key in it") as raised:
        mx.load_generator("m", connection=Connection(address(server, "/sk-abcdef/v1"))).write(["Tom"], Writing(2))
    assert "sk-abcdef" not in str(raised.value)
    assert server.seen == []
