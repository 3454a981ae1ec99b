"""The attention page: what it holds, that nothing can get out of it, and that a browser draws it in time."""

import base64
import inspect
import json
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
import xarray as xr

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.result import Result, RunInfo, variable
from mechxai.figures.browser import browser_available

HOSTILE = '</script><script>document.body.dataset.hacked="yes"</script>'
VIEWS = ("head", "model", "neuron")


def patterns(n=12, n_layers=2, n_heads=3, d_head=8, token=None):
    """Random causal patterns with the queries and keys that make them."""
    draw = np.random.default_rng(0)
    query, key = draw.normal(size=(2, 1, n_layers, n_heads, n, d_head)).astype(np.float32)
    scores = np.where(np.tril(np.ones((n, n), bool)), 0.5 * query @ key.swapaxes(-1, -2), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    tokens = np.array([[token or f"t{i}" for i in range(n)]], dtype=str)
    heads, per_pos = ("prompt", "layer", "head", "dest_pos", "src_pos"), ("prompt", "layer", "head", "pos", "d_head")
    data = {
        "pattern": variable(heads, weights.astype(np.float32), "probability", "attention"),
        "query": variable(per_pos, query, "1", "query"),
        "key": variable(per_pos, key, "1", "key"),
        "scale": variable((), 0.5, "1", "scale"),
        "token": variable(("prompt", "pos"), tokens, "text", "tokens"),
    }
    coords = {"layer": list(range(n_layers)), "head": list(range(n_heads))}
    info = RunInfo(
        method={"name": "attention_patterns"}, model={"name": "a model"}, task={"name": "given"}, kind="attention"
    )
    return Result(xr.Dataset(data, coords=coords), info)


def content(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


def unpacked(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def test_short_prompts_keep_every_weight():
    result = patterns()
    held = content(mx.attention_html(result))
    weights = unpacked(held["weights"], np.uint8).reshape(2, 3, 12, 12) / 255
    assert weights == pytest.approx(result.data["pattern"].values[0], abs=0.5 / 255 + 1e-6)
    assert held["causal"]
    assert held["sources"] is None
    assert held["tokens"][3] == "t3"
    assert unpacked(held["thumbs"], np.uint8).reshape(2, 3, 12, 12) / 255 == pytest.approx(weights)


def test_products_of_queries_and_keys_survive_eight_bits():
    result = patterns()
    held = content(mx.attention_html(result, view="neuron"))
    vectors = [
        unpacked(held[name], np.int8).reshape(2, 3, 12, 8) * unpacked(held[f"{name}_scale"], "<f4").reshape(2, 3, 12, 1)
        for name in ("query", "key")
    ]
    scores = held["scale"] * vectors[0] @ vectors[1].swapaxes(-1, -2)
    expected = 0.5 * result.data["query"].values[0] @ result.data["key"].values[0].swapaxes(-1, -2)
    assert scores == pytest.approx(expected, abs=0.05)


def test_long_prompts_keep_the_largest_weights():
    result = patterns(n=512, n_layers=2, n_heads=2, d_head=4)
    held = content(mx.attention_html(result))
    width = held["width"]
    kept = unpacked(held["weights"], np.uint8).reshape(2, 2, 512, width)
    sources = unpacked(held["sources"], "<u2").reshape(2, 2, 512, width)
    whole = result.data["pattern"].values[0]
    assert np.take_along_axis(whole, sources.astype(int), -1) == pytest.approx(kept / 255, abs=0.5 / 255 + 1e-6)
    left_out = whole.copy()
    np.put_along_axis(left_out, sources.astype(int), 0, -1)
    assert (left_out.max(-1) <= np.take_along_axis(whole, sources.astype(int), -1).min(-1) + 1e-6).all()
    assert unpacked(held["thumbs"], np.uint8).size == 4 * 64 * 64


def test_queries_too_large_are_left_out_with_the_way_out(monkeypatch):
    monkeypatch.setattr("mechxai.figures.attention_view._MAX_QUERY_BYTES", 10)
    assert "fewer layers or heads" in content(mx.attention_html(patterns()))["no_query"]


def test_the_page_loads_nothing_and_tokens_cannot_leave_their_place():
    page = mx.attention_html(patterns(token=HOSTILE))
    assert HOSTILE not in page
    assert content(page)["tokens"][0] == HOSTILE
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|src=|href=|@import|url\(", page)


@pytest.mark.parametrize(
    ("settings", "message"), [({"view": "heads"}, "Did you mean 'head'"), ({"prompt": 1}, "Prompt 1")]
)
def test_what_is_not_there_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        inspect.unwrap(mx.attention_html)(patterns(), **settings)  # as users call it, without checks of annotations


def test_the_figure_is_the_most_concentrated_head():
    result = patterns()
    figure = mx.plot(result)
    whole = result.data["pattern"].values[0]
    layer, head = (int(part) for part in figure.layout.title.text.split("head ")[1].split(" ")[0].split("."))
    assert np.array(figure.data[0].z) == pytest.approx(whole[layer, head])


def test_results_without_patterns_are_refused(zoo):
    with pytest.raises(ConfigError, match="attention_patterns"):
        mx.attention_html(mx.Occlusion()(zoo, mx.tasks.ioi(zoo, n=1)))


# In a browser ---------------------------------------------------------------------------------------------------------


def browser():
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None or not browser_available():
        pytest.skip("no Chromium")
    return found


def opened(path, *options):
    """The page's document once its scripts have run."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [browser(), *flags, *options, f"file://{path}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_drawn(tmp_path, view):
    page = mx.save_attention(patterns(token=HOSTILE), tmp_path / "attention.html", view=view)
    document = opened(page, "--dump-dom")
    assert re.search(r'data-ready="\d+"', document)
    assert "data-hacked" not in document
    selected = re.findall(r'id="tab-(\w+)" aria-selected="true"', document)
    assert selected == [view]
    height = int(re.search(r"height: (\d+)px", document).group(1))
    assert height > 40


def test_512_tokens_of_twelve_layers_are_drawn_in_seconds(tmp_path):
    result = patterns(n=512, n_layers=12, n_heads=12, d_head=64)
    started = time.perf_counter()
    page = mx.save_attention(result, tmp_path / "attention.html")
    made = time.perf_counter() - started
    assert page.stat().st_size < 25e6
    assert made < 30
    times = []
    while len(times) < 3 and min(times, default=2000) >= 2000:  # 1.5 s where nothing else runs
        times.append(int(re.search(r'data-ready="(\d+)"', opened(page, "--dump-dom")).group(1)))
    assert min(times) < 5000, times
