"""Endpoints as black boxes, against a small real server over a bundled model, with faults."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import AlignmentError, ArtifactError, ConfigError, ModelSupportError
from mechxai.model.generation import connection as connections
from mechxai.model.generation.connection import Connection
from mechxai.model.sequence.endpoint_scores import ELSE
from tests.faults.damage import flip_bit
from tests.serving import serving

TEXTS = [
    "When Mary and John went to the store, John gave a drink to",
    "After Tom and Amy had a long argument at the school, Tom gave a key to",
]
NAMES = [" Mary", " John", " Tom", " Amy"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(connections, "_PAUSE", 0.01)
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_, **__: 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server(zoo):
    with serving(zoo) as running:
        yield running


def at(server, **more):
    return Connection(server.url, **more)


def of_the_model(zoo, texts, names=NAMES, top=None):
    """The log-probability of every name's token after every text; at least that of the ``top``-th likeliest token."""
    rows = []
    for text in texts:
        logits = zoo.logits(torch.tensor([zoo.text.ids(text)]))[0, -1].double().log_softmax(-1)
        least = float(logits.topk(top).values[-1]) if top else -np.inf
        rows.append([max(float(logits[zoo.text.answer(text, name)[0]]), least, np.log(1e-12)) for name in names])
    return np.array(rows)


def test_completions_are_the_models_own_log_probabilities(server, zoo):
    box = mx.load_endpoint("zoo", NAMES, connection=at(server))
    found = box.outputs_of(TEXTS).numpy()
    expected = of_the_model(zoo, TEXTS)
    np.testing.assert_allclose(found[:, :4], expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(1), 1.0, atol=1e-9)
    assert box.outputs == (*NAMES, ELSE)


def test_answers_of_several_tokens_are_summed(server, zoo):
    both = " Mary and"
    box = mx.load_endpoint("zoo", [both, " Mary"], connection=at(server))
    text = TEXTS[0]
    first = of_the_model(zoo, [text], [" Mary"])[0, 0]
    second = of_the_model(zoo, [text + " Mary"], [" and"])[0, 0]
    found = box.outputs_of([text]).numpy()[0]
    assert found[0] - found[1] == pytest.approx(second, abs=1e-5)
    assert found[1] == pytest.approx(first, abs=1e-5)


def test_chats_read_the_first_token(server, zoo):
    box = mx.load_endpoint("zoo", ["Mary", "John"], api="chat", connection=at(server), system="One word.")
    found = box.outputs_of(TEXTS[:1]).numpy()[0]
    np.testing.assert_allclose(found[:2], of_the_model(zoo, TEXTS[:1])[0, :2], atol=1e-5)
    assert server.seen[0]["messages"][0] == {"role": "system", "content": "One word."}
    assert server.seen[0]["top_logprobs"] == 20


def test_an_answer_below_the_top_counts_as_the_least_likely_there(server, zoo):
    box = mx.load_endpoint("zoo", ["Mary", "zebra"], api="chat", connection=at(server))
    found = box.outputs_of(TEXTS[:1]).numpy()[0]
    top = zoo.logits(torch.tensor([zoo.text.ids(TEXTS[0])]))[0, -1].double().log_softmax(-1).topk(20).values
    assert found[1] == pytest.approx(max(float(top[-1]), np.log(1e-12)), abs=1e-5)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_explained_as_the_model_itself_would_be(server, zoo, api):
    """Words taken out of the text, and the text put to the model by hand."""
    names = NAMES if api == "completions" else [name.strip() for name in NAMES]
    box = mx.load_endpoint("zoo", names, api=api, connection=at(server))
    batch = mx.tasks.prompts(box, texts=TEXTS, answers=[names[0], names[3]], wrong=[names[1], names[2]])
    result = mx.Occlusion(players="word", metric="logit_diff")(box, batch)
    words = [text.replace(",", " ,").split() for text in TEXTS]
    for row, (own, (right, wrong)) in enumerate(zip(words, ((0, 1), (3, 2)), strict=True)):
        texts = [" ".join(own[:gap] + own[gap + 1 :]).replace(" ,", ",") for gap in range(len(own))]
        scores = of_the_model(zoo, [TEXTS[row], *texts], top=20 if api == "chat" else None)
        diff = scores[:, right] - scores[:, wrong]
        found = result.data["player_value"].values[row, : len(own)]
        np.testing.assert_allclose(found, diff[0] - diff[1:], atol=1e-4)
    assert list(result.data["target"].values) == [f"{names[0].strip()} − {names[1].strip()}", f"{names[3].strip()} − {names[2].strip()}"]  # fmt: skip # noqa: E501, RUF001


