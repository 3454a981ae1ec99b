"""Edge scores: exact ones against runs of circuits, first-order ones against slopes, both against known circuits."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import mechxai as mx
from mechxai.core.errors import ConfigError, ModelSupportError, ShapeError
from mechxai.core.metric import as_metric
from mechxai.engine.chunk import metric_values
from mechxai.model.backends.hooks import gathered
from mechxai.model.graph.circuit import run_circuits
from mechxai.model.graph.writes import embedded, graph_blocks, writes
from tests.conftest import FOLDED, has_hooked_transformer

LENGTHS = [9, 7]


def measured(model, batch, circuits, run="clean", metric="logit_diff"):
    """The metric under circuits (a share of each edge), ``[circuit, prompt]``; the other run is the reference."""
    blocks, metric = graph_blocks(model), as_metric(metric)
    other = "corrupted" if run == "clean" else "clean"
    first = embedded(model, batch.tokens(run))
    away = writes(blocks, embedded(model, batch.tokens(other))).values
    ends = run_circuits(blocks, first, away, circuits=circuits)
    at = metric.positions(batch)
    prompts = torch.arange(len(batch))
    with torch.no_grad():
        return torch.stack(
            [
                metric_values(model, metric, batch, final=blocks.dense.final(gathered(end, at)), prompts=prompts)
                for end in ends
            ]
        )


def some_edges(graph, n=12, seed=0):
    return torch.randperm(len(graph.edges), generator=torch.Generator().manual_seed(seed))[:n].tolist()


def without(graph, edges, share=0.0):
    """For each edge a circuit with all other edges, and ``share`` of this one."""
    table = torch.ones(len(edges) + 1, len(graph.edges), dtype=torch.float64)
    table[range(len(edges)), edges] = share
    circuits = torch.zeros(len(table), *graph.reads.shape, dtype=torch.float64)
    circuits[:, graph.reads] = table
    return circuits


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
@pytest.mark.parametrize("direction", ["noise", pytest.param("denoise", marks=pytest.mark.slow)])
def test_exact_scores_equal_runs_of_circuits_without_the_edge(model_of, pairs, kind, backend, processing, direction):
    model = model_of(kind, backend, processing)
    batch = pairs(model, lengths=LENGTHS, first=3)
    graph = graph_blocks(model).graph
    data = mx.EdgePatching(direction=direction)(model, batch).data
    edges = some_edges(graph)
    found = measured(model, batch, without(graph, edges), "clean" if direction == "noise" else "corrupted").numpy()
    expected = (found[-1] - found[:-1]) if direction == "noise" else (found[:-1] - found[-1])
    np.testing.assert_allclose(data["per_example"].values[:, edges], expected.T, atol=2e-4)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_first_order_scores_are_slopes_of_cutting(model_of, pairs, kind, backend, processing):
    """EAP is the derivative by each edge's share, here by finite differences."""
    model = model_of(kind, backend, processing, "float64")
    batch = pairs(model, lengths=LENGTHS, first=3)
    graph = graph_blocks(model).graph
    edges, step = some_edges(graph), 1e-5
    for direction, run, sign in (("noise", "clean", 1), ("denoise", "corrupted", -1)):
        data = mx.EdgeAttribution("eap", direction=direction)(model, batch).data
        found = measured(model, batch, without(graph, edges, 1 - step), run).numpy()
        slopes = sign * (found[-1] - found[:-1]) / step
        np.testing.assert_allclose(data["per_example"].values[:, edges], slopes.T, atol=2e-4, rtol=2e-3)
    both = mx.EdgeAttribution("clean_corrupted")(model, batch).data["value"]
    ends = [mx.EdgeAttribution("eap", direction=one)(model, batch).data["value"] for one in ("noise", "denoise")]
    np.testing.assert_allclose(both, (ends[0] + ends[1]) / 2, atol=1e-6)


