"""A pass through dense blocks stops after the last requested site and holds no more than it needs."""

import dataclasses

import pytest
import torch

import mechxai as mx
from mechxai.core.site_table import SITES
from mechxai.model.dense import cache as cache_run
from mechxai.model.dense import check as dense_check
from mechxai.model.dense import run as dense_run
from mechxai.model.dense.buffers import Buffers
from mechxai.model.dense.check import dense_blocks, equivalence_check
from mechxai.model.dense.parts import Affine, Norm
from mechxai.model.dense.run import DENSE_SITES, pass_dense, run_dense
from tests.conftest import FOLDED
from tests.model.dense.comparison import N_LAYERS, hooked, tokens_of


def refuse(*_, **__):
    raise AssertionError("this was not to be run")


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_nothing_runs_after_the_last_wanted_site(model_of, monkeypatch, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    expected = hooked(model, tokens, ["resid_post", "z", "attn_out"])
    dense = dense_blocks(model.backend)
    check = equivalence_check(model.backend)
    first, second, _ = dense.blocks
    mlp = dataclasses.replace(second.mlp, activation=refuse)
    only_attention = dataclasses.replace(second, norm2=Norm("LN", 1e-5, torch.zeros(1)), mlp=mlp)
    no_output = dataclasses.replace(second.attention, o=Affine(torch.zeros(1, 1), None))
    only_z = dataclasses.replace(only_attention, attention=no_output)
    for name, blocks in (
        ("resid_post", [first, second]),
        ("attn_out", [first, only_attention]),
        ("z", [first, only_z]),
    ):
        part = dataclasses.replace(check, dense=dataclasses.replace(dense, blocks=blocks))
        monkeypatch.setattr(cache_run, "equivalence_check", lambda _, part=part: part)
        acts = model.cache(tokens, [name], layers=[0, 1])
        for layer in (0, 1):
            torch.testing.assert_close(acts[name, layer], expected[name, layer], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_of_the_model_itself_only_the_embedding_is_run(model_of, monkeypatch, kind, backend, processing):
    model = model_of(kind, backend, processing)
    equivalence_check(model.backend)
    monkeypatch.setattr(dense_check._Entry, "holds", lambda *_: True)  # or the new functions renew the check
    first = model.inner.blocks[0]  # where the embedding ends
    for module in (first.attn, first.mlp, *model.inner.blocks[1:], model.inner.ln_final, model.inner.unembed):
        monkeypatch.setitem(vars(module), "forward", refuse)
    model.cache(tokens_of(model), ["resid_post"])


def test_keys_and_values_are_not_held(model_of, monkeypatch):
    model = model_of("llama")
    dense = dense_blocks(model.backend)
    residual = torch.randn(2, 9, 64)
    attention = torch.nn.functional.scaled_dot_product_attention
    places = []

    def watched(q, k, v, **kwargs):
        places.append(v.data_ptr())
        return attention(q, k, v, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    values, kept = [], {}
    wanted = [mx.Site("resid_post", layer) for layer in range(N_LAYERS)]
    keep = lambda site, value: values.append(value.clone())  # noqa: E731
    buffers = Buffers()
    pass_dense(dense, residual, keep, wanted=wanted, buffers=buffers)
    pass_dense(dense, residual[:1], keep, wanted=wanted, buffers=buffers)
    assert len(set(places)) == 1
    pass_dense(dense, residual, keep, wanted=wanted, buffers=None)
    places.clear()
    run = run_dense(dense, residual, kept.__setitem__, wanted=wanted)
    assert len(set(places)) == N_LAYERS
    assert len(run.kept.keys) == N_LAYERS
    for layer in range(N_LAYERS):
        torch.testing.assert_close(values[layer], run.residuals[layer + 1])
        torch.testing.assert_close(values[N_LAYERS + layer], run.residuals[layer + 1][:1])
        torch.testing.assert_close(values[2 * N_LAYERS + layer], kept[wanted[layer]])


def test_dense_sites_are_sites():
    assert set(DENSE_SITES) <= set(SITES)
    assert dense_run.DENSE_SITES is DENSE_SITES