def test_nothing_is_asked_twice(server, tmp_path):
    """Not in a process, nor in the next one that has the folder."""
    first = mx.load_endpoint("zoo", NAMES, connection=at(server, cache=str(tmp_path)))
    known = first.outputs_of(TEXTS)
    assert len(server.seen) == 8
    torch.testing.assert_close(first.outputs_of(TEXTS[::-1]), known.flip(0))
    second = at(server, cache=str(tmp_path))
    again = mx.load_endpoint("zoo", NAMES, connection=second)
    torch.testing.assert_close(again.outputs_of(TEXTS), known)
    assert len(server.seen) == 8
    assert second.spent["requests"] == 0
    assert second.spent["answers reused"] == 8
    next(tmp_path.rglob("*.json")).write_text("{half a fi")
    mx.load_endpoint("zoo", NAMES, connection=at(server, cache=str(tmp_path))).outputs_of(TEXTS)
    assert len(server.seen) == 9, "a damaged answer is asked for again"


@pytest.mark.parametrize("fault", ["429", "500", "cut", "garbage"])
def test_a_fault_that_passes_costs_nothing_but_time(server, zoo, fault):
    server.faults = ["", fault, fault]
    asked = at(server, retries=3, at_once=2)
    found = mx.load_endpoint("zoo", NAMES, connection=asked).outputs_of(TEXTS).numpy()
    np.testing.assert_allclose(found[:, :4], of_the_model(zoo, TEXTS), atol=1e-5)
    assert len(server.seen) == 10
    assert asked.spent["requests"] == 8


def test_a_slow_answer_is_asked_for_again(server):
    server.faults, server.slowness = ["slow"], 6.0
    box = mx.load_endpoint("zoo", NAMES, connection=at(server, timeout=2.0, retries=2))
    assert box.outputs_of(TEXTS[:1]).shape == (1, 5)
    assert len(server.seen) == 5


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("500", ArtifactError, "no usable answer after 1 retries"),
        ("cut", ArtifactError, "no usable answer"),
        ("garbage", ArtifactError, "no usable answer"),
        ("401", ConfigError, "Put a valid key into OPENAI_API_KEY"),
        ("400", ModelSupportError, "fault 400"),
        ("no_logprobs", ModelSupportError, "Use a server that gives them"),
        ("no_choices", ArtifactError, "no choices"),
    ],
)
def test_a_fault_that_stays_is_said(server, monkeypatch, fault, error, said):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server.always = fault
    box = mx.load_endpoint("zoo", NAMES, connection=at(server, retries=1))
    with pytest.raises(error, match=said) as caught:
        box.outputs_of(TEXTS)
    assert "sk-very-secret" not in str(caught.value)
    if fault in ("401", "400"):
        assert len(server.seen) == 1, "the others were not tried"


def test_no_server(zoo):
    with serving(zoo) as gone:
        url = gone.url
    with pytest.raises(ArtifactError, match="Check base_url"):
        mx.load_endpoint("zoo", NAMES, connection=Connection(url, retries=1)).outputs_of(TEXTS)


def test_refused_before_any_request(server, monkeypatch):
    for settings in ({"outputs": [" a"]}, {"outputs": [" a", " a"]}, {"outputs": [" a", ELSE]}):
        with pytest.raises(ConfigError, match=r"cannot have outputs|cannot be an output"):
            mx.load_endpoint("zoo", connection=at(server), **settings)
    with pytest.raises(ConfigError, match="api=chat"):
        mx.load_endpoint("zoo", NAMES, connection=at(server), system="Be brief.")
    with pytest.raises(ConfigError, match="chat"):
        mx.load_endpoint("zoo", NAMES, connection=at(server), api="chats")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="Set OPENAI_API_KEY"):
        mx.load_endpoint("zoo", NAMES).outputs_of(TEXTS)
    for url in (
        "http://user:pass@127.0.0.1/v1",
        "nowhere",
        "//127.0.0.1/v1",
        "ftp://127.0.0.1/v1",
        "file:///etc/passwd",
        "http://127.0.0.1/v1#part",
        "http://127.0.0.1/v1?key=1",
        "http:///v1",
        "http://[1/v1",
        "http://127.0.0.1:port/v1",
        "javascript:alert(1)",
        " http://127.0.0.1/v1",
    ):
        with pytest.raises(ConfigError, match="base_url") as caught:
            Connection(url)
        assert "pass@" not in str(caught.value)
    with pytest.raises(ConfigError, match="at_once is 0: it must be at least 1"):
        Connection(server.url, at_once=0)
    assert not server.seen


