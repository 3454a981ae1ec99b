"""The stack of cached activations over layers is a view where it can be, and right where it cannot."""

import dataclasses

import pytest
import torch

import mechxai as mx
from mechxai.model.backends.capture import AllCached, Keeper
from tests.model.dense.comparison import N_LAYERS, tokens_of


@pytest.mark.parametrize("names", [["resid_post", "z"], ["resid_post", "ln1_scale"]])
def test_a_stack_is_no_copy(model_of, names):
    model = model_of("gpt2")
    acts = model.cache(tokens_of(model), names, layers=[2, 0, 1])
    for name in names:
        stack = acts.stack(name)
        assert stack.data_ptr() == acts[name, 0].data_ptr()
        assert stack.untyped_storage().nbytes() == stack.nelement() * 4
        assert torch.equal(stack, torch.stack([acts[name, layer] for layer in range(N_LAYERS)]))


def test_other_stacks_are_right_too(model_of):
    model = model_of("gpt2")
    tokens = tokens_of(model)
    acts = model.cache(tokens, ["resid_post"])
    expected = torch.stack([acts["resid_post", layer] for layer in range(N_LAYERS)])
    rows = acts.rows(slice(1, 3))
    assert torch.equal(rows.stack("resid_post"), expected[:, 1:3])
    assert rows.stack("resid_post").data_ptr() == acts["resid_post", 0][1].data_ptr()
    assert torch.equal(acts.rows(torch.tensor([2, 0])).stack("resid_post"), expected[:, [2, 0]])
    assert torch.equal(model.cache(tokens, ["resid_post"], layers=[1]).stack("resid_post"), expected[1:2])
    assert torch.equal(model.cache(tokens, ["resid_post"], layers=[2, 0]).stack("resid_post"), expected[[0, 2]])
    one = acts["resid_post", 1]
    for values in (
        [expected[2], expected[1], expected[0]],
        [expected[0], expected[2], expected[1]],
        [one, one, one],
        [expected[0], expected[1], expected[2].clone()],
        [expected[0], expected[1], expected[2].double()],
        [expected[0, :, :, :8], expected[1, :, :, :8], expected[2, :, :, :8]],
    ):
        made = dataclasses.replace(acts, values={mx.Site("resid_post", at): value for at, value in enumerate(values)})
        if values[2].dtype == torch.float32:
            assert torch.equal(made.stack("resid_post"), torch.stack(values))
    grown = {mx.Site("resid_post", at): expected[at].clone().requires_grad_() for at in range(N_LAYERS)}
    assert dataclasses.replace(acts, values=grown).stack("resid_post").requires_grad


def test_layers_of_other_sizes_get_their_own_place():
    sites = [mx.Site("mlp_post", layer) for layer in range(3)]
    keeper = Keeper(sites, None, torch.float32, torch.device("cpu"), 4)
    given = [torch.randn(4, 5, width) for width in (6, 8, 6)]
    for rows in (slice(0, 3), slice(3, 4)):
        keeper.begin(rows)
        keeper.keep(sites[0], given[0][rows])
        keeper.keep(sites[1], given[1][rows])
        with pytest.raises(AllCached):
            keeper.keep(sites[2], given[2][rows])
    for site, value in zip(sites, given, strict=True):
        assert torch.equal(keeper.values[site], value)
