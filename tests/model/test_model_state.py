"""After every call, and after an exception, hooks, modes and flags of the model are as before."""

import pytest
import torch

import mechxai as mx
from tests.conftest import FOLDED
from tests.model.observed import n_hooks, state, tokens_of


class BoomError(Exception):
    pass


def explode(*_):
    raise BoomError


@pytest.mark.parametrize(("kind", "backend", "processing"), [*FOLDED, ("bert", "auto", "folded")])
def test_an_exception_in_the_middle_leaves_nothing_behind(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    model.logits(tokens)  # a bridge installs hooks of its own on its first pass
    model.inner.train()
    model.inner.blocks[1].eval()
    try:
        before = state(model)
        sites = [mx.Site("result", 0)] if kind != "bert" else []
        with pytest.raises(BoomError):
            model.forward(
                tokens, hooks={"blocks.1.attn.hook_z": [explode], "hook_embed": [lambda _: None]}, sites=sites
            )
        assert state(model) == before
        with pytest.raises(BoomError):
            model.gradients(tokens, [mx.Site("z", 0)], explode)
        assert state(model) == before
        model.cache(tokens, ["z"], layers=[0])
        model.logits(tokens)
        assert state(model) == before
        with pytest.raises(KeyError):
            model.forward(tokens, hooks={"hook_embed": [lambda _: None], "blocks.9.attn.hook_z": [explode]})
        assert state(model) == before
    finally:
        model.inner.eval()


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_dropout_is_off_whatever_mode_the_model_is_in(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens = tokens_of(model)
    calm = model.logits(tokens)
    model.inner.train()
    try:
        assert torch.equal(model.logits(tokens), calm)
    finally:
        model.inner.eval()


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_the_users_own_hooks_survive_and_are_obeyed(model_of, kind, backend, processing):
    model = model_of(kind, backend, processing)
    tokens, seen = tokens_of(model), []
    plain, zero = model.logits(tokens), [mx.Intervention(mx.Site("z", 0), mx.ZeroAblate())]
    model.logits(tokens, interventions=zero)
    model.cache(tokens, ["z"], layers=[0])  # the checks of this model, once
    point = model.inner.hook_dict["blocks.0.attn.hook_z"]
    point.add_hook(lambda z, hook: seen.append(1) or z * 0)
    try:
        before = n_hooks(model)
        with_theirs = model.logits(tokens)
        zeroed = model.logits(tokens, interventions=zero)
        with pytest.raises(BoomError):
            model.forward(tokens, hooks={"blocks.0.attn.hook_z": [explode]})
        model.cache(tokens, ["z"], layers=[0])
        assert n_hooks(model) == before
        assert len(seen) == 4
        assert (with_theirs - plain).abs().max() > 1e-3
        assert torch.equal(with_theirs, zeroed)
    finally:
        model.inner.reset_hooks()
    assert torch.equal(model.logits(tokens), plain)
