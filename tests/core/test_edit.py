"""Edits against hand-computed activations; none changes its input."""

import pytest
import torch

from mechxai.core.activations import Activations
from mechxai.core.batch import Layout
from mechxai.core.edit import AddNoise, Intervention, MeanAblate, Patch, ProjectOut, ResampleAblate, Steer, ZeroAblate
from mechxai.core.errors import ConfigError, ShapeError
from mechxai.core.site import Site
from mechxai.engine.sources import MeanSource
from mechxai.model.backends.editing import edited
from mechxai.model.backends.masking import AttentionMask

Z = Site("z", 1)
ACTIVATION = torch.arange(24.0).reshape(2, 3, 2, 2)  # [batch, pos, head, d_head]
OTHER = -ACTIVATION - 1
SOURCE = Activations({Z: OTHER}, Layout(torch.tensor([3, 3])))
VECTOR = torch.tensor([3.0, 4.0])

EDITS = {
    "patch": Patch(SOURCE),
    "zero": ZeroAblate(),
    "mean": MeanAblate(MeanSource({Z: torch.ones(2, 2)}, {}, per_position=False)),
    "resample": ResampleAblate(SOURCE, (1, 0)),
    "noise": AddNoise(0.5),
    "steer": Steer(VECTOR, 2.0),
    "project": ProjectOut(VECTOR),
}


@pytest.mark.parametrize("name", EDITS)
def test_the_old_activation_is_left_alone(name):
    given = ACTIVATION.clone()
    new = EDITS[name](given, Z)
    assert torch.equal(given, ACTIVATION)
    assert new.shape == given.shape
    assert not torch.equal(new, given)
    if name != "mean":
        new.zero_()
        assert torch.equal(given, ACTIVATION), "the result shares no memory with the input"


def test_patch():
    assert torch.equal(Patch(SOURCE)(ACTIVATION, Z), OTHER)
    part = Site("z", 1, head=1, pos=2)
    assert torch.equal(Patch(SOURCE)(ACTIVATION[:, 2, 1], part), OTHER[:, 2, 1])
    assert torch.equal(Patch(SOURCE).rows(slice(1, 2))(ACTIVATION[1:], Z), OTHER[1:])
    with pytest.raises(
        ShapeError,
        match=r"Cannot patch blocks\.1\.z.*source has shape \(2, 3, 2, 2\), the activation \(1, 3, 2, 2\).*same "
        r"prompts",
    ):
        Patch(SOURCE)(ACTIVATION[:1], Z)


def test_zero_and_steer():
    assert ZeroAblate()(ACTIVATION, Z).abs().sum() == 0
    assert torch.equal(Steer(VECTOR, 2.0)(ACTIVATION, Z), ACTIVATION + torch.tensor([6.0, 8.0]))
    with pytest.raises(ShapeError, match=r"vector has shape \(3,\), but blocks\.1\.z has width 2"):
        Steer(torch.ones(3))(ACTIVATION, Z)


def test_mean():
    means = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # [head, d_head]
    edit = MeanAblate(MeanSource({Z: means}, {}, per_position=False))
    assert torch.equal(edit(ACTIVATION, Z), means.expand(2, 3, 2, 2))
    assert torch.equal(edit(ACTIVATION[:, :, 1], Site("z", 1, head=1)), means[1].expand(2, 3, 2))
    assert torch.equal(edit(ACTIVATION[:, 0], Site("z", 1, pos=0)), means.expand(2, 2, 2))
    by_pos = torch.arange(12.0).reshape(3, 2, 2)  # [pos, head, d_head]
    edit = MeanAblate(MeanSource({Z: by_pos}, {}, per_position=True))
    assert torch.equal(edit(ACTIVATION, Z), by_pos.expand(2, 3, 2, 2))
    assert torch.equal(edit(ACTIVATION[:, 2, 0], Site("z", 1, head=0, pos=2)), by_pos[2, 0].expand(2, 2))


def test_resample_takes_the_chosen_row():
    assert torch.equal(ResampleAblate(SOURCE, (1, 0))(ACTIVATION, Z), OTHER[[1, 0]])
    assert torch.equal(ResampleAblate(SOURCE, (1, 0)).rows(slice(0, 1))(ACTIVATION[:1], Z), OTHER[1:])


