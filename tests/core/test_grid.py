"""Grids: their cells, the order of the cells, and the settings that they refuse."""

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
        SiteError, match=rf"Head {count} is out of range: this model has {count} heads \(0-{count - 1}\)"
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
        (("resid_pri", ("layer",)), {}, SiteError, "Did you mean 'resid_pre'"),
        (("resid_pre", ("layer", "head")), {}, ConfigError, "resid_pre has no axis 'head' to sweep"),
        (("z", ("layer", "posn")), {}, ConfigError, "Did you mean 'pos'"),
        (("embed", ("layer",)), {}, ConfigError, "no axis 'layer' to sweep"),
        (("z", ("layer", "layer")), {}, ConfigError, "names an axis twice"),
        (
            ("z", ("layer", "head")),
            {"layers": (3,)},
            SiteError,
            r"Layer 3 is out of range: this model has 3 layers \(0-2\)",
        ),
        (("z", ("layer", "head")), {"layers": (-4,)}, SiteError, "Layer -4"),
        (("mlp_post", ("layer", "neuron")), {"neurons": (5,)}, SiteError, "Neuron 5"),
        (("resid_pre", ("layer", "pos")), {"pos": (4,)}, SiteError, "Position 4 is out of range.*up to 4 tokens"),
        (("resid_pre", ("layer", "pos")), {"pos": (-5,)}, SiteError, "Position -5"),
        (("resid_pre", ("layer", "pos")), {"pos": ("S3",)}, SiteError, "Unknown role 'S3'.*Did you mean 'S2'"),
        (
            ("resid_pre", ("layer",)),
            {"pos": (0, 1)},
            ConfigError,
            r"pos=\(0, 1\) has 2 values, and 'pos' is not in over.*Add 'pos'",
        ),
        (("z", ("layer",)), {"heads": (0, 1)}, ConfigError, "head=.*not in over"),
        (("resid_pre", ("pos",)), {}, ConfigError, "resid_pre needs a layer"),
        (("resid_pre", ("pos",)), {"layers": (0, 1)}, ConfigError, "resid_pre needs a layer"),
        (("resid_pre", ("layer",)), {"heads": (0,)}, SiteError, "head 0 does not apply to resid_pre.*no head axis"),
    ],
)
def test_refused(batch, args, settings, error, reason):
    with pytest.raises(error, match=reason):
        cells(batch, *args, **settings)