def test_one_step_of_integrated_gradients_is_eap(model_of, pairs):
    model = model_of("llama")
    batch = pairs(model)
    for rule, direction in (("right", "noise"), ("left", "denoise")):
        one = mx.EdgeAttribution("eap_ig_inputs", steps=1, rule=rule)(model, batch).data["value"]
        np.testing.assert_allclose(
            one, mx.EdgeAttribution("eap", direction=direction)(model, batch).data["value"], atol=1e-5
        )

    writers = mx.EdgeAttribution("eap_ig_activations", steps=1, rule="right")(model, batch).data["value"]
    np.testing.assert_allclose(writers, mx.EdgeAttribution("eap")(model, batch).data["value"], atol=1e-5)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_scores_along_each_writer_are_complete(model_of, pairs, kind, backend, processing):
    """The scores of a layer's heads, or of an MLP, sum to the effect of moving them from corrupted to clean."""
    model = model_of(kind, backend, processing, "float64")
    batch = pairs(model, lengths=LENGTHS, first=3)
    data = mx.EdgeAttribution("eap_ig_activations", steps=16, rule="gauss")(model, batch).data
    for site, node in (("attn_out", "a{}."), ("mlp_out", "m{}")):
        patched = mx.ActivationPatching(site, ("layer",), "noise")(model, batch).data
        moved = (data["baseline_clean"] - patched["per_example"]).transpose("prompt", "layer").values
        for layer in range(moved.shape[1]):
            own = np.char.startswith(data["src"].values.astype(str), node.format(layer))
            np.testing.assert_allclose(data["per_example"].values[:, own].sum(1), moved[:, layer], atol=1e-4)
    zero = mx.EdgeAttribution("eap_ig_activations", steps=16, rule="gauss", reference="zero")(model, batch).data
    gone = zero["baseline_clean"] - mx.Ablation("mlp_out", ("layer",), edit="zero")(model, batch).data["per_example"]
    own = np.char.startswith(zero["src"].values.astype(str), "m1")
    np.testing.assert_allclose(zero["per_example"].values[:, own].sum(1), gone.isel(layer=1), atol=1e-4)


@pytest.mark.parametrize("kind", ["eap", "eap_ig_inputs", "eap_ig_activations"])
def test_shared_positions_are_run_once_and_change_nothing(model_of, pairs, kind, monkeypatch):
    # on the bridge Llama's RMSNorm works in float32
    model = model_of("llama" if has_hooked_transformer() else "neox", "auto", "folded", "float64")
    batch = pairs(model, lengths=LENGTHS, first=4)
    short = mx.EdgeAttribution(kind)(model, batch)
    monkeypatch.setattr(type(batch), "first_difference", property(lambda self: torch.zeros_like(self.lengths)))
    whole = mx.EdgeAttribution(kind)(model, batch)
    np.testing.assert_allclose(short.data["per_example"], whole.data["per_example"], atol=1e-6)
    assert short.info.cost["forward_passes"] < whole.info.cost["forward_passes"]


def test_integration_steps():
    def at(**settings):
        return mx.EdgeAttribution(**settings).integration_steps()

    assert at(steps=2) == [(0.25, 0.5), (0.75, 0.5)]
    assert at(steps=2, rule="left") == [(0.0, 0.5), (0.5, 0.5)]
    assert at(steps=2, rule="right") == [(0.5, 0.5), (1.0, 0.5)]
    gauss = at(steps=2, rule="gauss")
    assert gauss[0][0] == pytest.approx(0.5 - 3**-0.5 / 2)
    assert sum(weight for _, weight in gauss) == pytest.approx(1)
    assert at(kind="clean_corrupted") == [(0.0, 0.5), (1.0, 0.5)]


