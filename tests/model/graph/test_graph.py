"""The graph of a model: edges, outputs of nodes, gradients at inputs, and runs of circuits."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ModelSupportError, SiteError
from mechxai.core.graph import Graph, node_of
from mechxai.core.site import Site
from mechxai.model.dense.parts import Norm
from mechxai.model.graph.circuit import run_circuits
from mechxai.model.graph.gradients import reader_gradients, through_norm
from mechxai.model.graph.writes import embedded, graph_blocks, writes
from mechxai.model.readout import unembedded
from tests.conftest import FOLDED, MODELS


def parts(model):
    blocks = graph_blocks(model)
    return blocks, blocks.dense, blocks.graph


def tokens(seed=0, rows=2, width=7):
    return torch.randint(10, 90, (rows, width), generator=torch.Generator().manual_seed(seed))


def test_the_graph_of_gpt2_small():
    graph = Graph(12, 12, 12, mlps=True, parallel=False)
    assert (len(graph.writers), len(graph.readers), len(graph.edges)) == (157, 445, 32491)
    assert graph.edges[0] == ("embed", "a0.h0.q")
    assert ("a0.h3", "m0") in graph.edges
    assert ("m11", "logits") in graph.edges


def test_parallel_grouped_and_attention_only_graphs():
    parallel = Graph(2, 4, 4, mlps=True, parallel=True)
    assert ("a0.h3", "m0") not in parallel.edges
    assert ("a0.h3", "m1") in parallel.edges
    grouped = Graph(2, 4, 2, mlps=True, parallel=False)
    assert [one for one in grouped.readers if one.startswith("a1")] == [
        "a1.h0.q", "a1.h1.q", "a1.h2.q", "a1.h3.q", "a1.g0.k", "a1.g1.k", "a1.g0.v", "a1.g1.v",
    ]  # fmt: skip
    heads = Graph(2, 4, 4, mlps=False, parallel=False)
    assert len(heads.edges) == 12 * 1 + 12 * 5 + 9 == 81
    assert not [one for one in heads.writers if one.startswith("m")]
    assert [node_of(one) for one in ("a5.h1.q", "a5.g0.k", "m3", "logits")] == ["a5.h1", "a5.g0", "m3", "logits"]


def test_tables_of_edges_and_numbers():
    graph = Graph(2, 2, 2, mlps=True, parallel=False)
    n = len(graph.edges)
    chosen = torch.zeros(3, n, dtype=torch.bool)
    chosen[0, 5], chosen[2] = True, True
    table = graph.chosen(chosen)
    assert torch.equal(graph.of_matrix(table.float()), chosen.float())
    assert torch.equal(table[2], graph.reads)
    edge = graph.edges[5]
    assert graph.numbers([edge]).tolist() == [5]
    with pytest.raises(SiteError, match=r"Unknown edge .embed -> a0\.h1\.x"):
        graph.numbers([("embed", "a0.h1.x")])


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_what_nodes_write_adds_up_to_what_is_read(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    blocks, plain, graph = parts(model)
    ids = tokens()
    found = writes(blocks, embedded(model, ids))
    acts = model.cache(ids, ["resid_pre", "resid_post"])
    bias = torch.zeros(())
    for layer, block in enumerate(plain.blocks):
        n = graph.n_before_attention(layer)
        torch.testing.assert_close(found.values[:n].sum(0) + bias, acts["resid_pre", layer], atol=1e-4, rtol=1e-4)
        bias = bias + (0 if block.attention.o.bias is None else block.attention.o.bias)
    last = graph.n_layers - 1
    torch.testing.assert_close(found.values.sum(0) + bias, acts["resid_post", last], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["LN", "RMS", "none"])
@pytest.mark.parametrize("weighted", [True, False])
def test_back_through_a_norm(kind, weighted):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    norm = Norm(kind, 1e-5, draw(8) if weighted and kind != "none" else None, draw(8) if kind == "LN" else None)
    if kind == "LN" and norm.weight is None:
        norm = Norm(kind, 1e-5)
    read, gradient = draw(2, 3, 8).requires_grad_(), draw(5, 2, 3, 8)
    found = through_norm(norm, read.detach(), gradient)
    for one, expected in zip(found, gradient, strict=True):
        (theirs,) = torch.autograd.grad(norm(read), read, expected)
        torch.testing.assert_close(one, theirs)


def _logits(model, plain, last):
    return unembedded(model, plain.final(last[:, -1]))


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_gradients_are_the_slopes_of_circuit_runs(model_of, kind, backend, processing):
    """A reader alone sees a writer moved a little: the score moves by the gradient there times the move."""
    model = model_of(kind, backend, processing, "float64")
    blocks, plain, graph = parts(model)
    first = embedded(model, tokens())
    written = writes(blocks, first).values
    gradients = reader_gradients(blocks, first, lambda last: _logits(model, plain, last)[:, 30])
    step, generator = 1e-5, torch.Generator().manual_seed(1)
    flat = [one for readers in gradients.readers for one in readers.values]
    assert [readers.seen for readers in gradients.readers for _ in readers.values] == list(graph.seen)
    for row in torch.randperm(len(graph.readers), generator=generator)[:6].tolist():
        n = graph.seen[row]
        writer = int(torch.randint(n, (), generator=generator))
        move = torch.randn(written.shape[1:], generator=generator, dtype=torch.float64)
        references = written.clone()
        references[writer] += step * move
        circuit = graph.reads.clone()
        circuit[row, writer] = False  # that reader sees the moved writer, the others as it is
        ends = run_circuits(blocks, first, references, circuits=torch.stack([graph.reads, circuit]))
        whole, moved = (_logits(model, plain, end)[:, 30] for end in ends)
        slope = (flat[row] * move).flatten(1).sum(1)
        torch.testing.assert_close((moved - whole) / step, slope, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_the_whole_circuit_is_the_model_and_no_circuit_the_reference(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    blocks, _, graph = parts(model)
    clean, other = (embedded(model, tokens(seed)) for seed in (0, 1))
    away = writes(blocks, other)
    circuits = torch.stack([graph.reads, torch.zeros_like(graph.reads)])
    whole, none = run_circuits(blocks, clean, away.values, circuits=circuits)
    torch.testing.assert_close(whole, writes(blocks, clean).residuals[-1], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(none, away.residuals[-1], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_cutting_all_a_head_writes_is_patching_the_head(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    blocks, plain, graph = parts(model)
    ids, others = tokens(0), tokens(1)
    clean, away = embedded(model, ids), writes(blocks, embedded(model, others)).values
    writer = graph.writers.index("a0.h1")
    circuit = graph.reads.clone()
    circuit[:, writer] = False
    (last,) = run_circuits(blocks, clean, away, circuits=circuit[None])
    patch = mx.Intervention(Site("z", 0, head=1), mx.Patch(model.cache(others, ["z"])))
    expected = model.logits(ids, interventions=[patch])[:, -1]
    torch.testing.assert_close(_logits(model, plain, last), expected, atol=3e-4, rtol=1e-3)


def test_models_of_other_kinds_are_refused(model_of):
    with pytest.raises(ModelSupportError, match=r"attention is not causal.*mx.ActivationPatching"):
        graph_blocks(model_of("bert"))