def test_project_out_leaves_no_component_and_keeps_the_rest():
    left = ProjectOut(VECTOR)(ACTIVATION, Z)
    assert (left @ (VECTOR / 5)).abs().max() < 1e-5
    across = torch.tensor([4.0, -3.0]) / 5
    torch.testing.assert_close(left @ across, ACTIVATION @ across)
    # by hand: (0, 1) . (3, 4)/5 = 0.8; (0, 1) - 0.8 (0.6, 0.8) = (-0.48, 0.36)
    torch.testing.assert_close(left[0, 0, 0], torch.tensor([-0.48, 0.36]))
    with pytest.raises(ShapeError, match="has width 2"):
        ProjectOut(torch.ones(5))(ACTIVATION, Z)


def test_projecting_out_no_direction_is_refused():
    with pytest.raises((ConfigError, ShapeError, ArithmeticError)):
        ProjectOut(torch.zeros(2))(ACTIVATION, Z)


def test_noise_of_a_prompt_does_not_depend_on_its_batch():
    many = torch.zeros(6, 3, 2, 2)
    whole = AddNoise(1.0, seed=4)(many, Z)
    for start, stop in ((0, 2), (2, 3), (3, 6)):
        assert torch.equal(AddNoise(1.0, seed=4).rows(slice(start, stop))(many[start:stop], Z), whole[start:stop])
    twice = AddNoise(1.0, seed=4).rows(slice(2, 6)).rows(slice(1, 3))
    assert torch.equal(twice(many[3:5], Z), whole[3:5])
    assert not torch.equal(whole[0], whole[1]), "each prompt has a draw of its own"


def test_noise_size_seed_and_place():
    zeros = torch.zeros(4, 500, 50)
    drawn = AddNoise(2.0, seed=1)(zeros, Site("resid_pre", 0))
    assert abs(float(drawn.std()) - 2.0) < 0.02
    assert abs(float(drawn.mean())) < 0.03
    assert torch.equal(AddNoise(4.0, seed=1)(zeros, Site("resid_pre", 0)), 2 * drawn)
    assert not torch.equal(AddNoise(2.0, seed=2)(zeros, Site("resid_pre", 0)), drawn)
    assert not torch.equal(AddNoise(2.0, seed=1)(zeros, Site("resid_pre", 1)), drawn)
    assert torch.equal(AddNoise(0.0)(drawn, Z), drawn)
    for std in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="standard deviation"):
            AddNoise(std)


def test_heads_have_different_noise():
    zeros = torch.zeros(1, 8)
    places = [Site("z", layer, head=head) for layer in range(6) for head in range(6)]
    draws = {tuple(AddNoise(1.0)(zeros, site)[0].tolist()) for site in places}
    assert len(draws) == len(places)


def test_noise_only_at_masked_positions():
    where = torch.tensor([[True, False, False], [False, True, True]])
    noised = AddNoise(1.0, where=where)(torch.zeros(2, 3, 8), Site("embed"))
    assert torch.equal(noised.abs().sum(-1) > 0, where)
    cut = AddNoise(1.0, where=where).rows(slice(1, 2))(torch.zeros(1, 3, 8), Site("embed"))
    assert torch.equal(cut[0], noised[1])


def test_edits_apply_in_order_at_their_sites():
    layout = Layout(torch.tensor([3, 2]), {"S": torch.tensor([0, 1])})
    one = Intervention(Site("z", 1, head=0, pos=-1), ZeroAblate())
    two = Intervention(Site("z", 1, pos="S"), Steer(torch.tensor([100.0, 0.0])))
    new = edited(ACTIVATION, [(slice(0, 2), one), (slice(0, 2), two)], layout, mask=AttentionMask())
    expected = ACTIVATION.clone()
    expected[0, 2, 0] = 0
    expected[1, 1, 0] = 0
    expected[0, 0, :, 0] += 100
    expected[1, 1, :, 0] += 100
    assert torch.equal(new, expected)


def test_a_prompt_without_the_position_stays_as_it_is():
    layout = Layout(torch.tensor([3, 2]))
    new = edited(
        ACTIVATION, [(slice(0, 2), Intervention(Site("z", 1, pos=2), ZeroAblate()))], layout, mask=AttentionMask()
    )
    assert new[0, 2].abs().sum() == 0
    assert torch.equal(new[1], ACTIVATION[1])
