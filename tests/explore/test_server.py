"""The explorer's server: local requests only, separate users, and typed text stays text."""

import concurrent.futures
import itertools
import json
import socket
import threading

import pytest
from werkzeug.serving import make_server

from mechxai.explore.app import application
from mechxai.explore.state import ExplorerState
from mechxai.explore.view import View

HOSTILE = "<script>hacked=1</script><img src=x>\x00\x1b[31m\u202e"
LOCAL = {"base_url": "http://127.0.0.1"}


@pytest.fixture
def state(model_of):
    model = model_of("gpt2")  # of bytes: it reads any text
    return ExplorerState({model.name: model}, start=View(prompt="one two three four"))


@pytest.fixture
def client(state):
    return application(state).server.test_client()


def follow(client, view, stamps=None, theme="light"):
    """What the page asks for when its view changes."""
    client_side = client.get("/_dash-dependencies", **LOCAL).get_json()
    entry = next(one for one in client_side if "shown.data" in one["output"])
    outputs = [
        dict(zip(("id", "property"), part.rsplit(".", 1), strict=True))
        for part in entry["output"].strip(".").split("...")
    ]
    values = {"view": view, "theme": theme, "finished": "", "stamps": stamps or {}}
    body = {
        "output": entry["output"],
        "outputs": outputs,
        "inputs": [{**one, "value": values[one["id"]]} for one in entry["inputs"]],
        "state": [{**one, "value": values[one["id"]]} for one in entry["state"]],
        "changedPropIds": ["view.data"],
    }
    answer = client.post("/_dash-update-component", json=body, **LOCAL)
    assert answer.status_code == 200
    return answer.get_json()["response"]


def test_the_first_picture_comes_with_the_page(client):
    layout = client.get("/_dash-layout", **LOCAL).get_data(as_text=True)
    assert '"heatmap"' in layout
    assert "Prediction of each layer" in layout


def test_a_link_opens_its_own_view(client):
    address = "http://127.0.0.1/?prompt=seven+eight+nine&pos=1"
    layout = client.get("/_dash-layout", headers={"Referer": address}, **LOCAL).get_data(as_text=True)
    assert "seven eight nine" in layout
    broken = client.get("/_dash-layout", headers={"Referer": "http://127.0.0.1/?prompt=a&pos=x"}, **LOCAL)
    assert "one two three four" in broken.get_data(as_text=True)


def test_what_is_typed_is_text_everywhere(client):
    view = {"prompt": HOSTILE}
    answer = follow(client, view)
    assert answer["trouble"]["children"] == ""
    figures = json.dumps(answer["shown"]["data"]["panels"])
    assert "<script" not in figures
    assert "<img" not in figures
    assert "\\u0000" not in figures
    for page in ("export.html", "attention.html"):
        shown = client.post(f"/{page}", data=view, **LOCAL)
        assert shown.status_code == 200
        body = shown.get_data(as_text=True)
        assert "<script>hacked" not in body
        assert "<img src=x" not in body
        assert "sandbox" in shown.headers["Content-Security-Policy"]


def test_a_text_of_100_kilobytes_is_refused_with_a_word(client):
    answer = follow(client, {"prompt": "a" * 100_000})
    assert "100,000 characters" in answer["trouble"]["children"]
    assert set(answer["shown"]["data"]) == {"error", "at"}, "what was shown stays"
    assert client.post("/export.html", data={"prompt": "a" * 30_000}, **LOCAL).status_code == 400


def test_other_sites_and_other_names_for_this_machine_get_nothing(client):
    assert client.get("/_dash-layout", base_url="http://evil.example").status_code == 403
    assert client.get("/_dash-layout", base_url="http://localhost:8050").status_code == 200
    assert client.get("/_dash-layout", headers={"Origin": "http://evil.example"}, **LOCAL).status_code == 403
    headers = client.get("/", **LOCAL).headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_users_at_once_get_their_own(client):
    prompts = [f"number {one} and then some more words {one}" for one in range(12)]
    app = client.application

    def ask(prompt):
        answer = follow(app.test_client(), {"prompt": prompt, "pos": 2})
        shown = answer["shown"]["data"]
        return shown["facts"]["query"], json.dumps(shown["panels"]["lens"])

    alone = [ask(prompt) for prompt in prompts]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, prompts)) == alone
    assert len({figure for _, figure in alone}) == len(prompts)