@pytest.mark.skipif(not has_hooked_transformer(), reason="TransformerLens 4 has no HookedTransformer")
@pytest.mark.parametrize("direction", ["noise", pytest.param("denoise", marks=pytest.mark.slow)])
@torch.no_grad()
def test_an_edge_at_one_position_equals_transformer_lens_hooks(model_of, pairs, direction):
    """Edges from one node into a head and into an MLP at one position, by hooks on split inputs."""
    model = model_of("gpt2", "hooked_transformer", "folded", "float64")
    batch = pairs(model, n=3, lengths=[9, 7, 8], first=2)
    places = (3, "END")
    found = mx.EdgePatching(direction, pos=places)(model, batch).data
    assert list(found["pos"].values) == ["3", "END"]
    inner, rows = model.inner, torch.arange(3)
    base, other = ("clean", "corrupted") if direction == "noise" else ("corrupted", "clean")
    acts = [model.cache(batch.tokens(run), ["z", "mlp_out"], lengths=batch.lengths) for run in (other, base)]
    moves = {
        "a0.h1": (acts[0]["z", 0] - acts[1]["z", 0])[:, :, 1] @ inner.blocks[0].attn.W_O[1],
        "m0": acts[0]["mlp_out", 0] - acts[1]["mlp_out", 0],
    }
    at = {"3": torch.full((3,), 3), "END": batch.answer_pos}
    before = found[f"baseline_{base}"].values
    for (src, dest, hook, head), (label, place) in product(
        (
            ("a0.h1", "a1.h0.q", "blocks.1.hook_q_input", 0),
            ("m0", "a1.h1.v", "blocks.1.hook_v_input", 1),
            ("a0.h1", "m1", "blocks.1.hook_mlp_in", None),
            ("m0", "m1", "blocks.1.hook_mlp_in", None),
        ),
        at.items(),
    ):

        def move(value, hook, src=src, head=head, place=place):
            value = value.clone()
            where = (rows, place) if head is None else (rows, place, torch.full((3,), head))
            value[where] += moves[src][rows, place]
            return value

        try:
            inner.set_use_split_qkv_input(True)
            inner.set_use_hook_mlp_in(True)
            logits = inner.run_with_hooks(batch.tokens(base), fwd_hooks=[(hook, move)], prepend_bos=False)
        finally:
            inner.set_use_split_qkv_input(False)
            inner.set_use_hook_mlp_in(False)
        last = logits[rows, batch.answer_pos]
        value = (last.gather(1, batch.answers[:, :, 0]) - last.gather(1, batch.wrong[:, :, 0]))[:, 0].numpy()
        moved = (before - value if direction == "noise" else value - before).mean()
        ours = float(found["at_position"].sel(edge=f"{src} -> {dest}", pos=label))
        assert ours == pytest.approx(float(moved), abs=1e-8), (src, dest, label)


def test_an_edge_at_a_position_before_any_difference_has_no_effect(model_of, pairs):
    model = model_of("neox")
    batch = pairs(model, n=2, first=4)
    data = mx.EdgePatching(pos=[1, -1])(model, batch).data
    assert float(np.abs(data["at_position"].isel(pos=0)).max()) < 1e-6
    ends = data["dest"].values == "logits"
    np.testing.assert_allclose(data["at_position"].values[ends, 1], data["value"].values[ends], atol=1e-5)


def test_edges_into_the_logits_are_exact_without_a_norm():
    """With only the unembedding after it, the score is linear: first order is exact, and scores add up."""
    model = mx.load("zoo/handmade-ioi", device="cpu")
    batch = mx.tasks.ioi(model, n=6)
    exact, first = mx.EdgePatching()(model, batch).data, mx.EdgeAttribution("eap")(model, batch).data
    ends = exact["dest"].values == "logits"
    np.testing.assert_allclose(first["value"].values[ends], exact["value"].values[ends], atol=1e-4)
    gap = exact["baseline_clean"].values - exact["baseline_corrupted"].values
    np.testing.assert_allclose(exact["per_example"].values[:, ends].sum(1), gap, rtol=1e-4)


@pytest.mark.parametrize("name", ["zoo/handmade-ioi", "zoo/handmade-induction"])
@pytest.mark.parametrize(
    "method",
    [mx.EdgePatching(), mx.EdgeAttribution(), mx.EdgeAttribution("eap"), mx.EdgeAttribution("clean_corrupted")],
    ids=lambda method: getattr(method, "kind", "exact"),
)
def test_known_edges_are_found(name, method):
    model = mx.load(name, device="cpu")
    batch, truth = _task(model)
    data = method(model, batch).data
    true = [(src, dest) in truth for src, dest in zip(data["src"].values, data["dest"].values, strict=True)]
    assert sum(true) == len(truth)
    assert roc_auc_score(true, np.abs(data["value"])) >= 0.99
    nodes = {node["node"] for node in model.card["truth"]["nodes"]}
    idle = [
        not {src, dest.rsplit(".", 1)[0] if dest.startswith("a") else dest} & nodes
        for src, dest in zip(data["src"].values, data["dest"].values, strict=True)
    ]
    assert sum(idle) > 20
    assert np.abs(data["value"].values[idle]).max() < 1e-3, "heads that do nothing score nothing"


