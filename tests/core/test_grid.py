"""Grids: which cells there are, in which order, and what is refused."""

import pytest
import torch

import mechxai as mx
from mechxai.core.architecture import Architecture
from mechxai.core.errors import ConfigError, SiteError

GQA = Architecture("toy", n_layers=3, n_heads=4, n_kv_heads=2, d_model=8, d_head=2, d_mlp=5, d_vocab=50, n_ctx=16)


@pytest.fixture
def batch():
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    return mx.ContrastBatch.from_tokens(
        tokens, tokens + 1, torch.tensor([1, 2]), torch.tensor([3, 4]), roles={"S2": torch.tensor([1, 2])}
    )


def cells(batch, *args, **settings):
    swept, sites = mx.Grid(*args, **settings).sites(GQA, batch)
    return {axis: list(values) for axis, values in swept.items()}, [str(site) for site in sites]


def test_the_order_of_over_is_the_order_of_cells(batch):
    swept, found = cells(batch, "resid_pre", ("layer", "pos"))
    assert swept == {"layer": [0, 1, 2], "pos": [0, 1, 2, 3]}
    assert found == [f"blocks.{layer}.resid_pre[pos={pos}]" for layer in range(3) for pos in range(4)]
    swept, found = cells(batch, "resid_pre", ("pos", "layer"))
    assert list(swept) == ["pos", "layer"]
    assert found == [f"blocks.{layer}.resid_pre[pos={pos}]" for pos in range(4) for layer in range(3)]


def test_every_axis(batch):
    _, found = cells(batch, "z", ("head", "layer"), layers=(2, 0), heads=(-1, 0))
    assert found == [f"blocks.{layer}.z[head={head}]" for head in (3, 0) for layer in (2, 0)]
    _, found = cells(batch, "post", ("neuron",), layers=(1,))
    assert found == [f"blocks.1.mlp_post[neuron={neuron}]" for neuron in range(5)]
    _, found = cells(batch, "z", ("layer", "pos", "head"))
    assert len(found) == 3 * 4 * 4
    assert found[1] == "blocks.0.z[head=1,pos=0]"
    _, found = cells(batch, "resid_post", ("layer",))
    assert found == [f"blocks.{layer}.resid_post" for layer in range(3)]
    _, found = cells(batch, "embed", ("pos",))
    assert found == [f"embed[pos={pos}]" for pos in range(4)]


@pytest.mark.parametrize(("site", "count"), [("k", 2), ("v", 2), ("q", 4), ("z", 4), ("pattern", 4)])
def test_keys_and_values_have_key_value_heads(batch, site, count):
    swept, found = cells(batch, site, ("layer", "head"))
    assert swept["head"] == list(range(count))
    assert len(found) == 3 * count
    with pytest.raises(
        SiteError, match=f"{site}: head {count} was asked. Got: the model has {count}. Allowed: 0 to {count - 1}"
    ):
        cells(batch, site, ("layer", "head"), heads=(count,))


def test_one_value_off_the_axes_fixes_the_place(batch):
    swept, found = cells(batch, "z", ("layer",), heads=(1,), pos=("S2",))
    assert list(swept) == ["layer"]
    assert found == [f"blocks.{layer}.z[head=1,pos=S2]" for layer in range(3)]
    _, found = cells(batch, "resid_pre", ("pos",), layers=(-1,))
    assert found == [f"blocks.2.resid_pre[pos={pos}]" for pos in range(4)]


def test_positions_and_roles(batch):
    swept, found = cells(batch, "resid_pre", ("layer", "pos"), layers=(0,), pos=("S2", -1, 0, "END"))
    assert swept["pos"] == ["S2", -1, 0, "END"]
    assert found[0] == "blocks.0.resid_pre[pos=S2]"
    assert found[1] == "blocks.0.resid_pre[pos=-1]"


@pytest.mark.parametrize(
    ("args", "settings", "error", "reason"),
    [
        (("resid_pri", ("layer",)), {}, SiteError, "did you mean 'resid_pre'"),
        (("resid_pre", ("layer", "head")), {}, ConfigError, "over 'head' was asked. Got: it has no such axis"),
        (("z", ("layer", "posn")), {}, ConfigError, "did you mean 'pos'"),
        (("embed", ("layer",)), {}, ConfigError, "over 'layer'"),
        (("z", ("layer", "layer")), {}, ConfigError, "named twice"),
        (("z", ("layer", "head")), {"layers": (3,)}, SiteError, "z: layer 3 was asked.*the model has 3.*0 to 2"),
        (("z", ("layer", "head")), {"layers": (-4,)}, SiteError, "layer -4"),
        (("mlp_post", ("layer", "neuron")), {"neurons": (5,)}, SiteError, "neuron 5"),
        (("resid_pre", ("layer", "pos")), {"pos": (4,)}, SiteError, "Position 4 was asked.*up to 4 tokens"),
        (("resid_pre", ("layer", "pos")), {"pos": (-5,)}, SiteError, "Position -5"),
        (("resid_pre", ("layer", "pos")), {"pos": ("S3",)}, SiteError, "Role 'S3'.*did you mean 'S2'"),
        (
            ("resid_pre", ("layer",)),
            {"pos": (0, 1)},
            ConfigError,
            r"pos=\(0, 1\) was asked but 'pos' is not among over.*add 'pos'",
        ),
        (("z", ("layer",)), {"heads": (0, 1)}, ConfigError, "head=.*not among over"),
        (("resid_pre", ("pos",)), {}, ConfigError, "Which layer of resid_pre"),
        (("resid_pre", ("pos",)), {"layers": (0, 1)}, ConfigError, "Which layer of resid_pre"),
        (("resid_pre", ("layer",)), {"heads": (0,)}, SiteError, "head 0 was asked.*Allowed: none"),
    ],
)
def test_refused(batch, args, settings, error, reason):
    with pytest.raises(error, match=reason):
        cells(batch, *args, **settings)
