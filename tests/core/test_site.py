"""Sites: parsing and printing, TransformerLens' names, the table, and the index of every site."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechxai.core.activations import Activations
from mechxai.core.batch import Layout
from mechxai.core.errors import SiteError
from mechxai.core.site import Site
from mechxai.core.site_table import SITES

ROLES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
N_ROWS, N_POS, N_HEADS, D_HEAD, D_MLP = 3, 5, 2, 4, 6


@st.composite
def sites(draw):
    row = draw(st.sampled_from(list(SITES.values())))
    layer = draw(st.integers(0, 99)) if row.has_layer else None
    head = draw(st.none() | st.integers(0, 63)) if row.head_axis else None
    neuron = draw(st.none() | st.integers(0, 9999)) if "d_mlp" in row.axes else None
    return Site(row.name, layer, head, draw(st.none() | st.integers(-99, 99) | ROLES), neuron)


@given(sites())
def test_a_site_reads_back_as_it_was_written(site):
    assert Site.parse(str(site)) == site
    assert Site.parse(f"  {site} ") == site


@given(sites())
def test_the_hook_name_of_a_site_parses_to_the_whole_site(site):
    assert Site.parse(site.hook) == site.whole
    assert hash(Site.parse(site.hook)) == hash(site.whole)


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("blocks.9.attn.hook_z", Site("z", 9)),
        ("hook_embed", Site("embed")),
        ("hook_pos_embed", Site("pos_embed")),
        ("blocks.0.hook_resid_pre", Site("resid_pre", 0)),
        ("blocks.1.mlp.hook_post", Site("mlp_post", 1)),
        ("blocks.1.mlp.hook_pre", Site("mlp_pre", 1)),
        ("blocks.11.attn.hook_pattern", Site("pattern", 11)),
        ("blocks.2.attn.hook_attn_scores", Site("attn_scores", 2)),
        ("blocks.0.ln1.hook_scale", Site("ln1_scale", 0)),
        ("ln_final.hook_normalized", Site("ln_final_normalized")),
        ("blocks.1.pre", Site("mlp_pre", 1)),
        ("blocks.1.post[neuron=3]", Site("mlp_post", 1, neuron=3)),
        ("blocks.2.attn", Site("pattern", 2)),
        ("blocks.9.z[head=6,pos=-1]", Site("z", 9, head=6, pos=-1)),
        ("blocks.9.attn.hook_z[pos=S2, head=0]", Site("z", 9, head=0, pos="S2")),
    ],
)
def test_names_that_transformer_lens_uses_parse(text, site):
    assert Site.parse(text) == site


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a site"),
        ("blocks.0", "needs a layer|Unknown site"),
        ("blocks.x.z", "Unknown site"),
        ("blocks.0.zz", "Unknown site 'zz'. Did you mean 'z'"),
        ("blocks.0.resid_pri", "Did you mean 'resid_pre'"),
        ("resid_pre", "'resid_pre' needs a layer"),
        ("blocks.0.embed", "'embed' lies outside the blocks and takes no layer: layer=0"),
        ("blocks.0.resid_pre[head=1]", "head=1 does not apply to site 'resid_pre'"),
        ("blocks.0.z[neuron=1]", "neuron=1 does not apply to site 'z'"),
        ("blocks.0.z[heads=1]", "unknown index 'heads'. Did you mean 'head'"),
        ("blocks.0.z[head=one]", "has head='one'"),
        ("blocks.0.z[head=]", "has head=''"),
        ("blocks.0.z[pos=1.5]", "has pos='1.5'"),
        ("blocks.0.z[pos=1", "is not a site"),
        ("blocks.-1.z", "is not a site"),
        ("blocks.0.z[pos=1]x", "is not a site"),
    ],
)
def test_refused_with_the_reason(text, reason):
    with pytest.raises(SiteError, match=reason):
        Site.parse(text)


def activation(name):
    size = {"pos": N_POS, "dest_pos": N_POS, "src_pos": N_POS, "head": N_HEADS, "kv_head": N_HEADS}
    size |= {"d_head": D_HEAD, "d_mlp": D_MLP, "d_model": 7, "one": 1}
    shape = [N_ROWS, *(size[axis] for axis in SITES[name].axes)]
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def test_index_of_z():
    z = activation("z")  # [row, pos, head, d_head]
    assert torch.equal(z[Site("z", 0).index(None, N_ROWS)], z)
    assert torch.equal(z[Site("z", 0, head=1).index(None, N_ROWS)], z[:, :, 1])
    at = torch.tensor([4, 0, 2])
    assert torch.equal(z[Site("z", 0, pos=0).index(at, N_ROWS)], torch.stack([z[0, 4], z[1, 0], z[2, 2]]))
    both = z[Site("z", 0, head=1, pos=0).index(at, N_ROWS)]
    assert torch.equal(both, torch.stack([z[0, 4, 1], z[1, 0, 1], z[2, 2, 1]]))


def test_index_of_pattern_takes_the_attending_position_and_keeps_rows_first():
    pattern = activation("pattern")  # [row, head, dest, src]
    at = torch.tensor([3, 1, 0])
    all_heads = pattern[Site("pattern", 0, pos=0).index(at, N_ROWS)]
    assert torch.equal(all_heads, torch.stack([pattern[0, :, 3], pattern[1, :, 1], pattern[2, :, 0]]))
    one_head = pattern[Site("pattern", 0, head=0, pos=0).index(at, N_ROWS)]
    assert torch.equal(one_head, torch.stack([pattern[0, 0, 3], pattern[1, 0, 1], pattern[2, 0, 0]]))
    assert torch.equal(pattern[Site("pattern", 0, head=1).index(None, N_ROWS)], pattern[:, 1])


def test_index_of_mlp_neurons():
    post = activation("mlp_post")  # [row, pos, d_mlp]
    at = torch.tensor([0, 4, 4])
    assert torch.equal(post[Site("mlp_post", 0, neuron=5).index(None, N_ROWS)], post[:, :, 5])
    chosen = post[Site("mlp_post", 0, neuron=5, pos=0).index(at, N_ROWS)]
    assert torch.equal(chosen, torch.stack([post[0, 0, 5], post[1, 4, 5], post[2, 4, 5]]))


@pytest.mark.parametrize("name", SITES)
def test_every_row_of_the_table_can_be_indexed_and_written(name):
    values = activation(name)
    site = Site(name, 0 if SITES[name].has_layer else None, pos=0)
    index = site.index(torch.tensor([1, 2, 3]), N_ROWS)
    assert values[index].shape[0] == N_ROWS
    assert values[index].ndim == values.ndim - 1
    before = values.clone()
    values[index] = -1.0
    assert int((values != before).sum()) == before[index].numel()


def test_cached_activations_know_which_position_is_which():
    z = activation("z")
    layout = Layout(torch.tensor([5, 3, 4]), {"S2": torch.tensor([2, 1, 0])})
    everything = Activations({Site("z", 0): z}, layout)
    assert torch.equal(everything["z", 0], z)
    assert torch.equal(everything[Site("z", 0, pos=-1)], torch.stack([z[0, 4], z[1, 2], z[2, 3]]))
    assert torch.equal(everything[Site("z", 0, head=1, pos="S2")], torch.stack([z[0, 2, 1], z[1, 1, 1], z[2, 0, 1]]))
    some = Activations({Site("z", 0): z[:, [0, 3]]}, layout, kept=(0, 3))
    assert torch.equal(some[Site("z", 0, pos=0)], z[:, 0])
    with pytest.raises(SiteError, match=r"Position 1 of blocks\.0\.z\[pos=1\] is not cached"):
        some[Site("z", 0, pos=1)]
    with pytest.raises(SiteError, match=r"blocks\.1\.z is not among the cached activations.*Allowed: blocks\.0\.z"):
        everything["z", 1]
    assert torch.equal(everything.rows(slice(1, 3))[Site("z", 0, pos="S2")], torch.stack([z[1, 1], z[2, 0]]))


def test_reading_a_position_that_no_row_has_is_refused():
    acts = Activations({Site("z", 0): activation("z")}, Layout(torch.tensor([5, 3, 4])))
    with pytest.raises(SiteError, match="20"):
        acts[Site("z", 0, pos=20)]


# The table ------------------------------------------------------------------------------------------------------------


def sites_where(condition):
    return {name for name, row in SITES.items() if condition(row)}


def test_rows_state_where_a_site_exists_and_can_be_edited():
    mlp = {"resid_mid", "mlp_out", "mlp_pre", "mlp_post", "ln2_scale", "ln2_normalized"}
    assert sites_where(lambda row: row.needs_mlp) == mlp
    assert sites_where(lambda row: row.serial_only) == {"resid_mid"}
    assert sites_where(lambda row: row.flag) == {"result"}
    assert sites_where(lambda row: not row.masked_bridge) == {"resid_mid", "result"}
    assert sites_where(lambda row: "bridge" in row.in_place_on) == {"resid_mid"}
    outside = {"embed", "pos_embed", *(name for name in SITES if name.startswith("ln"))}
    assert sites_where(lambda row: row.dense) == set(SITES) - outside