def test_answers_that_cannot_be_told_apart_or_placed(server):
    chat = mx.load_endpoint("zoo", ["Mary", "Mary and John"], api="chat", connection=at(server))
    with pytest.raises(ConfigError, match="differ in their first token"):
        chat.outputs_of(TEXTS[:1])
    with pytest.raises(AlignmentError, match="End the text without a space"):
        mx.load_endpoint("zoo", ["Mary", "John"], connection=at(server)).outputs_of([TEXTS[0] + " "])


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_an_empty_text_is_asked_as_an_ellipsis(server, api):
    mx.load_endpoint("zoo", [" Mary", " John"], api=api, connection=at(server)).outputs_of([""])
    asked = [body.get("prompt") or body["messages"][-1]["content"] for body in server.seen]
    assert set(asked) == ({"... Mary", "... John"} if api == "completions" else {"..."})


def test_the_key_is_sent_and_kept_nowhere(zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("OWN_KEY", "sk-very-secret")
    with serving(zoo, key="sk-very-secret") as server:
        asked = Connection(server.url, key_from="OWN_KEY", cache=str(tmp_path))
        box = mx.load_endpoint("zoo", NAMES, connection=asked)
        batch = mx.tasks.prompts(box, texts=TEXTS[:1], answers=[" Mary"], wrong=[" John"])
        result = mx.Occlusion(players="word", baseline="mask")(box, batch)
        result.save(tmp_path / "result.nc")
    said = " ".join(map(repr, (asked, box, box.info(), result.info)))
    assert "sk-very-secret" not in said
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"sk-very-secret" not in path.read_bytes()


def test_an_echoed_key_reaches_no_file(zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with serving(zoo) as server:
        server.always = "echo_key"
        mx.load_endpoint("zoo", NAMES, connection=at(server, cache=str(tmp_path))).outputs_of(TEXTS)
    files = list(tmp_path.rglob("*.json"))
    assert files
    for path in files:
        assert "sk-very-secret" not in path.read_text()
        assert "***" in path.read_text()


def test_no_redirect_is_followed(server, zoo, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with serving(zoo) as elsewhere:
        server.always, server.elsewhere = "redirect", elsewhere.url.removesuffix("/v1")
        with pytest.raises(ConfigError, match="which is not followed"):
            mx.load_endpoint("zoo", NAMES, connection=at(server, retries=1)).outputs_of(TEXTS)
        assert not elsewhere.seen


def test_a_stored_answer_is_compared_with_its_request(server, tmp_path):
    """Bits that flip, and the answer to another request under this one's name, are asked for again."""
    known = mx.load_endpoint("zoo", NAMES, connection=at(server, cache=str(tmp_path))).outputs_of(TEXTS)
    first, second, *_ = sorted(tmp_path.rglob("*.json"))
    swapped = second.read_bytes()
    for content in (swapped, *(flip_bit(first.read_bytes(), random.Random(seed)) for seed in range(20))):
        first.write_bytes(content)
        server.seen = []
        again = mx.load_endpoint("zoo", NAMES, connection=at(server, cache=str(tmp_path))).outputs_of(TEXTS)
        torch.testing.assert_close(again, known, rtol=0, atol=0)
        assert len(server.seen) == 1


def test_a_killed_run_goes_on_without_paying_again(server, tmp_path):
    """Killed in the middle of a server that fails now and then; the second run asks for what is missing only."""
    script = f"""
import mechxai as mx
from mechxai.model.generation.connection import Connection
box = mx.load_endpoint("zoo", {NAMES!r}, connection=Connection({server.url!r}, cache={str(tmp_path)!r}, at_once=1))
texts = [{TEXTS[0]!r}.replace("store", place) for place in ("school", "park", "garden", "hospital", "farm", "beach")]
print(box.outputs_of(texts).sum().item())
"""
    server.faults = ["", "500", "", "", "cut"] + ["", "", "slow"] * 20
    going = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"OPENAI_API_KEY": "sk-very-secret"})
    deadline = time.time() + 120
    while len(list(tmp_path.rglob("*.json"))) < 6 and time.time() < deadline:
        time.sleep(0.05)
    going.send_signal(signal.SIGKILL)
    going.wait()
    kept = {path.name for path in tmp_path.rglob("*.json")}
    assert 6 <= len(kept) < 24
    paid = {json.dumps(json.loads(path.read_text())["request"]["prompt"]) for path in tmp_path.rglob("*.json")}
    server.faults, server.seen = [], []
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    assert len(server.seen) == 24 - len(kept)
    assert not paid & {json.dumps(body["prompt"]) for body in server.seen}