def _task(model):
    if model.name == "zoo/handmade-ioi":
        known = model.card["truth"]["visible_swap"]
        return mx.tasks.ioi(model, n=12), {(edge["src"], edge["dest"]) for edge in known}
    one, other = (mx.tasks.induction(model, n=12, seed=seed) for seed in (0, 1000))
    batch = mx.ContrastBatch.from_tokens(one.clean, other.clean, one.answers, other.answers)
    return batch, {(edge["src"], edge["dest"]) for edge in model.card["truth"]["edges"]}


@pytest.mark.parametrize("method", [mx.EdgePatching(), mx.EdgeAttribution()], ids=["exact", "eap_ig"])
def test_padded_batches_equal_single_prompts_and_sub_batches(model_of, pairs, method):
    model = model_of("llama")
    batch = pairs(model, lengths=LENGTHS, first=3)
    whole = method(model, batch).data["per_example"].values
    for row in range(2):
        alone = batch.rows(slice(row, row + 1))
        np.testing.assert_allclose(method(model, alone).data["per_example"].values[0], whole[row], atol=1e-4)
    small = method(model, batch, execution=mx.Execution(budget_bytes=2**20)).data["per_example"].values
    np.testing.assert_allclose(small, whole, atol=1e-4)


@pytest.mark.parametrize("metric", ["logprob", "kl_divergence", "prob_diff"])
def test_other_metrics(model_of, pairs, metric):
    model = model_of("gpt2")
    batch = pairs(model)
    exact = mx.EdgePatching(metric=metric)(model, batch).data
    whole = mx.EdgeAttribution("eap_ig_inputs", metric=metric, steps=10)(model, batch).data
    assert np.isfinite(whole["value"]).all()
    order = np.argsort(-np.abs(exact["value"].values))[:30]
    assert np.corrcoef(exact["value"].values[order], whole["value"].values[order])[0, 1] > 0.8


@pytest.mark.parametrize("reference", ["zero", "mean", "resample"])
def test_scores_under_other_references(model_of, pairs, reference):
    """Scores are linear in the clean output minus the reference."""
    model = model_of("gpt2")
    batch = pairs(model, n=3)
    data = mx.EdgeAttribution("eap", reference=reference)(model, batch).data
    assert np.isfinite(data["value"]).all()
    assert not np.allclose(data["value"], mx.EdgeAttribution("eap")(model, batch).data["value"])


def test_results(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model)
    for method in (mx.EdgeAttribution(), mx.EdgePatching()):
        result = method(model, batch)
        data = result.data
        assert data["value"].dims == ("edge",)
        assert data["per_example"].dims == ("prompt", "edge")
        assert str(data["edge"].values[0]) == "embed -> a0.h0.q"
        assert (data["value_low"] <= data["value"] + 1e-6).all()
        clean = mx.EdgePatching()(model, batch).data["baseline_clean"]
        np.testing.assert_allclose(data["baseline_clean"], clean, atol=1e-5)
        assert result.info.cost["forward_passes"] > 0


def test_refused(model_of, pairs):
    bert, gpt2 = model_of("bert"), model_of("gpt2")
    for method in (mx.EdgeAttribution(), mx.EdgePatching(), mx.EvaluateCircuit()):
        with pytest.raises(ModelSupportError, match="attention is not causal"):
            method(bert, pairs(bert))
    for settings, problem in (
        ({"kind": "eap_ig"}, "eap_ig_inputs"),
        ({"rule": "simpson"}, "midpoint"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"reference": "zero"}, "kind=eap with direction=noise"),
        ({"kind": "eap", "reference": "mean", "direction": "denoise"}, "direction=noise"),
    ):
        with pytest.raises(ConfigError, match=problem):
            mx.EdgeAttribution(**settings)
    with pytest.raises(ConfigError, match="denoise"):
        mx.EdgePatching(direction="denoising")
    long = mx.ContrastBatch.from_tokens(
        torch.zeros(1, 100, dtype=torch.long) + 12,
        torch.zeros(1, 100, dtype=torch.long) + 13,
        torch.tensor([5]),
        torch.tensor([6]),
    )
    with pytest.raises(ShapeError):
        mx.EdgePatching()(gpt2, long)
    apart = pairs(gpt2, n=2, lengths=LENGTHS, first=3)
    with pytest.raises(ConfigError, match=r"one prompt alone.*reference=corrupted"):
        mx.EdgeAttribution("eap", reference="resample")(gpt2, apart)
