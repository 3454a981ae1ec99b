"""Information flow routes: importances by hand and by plain loops, conservation of flow, known circuits."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.edit import Edit
from mechxai.core.errors import ConfigError, ModelSupportError, NumericsError, SiteError
from mechxai.methods.circuits._lib import flow_shares
from mechxai.methods.circuits._lib.flow_shares import heads_proximity, proximity, shares
from tests.conftest import BACKENDS, MODELS


def routes(model, batch, threshold=0.0, **settings):
    return mx.InformationFlowRoutes(threshold, **settings)(model, batch).data


def test_importances_by_hand():
    """Two heads over two positions, one dimension per head, two dimensions in the stream.

    At position 1 the stream is y = (4, 2), |y| = 6, the sum of
        the residual       (1, 1): |y - z| = |3| + |1| = 4, near by 2
        the bias           (-1, 0): |y - z| = |5| + |2| = 7, not near: 0
        head 0 from 0      0.5 * 2 * (1, 0) = (1, 0): 3 + 2 = 5, near by 1
        head 0 from 1      0.5 * 6 * (1, 0) = (3, 0): 1 + 2 = 3, near by 3
        head 1 from 0      0.25 * 4 * (0, 1) = (0, 1): 4 + 1 = 5, near by 1
        head 1 from 1      0.75 * 0 * (0, 1) = (0, 0): near by 0
    which together are near by 7.
    """
    whole, at = torch.tensor([[4.0, 2.0]]), torch.tensor([1])
    pattern = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]])
    values = torch.tensor([[[2.0], [4.0]], [[6.0], [0.0]]])  # [src, head, d_head]
    out = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    heads = heads_proximity(pattern, values, out, vectors=whole, at=at)
    assert heads.tolist() == [[[1.0, 3.0]], [[1.0, 0.0]]]
    residual, bias = (proximity(torch.tensor([one]), whole) for one in ([1.0, 1.0], [-1.0, 0.0]))
    assert (residual.tolist(), bias.tolist()) == ([2.0], [0.0])
    found = shares([residual, bias, heads.transpose(0, 1)])
    torch.testing.assert_close(found[0], torch.tensor([2 / 7]))
    torch.testing.assert_close(found[2], torch.tensor([[[1 / 7, 3 / 7], [1 / 7, 0.0]]]))
    cancelled = shares([torch.zeros(1), torch.zeros(1, 2, 2)])
    assert all((one == 0).all() for one in cancelled), "addends that cancel have no importance"


def test_memory_is_bounded_for_long_prompts(monkeypatch):
    torch.manual_seed(0)
    n, at = 40, torch.tensor([3, 4, 5, 17, 30, 31, 39])
    pattern, values, out = torch.rand(2, 7, n), torch.randn(n, 2, 3), torch.randn(2, 3, 8)
    pattern = pattern.masked_fill(torch.arange(n) > at[:, None], 0.0)
    whole, held, nearness = torch.randn(7, 8), [], flow_shares._nearness

    def counted(gap, whole):
        held.append(gap.numel())
        return nearness(gap, whole)

    at_once = heads_proximity(pattern, values, out, vectors=whole, at=at)
    monkeypatch.setattr(flow_shares, "_nearness", counted)
    monkeypatch.setattr(flow_shares, "_ELEMENTS", {"cpu": n * 8})
    in_parts = heads_proximity(pattern, values, out, vectors=whole, at=at)
    torch.testing.assert_close(in_parts, at_once)
    assert max(held) <= n * 8
    assert len(held) > 2


def test_flow_by_hand():
    """Both layers of an attention-only model, route by route from the start down to a token."""
    model = mx.load("zoo/handmade-induction", device="cpu")
    batch = mx.tasks.induction(model, n=2, seed=0)
    data = routes(model, batch)
    top, below = (data["node"].sel(stream=at).values for at in (2, 0))
    attention, residual = data["attention"].values, data["residual_attention"].values
    for row, start in enumerate(data["start"].values):
        np.testing.assert_array_equal(top[row], np.arange(batch.n_pos) == start)
        by_hand = np.zeros(batch.n_pos)
        for mid in range(start + 1):
            into = attention[row, 1, start, mid] + (residual[row, 1, start] if mid == start else 0.0)
            if into == 0:
                continue
            by_hand[: batch.n_pos] += into * np.nan_to_num(attention[row, 0, mid])
            by_hand[mid] += into * residual[row, 0, mid]
        np.testing.assert_allclose(below[row], by_hand, atol=1e-6)


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_laws(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=3, lengths=[9, 6, 7], first=3)
    data = routes(model, batch)
    a = model.architecture
    assert data["attention"].shape == (3, a.n_layers, 9, 9)
    assert ("residual_mlp" in data) == (not a.parallel)
    np.testing.assert_allclose(data["input"].sum("pos") + data["bias_flow"], 1.0, atol=1e-5)
    reached = data["node_mid"].values > 0
    assert reached[0, 0].all(), "every position before the answer's is reached"
    parts = data["attention"].sum("src_pos") + data["residual_attention"] + data["bias"]
    if a.parallel:
        parts = parts + data["mlp"]
    else:
        above = data["node"].values[:, 1:] > 0
        np.testing.assert_allclose((data["mlp"] + data["residual_mlp"]).values[above], 1.0, atol=1e-5)
        assert np.isnan(data["mlp"].values[~above]).all()
    np.testing.assert_allclose(parts.values[reached], 1.0, atol=1e-5)
    np.testing.assert_allclose(
        data["head_importance"].sum("head").values[reached], data["attention"].sum("src_pos").values[reached], atol=1e-6
    )
    assert np.isnan(data["residual_attention"].values[~reached]).all()
    later = np.triu(np.ones((9, 9), dtype=bool), 1)
    assert not np.nan_to_num(data["attention"].values[..., later]).any(), "nothing comes from later positions"
    flow = np.einsum("rlp,rlph->rlh", data["node_mid"].fillna(0).values, data["head_importance"].fillna(0).values)
    np.testing.assert_allclose(data["head_flow"], flow.mean(0), atol=1e-6)
    for name in ("node", "node_mid", "input"):
        assert np.isnan(data[name].values[1, ..., 6:]).all(), name


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_a_padded_batch_equals_single_prompts(model_of, pairs, kind, monkeypatch):
    """With few elements in memory at once."""
    model = model_of(kind)
    batch = pairs(model, n=3, lengths=[9, 6, 7], first=3)
    together = routes(model, batch, 0.05, pos=-2)
    assert together["start"].values.tolist() == [7, 4, 5]
    assert (together["node"].values[0, :, 8] == 0).all(), "nothing is reached beyond the start"
    monkeypatch.setattr(flow_shares, "_ELEMENTS", {"cpu": 100})
    for row, n in enumerate(batch.lengths.tolist()):
        tokens = batch.clean[row : row + 1, :n]
        one = batch.rows(slice(row, row + 1))
        alone = mx.ContrastBatch.from_tokens(tokens, tokens, one.answers, one.wrong)
        own = routes(model, alone, 0.05, pos=-2)
        for name in ("node", "node_mid", "mlp", "residual_attention", "bias", "attention", "head_importance"):
            found = together[name].values[row]
            if name == "attention":
                found = found[..., :n]
            found = found[:, :n]
            np.testing.assert_allclose(found, own[name].values[0], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_plain_loops_over_a_transformer_lens_cache(model_of, pairs, kind):
    model = model_of(kind, BACKENDS[0])
    batch = pairs(model, n=1, width=6)
    threshold = 0.03
    data = routes(model, batch, threshold).isel(prompt=0)
    with torch.no_grad():
        _, cache = model.inner.run_with_cache(batch.clean)
    a, start = model.architecture, 5
    flow = {start: 1.0}
    for layer in reversed(range(a.n_layers)):
        flow = _below(model, cache, layer, flow, threshold, data)
    expected = [flow.get(pos, 0.0) for pos in range(6)]
    np.testing.assert_allclose(data["input"], expected, atol=1e-5)
    assert 0 < sum(expected) < 1, "some edges lie below the threshold"


def _near(part, whole):
    return max(0.0, float(whole.abs().sum() - (whole - part).abs().sum()))


def _below(model, cache, layer, flow, threshold, data):
    """The flow that one block passes on, by loops over nodes, heads and sources; checks the result's importances."""
    a, block = model.architecture, model.inner.blocks[layer]
    at = {name: cache[f"blocks.{layer}.hook_{name}"][0].double() for name in ("resid_pre", "resid_post", "mlp_out")}
    v, pattern = (cache[f"blocks.{layer}.attn.hook_{name}"][0].double() for name in ("v", "pattern"))
    W_O, b_O = block.attn.W_O.detach().double(), block.attn.b_O.detach().double()
    found = {}
    for dest, reaching in flow.items():
        arriving = reaching
        middle = at["resid_post"][dest]
        if not a.parallel:
            middle = middle - at["mlp_out"][dest]
            near = [_near(part, at["resid_post"][dest]) for part in (at["mlp_out"][dest], middle)]
            split = [one / sum(near) for one in near]
            np.testing.assert_allclose(data["mlp"].values[layer, dest], split[0], atol=1e-5)
            arriving *= sum(one for one in split if one > threshold)
        heads = [
            [
                _near(pattern[h, dest, src] * (v[src, h * a.n_kv_heads // a.n_heads] @ W_O[h]), middle)
                for src in range(6)
            ]
            for h in range(a.n_heads)
        ]
        heads = np.array(heads)
        stays, bias = _near(at["resid_pre"][dest], middle), _near(b_O, middle)
        mlp = _near(at["mlp_out"][dest], middle) if a.parallel else 0.0
        total = heads.sum() + stays + bias + mlp
        np.testing.assert_allclose(data["attention"].values[layer, dest], heads.sum(0) / total, atol=1e-5)
        np.testing.assert_allclose(data["head_importance"].values[layer, dest], heads.sum(1) / total, atol=1e-5)
        np.testing.assert_allclose(data["bias"].values[layer, dest], bias / total, atol=1e-5)
        edges = [(src, one / total) for src, one in enumerate(heads.sum(0))] + [
            (dest, stays / total),
            (dest, mlp / total),
        ]
        for src, importance in edges:
            if importance > threshold:
                found[src] = found.get(src, 0.0) + arriving * importance
    return found


def test_the_known_circuit_of_the_handmade_model_carries_all_the_flow():
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=16, seed=0)
    data = mx.InformationFlowRoutes()(model, batch).data
    for node in model.card["truth"]["nodes"]:
        layer, head = (int(one[1:]) for one in node["node"].split("."))
        assert data["head_flow"].values[layer, head] > 0.1, node
    rows = np.arange(16)
    roles = {role: at.numpy() for role, at in batch.roles.items()}
    for layer, dest, src in ((2, "END", "IO"), (1, "END", "S2"), (0, "S2", "S1")):
        sources = np.nan_to_num(data["attention"].values[rows, layer, roles[dest]])
        sources[rows, roles[dest]] = 0  # what a head reads at its own position
        assert (sources.argmax(1) == roles[src]).all(), (layer, dest, src)
    at_names = sum(data["input"].values[rows, roles[role]] for role in ("IO", "S1", "S2", "END"))
    np.testing.assert_allclose(at_names, 1.0, atol=1e-4)


def test_the_planted_name_movers_bring_the_recipient():
    model = mx.load("zoo/planted-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=16, seed=0)
    data = mx.InformationFlowRoutes()(model, batch).data
    heads = data["head_flow"].values[2]
    assert set(heads.argsort()[-2:]) == {0, 1}
    arriving = data["input"].values[np.arange(16), batch.roles["IO"].numpy()]
    assert arriving.mean() > 0.6


def test_a_threshold_only_removes_flow(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2)
    every, some, none = (routes(model, batch, threshold) for threshold in (0.0, 0.1, 0.99))
    assert (some["node"] <= every["node"] + 1e-9).all()
    assert 0 < float(some["node"].sum()) < float(every["node"].sum())
    assert float(none["node"].sum()) == 2, "the starts alone"
    assert np.isnan(none["mlp"].values[:, 0]).all()


def test_user_prompts_from_any_position(zoo):
    batch = mx.tasks.prompts(zoo, texts=["When Mary and John went to the store, John gave a drink to"])
    data = routes(zoo, batch, pos=3)
    assert data["start"].item() == 3
    assert (data["input"].values[0, 4:] == 0).all()
    assert data["token"].values[0, 2].strip() == "Mary"


def test_edits_change_the_routes(model_of, pairs):
    """Ablating a head's pattern removes the head from the routes; an edit of its z is an error."""
    model = model_of("llama")
    batch = pairs(model, n=3, lengths=[9, 7, 8], first=3)
    quiet = mx.Intervention(mx.Site("pattern", 1, head=2), mx.ZeroAblate())
    data = routes(model, batch, interventions=[quiet])
    assert float(data["head_importance"].sel(layer=1, head=2).max()) < 1e-6
    assert float(data["head_importance"].sel(layer=1, head=1).max()) > 0.01
    patch = mx.Patch(model.cache(batch.corrupted, ["resid_pre"], layers=[1], lengths=batch.lengths))
    moved = routes(model, batch, interventions=[mx.Intervention(mx.Site("resid_pre", 1), patch)])
    other = routes(model, batch, run="corrupted")
    np.testing.assert_allclose(moved["attention"].sel(layer=[1, 2]), other["attention"].sel(layer=[1, 2]), atol=1e-5)
    late = mx.Intervention(mx.Site("z", 1, head=2), mx.ZeroAblate())
    with pytest.raises(NumericsError, match=r"layer 1.*not the sum.*pattern"):
        routes(model, batch, interventions=[late])


def test_refused(model_of, pairs):
    for threshold in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"threshold.*(from 0 to below 1|finite)"):
            mx.InformationFlowRoutes(threshold)
    with pytest.raises(ConfigError, match=r"run='both'"):
        mx.InformationFlowRoutes(run="both")
    bert = model_of("bert", "bridge")
    with pytest.raises(ModelSupportError, match="attention is not causal"):
        routes(bert, pairs(bert))
    model = model_of("gpt2")
    with pytest.raises(SiteError, match=r"Position 8.*7 tokens.*-7 to 6"):
        routes(model, pairs(model, lengths=[9, 7]), pos=8)


class Broken(Edit):
    def __call__(self, activation, site):
        raise RuntimeError("on the way")


def test_no_hook_is_left_after_an_exception(model_of, pairs):
    model = model_of("gpt2")
    with pytest.raises(RuntimeError, match="on the way"):
        routes(model, pairs(model), interventions=[mx.Intervention(mx.Site("pattern", 1, head=2), Broken())])
    assert not any(point.fwd_hooks for point in model.backend.hooks.values())