def test_nothing_is_asked_of_a_network(client):
    page = client.get("/", **LOCAL).get_data(as_text=True)
    assert "http://" not in page
    assert "https://" not in page


@pytest.fixture
def port(state):
    server = make_server("127.0.0.1", 0, application(state).server, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ("", "403"),
        ("Host:\r\n", "403"),
        ("Host: evil.example\r\n", "403"),
        ("Host: [\r\n", "403"),
        ("Host: 127.0.0.1@evil.example\r\n", "403"),
        ("Host: 127.0.0.1:{port}\r\nOrigin: http://[\r\n", "403"),
        ("Host: 127.0.0.1:{port}\r\nOrigin: null\r\n", "403"),
        ("Host: 127.0.0.1:{port}\r\nReferer: http://[?prompt=a\r\n", "200"),
        ("Host: localhost:{port}\r\n", "200"),
    ],
)
def test_only_requests_that_name_this_machine_are_answered(port, version, headers, code):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        text = f"GET /_dash-layout HTTP/{version}\r\n{headers.format(port=port)}Connection: close\r\n\r\n"
        line.sendall(text.encode())
        assert line.makefile("rb").readline().split()[1].decode() == code


@pytest.fixture
def example(client):
    """What the page sends where another example is asked for."""
    known = client.get("/_dash-dependencies", **LOCAL).get_json()
    entry = next(one for one in known if "prompt-text.value" in one["output"])
    parts = entry["output"].strip(".").split("...")
    outputs = [dict(zip(("id", "property"), part.rsplit(".", 1), strict=True)) for part in parts]
    state = [{**one, "value": {"prompt": "one two"}} for one in entry["state"]]
    inputs = [{**one, "value": None} for one in entry["inputs"]]
    return {"output": entry["output"], "outputs": outputs, "inputs": inputs, "state": state, "changedPropIds": []}


def test_callbacks_that_the_page_does_not_make_get_400_and_nothing_of_the_inside(client, example):
    post = lambda **given: client.post("/_dash-update-component", **given, **LOCAL)  # noqa: E731
    assert post(json=example).status_code == 200, "the page's own"
    inputs, state = example["inputs"], example["state"]
    bodies = [
        *(example | {"output": output} for output in ("nosuch.data", "", None, 5, [], {"a": 1}, "..x.y...")),
        *(example | {"inputs": given} for given in ([], None, 5, "x", {}, inputs[::-1], [*inputs, *inputs], [1, 2, 3])),
        *(example | {"state": given} for given in ([], None, 5, [{}], [{**state[0], "id": {"a": 1}}])),
        *(example | {"state": [{**state[0], "value": value}]} for value in (None, 5, "x", [], True, {"prompt": [[]]})),
        *(example | {"inputs": [{**inputs[0], "value": value}, *inputs[1:]]} for value in ("x", [], {}, 1.5, True)),
        *(example | {"inputs": [inputs[0], {**inputs[1], "value": value}, inputs[2]]} for value in (5, [], {}, True)),
        *(example | {"changedPropIds": given} for given in (None, 5, "x", [5], [None], [[]], {})),
        *(example | {"outputs": given} for given in (None, 5, "x")),
        {},
        [],
        "x",
        5,
        None,
    ]
    raw = [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"output": NaN}']
    raw += [json.dumps(body).encode() for body in bodies]
    assert post(data=json.dumps(example), content_type="text/plain").status_code == 400
    for body, kind in itertools.product(raw, ("application/json", "text/plain")):
        answer = post(data=body, content_type=kind)
        assert answer.status_code == 400, body
        said = answer.get_data(as_text=True)
        assert len(said) < 100
        assert not {"Traceback", "Callback", "shown"} & set(said.split())
    listing = client.get("/_dash-component-suites/nosuch/file.js", **LOCAL)
    assert listing.status_code == 404
    assert "plotly" not in listing.get_data(as_text=True)
