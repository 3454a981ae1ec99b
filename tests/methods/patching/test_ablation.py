"""Ablation equals runs with hooks set by hand."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ConfigError, ShapeError, SiteError
from mechxai.core.metric import as_metric
from tests.conftest import FOLDED

LENGTHS = [9, 6, 7]


def values(result):
    return result.data["per_example"].values


def scored(model, batch, interventions=(), metric="logit_diff"):
    logits = model.logits(batch.clean, layout=batch.layout, interventions=interventions)
    return as_metric(metric)(logits, batch).numpy()


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_zero_is_zero(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=3, lengths=LENGTHS)
    result = mx.Ablation("z", ("layer", "head"), edit="zero")(model, batch)
    clean = scored(model, batch)
    np.testing.assert_allclose(result.data["baseline_clean"].values, clean, atol=1e-5)
    for layer, head in np.ndindex(3, 4):
        by_hand = scored(model, batch, [mx.Intervention(mx.Site("z", layer, head=head), mx.ZeroAblate())])
        np.testing.assert_allclose(values(result)[:, layer, head], by_hand, atol=2e-5)
    corrupted = result.data["baseline_corrupted"].values
    lost = (clean[:, None, None] - values(result)).mean(0) / (clean - corrupted).mean()
    np.testing.assert_allclose(result.data["recovered"].values, lost, atol=1e-4)
    assert "removes" in result.data["recovered"].attrs["long_name"]


def test_zero_at_positions_and_neurons(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2)
    by_pos = mx.Ablation("mlp_out", ("layer", "pos"), edit="zero", pos=(-1, 2))(model, batch)
    for layer in range(3):
        for column, pos in enumerate((-1, 2)):
            by_hand = scored(model, batch, [mx.Intervention(mx.Site("mlp_out", layer, pos=pos), mx.ZeroAblate())])
            np.testing.assert_allclose(values(by_pos)[:, layer, column], by_hand, atol=2e-5)
    neurons = mx.Ablation("mlp_post", ("neuron",), edit="zero", layers=(1,), neurons=(0, 7))(model, batch)
    assert neurons.data["value"].dims == ("neuron",)
    by_hand = scored(model, batch, [mx.Intervention(mx.Site("mlp_post", 1, neuron=7), mx.ZeroAblate())])
    np.testing.assert_allclose(values(neurons)[:, 1], by_hand, atol=2e-5)


class Fixed:
    """A source that holds one value."""

    def __init__(self, value):
        self.value = value

    def __getitem__(self, site):
        return self.value

    def rows(self, chosen):
        return self


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("reference", ["clean", "corrupted"])
def test_the_mean_leaves_padding_out(model_of, pairs, kind, reference):
    model = model_of(kind)
    batch = pairs(model, n=3, lengths=LENGTHS)
    result = mx.Ablation("attn_out", ("layer",), edit="mean", reference=reference)(model, batch)
    for layer in range(3):
        rows = []
        for i, length in enumerate(LENGTHS):
            alone = batch.tokens(reference)[i : i + 1, :length]
            rows.append(model.cache(alone, ["attn_out"], layers=[layer])["attn_out", layer][0])
        mean = torch.cat(rows).mean(0)
        by_hand = scored(
            model, batch, [mx.Intervention(mx.Site("attn_out", layer), mx.Patch(Fixed(mean.expand(3, 9, -1))))]
        )
        np.testing.assert_allclose(values(result)[:, layer], by_hand, atol=2e-5)


def test_the_mean_of_a_head_and_of_a_position(model_of, pairs):
    model = model_of("llama")
    batch = pairs(model, n=3)
    z = model.cache(batch.clean, ["z"], layers=[1])["z", 1]  # [batch, pos, head, d_head]
    over_all = mx.Ablation("z", ("layer", "head"), edit="mean", layers=(1,))(model, batch)
    per_pos = mx.Ablation("z", ("layer", "head"), edit="mean", layers=(1,), per_position=True)(model, batch)
    at_pos = mx.Ablation("z", ("pos", "head"), edit="mean", layers=(1,), per_position=True, pos=(4, -1))(model, batch)
    for head in range(4):
        site = mx.Site("z", 1, head=head)
        mean = z[:, :, head].mean((0, 1)).expand(3, 9, -1)
        np.testing.assert_allclose(
            values(over_all)[:, 0, head],
            scored(model, batch, [mx.Intervention(site, mx.Patch(Fixed(mean)))]),
            atol=2e-5,
        )
        mean = z[:, :, head].mean(0).expand(3, 9, -1)
        np.testing.assert_allclose(
            values(per_pos)[:, 0, head], scored(model, batch, [mx.Intervention(site, mx.Patch(Fixed(mean)))]), atol=2e-5
        )
        for row, pos in enumerate((4, 8)):
            mean = z[:, pos, head].mean(0).expand(3, -1)
            one = mx.Intervention(mx.Site("z", 1, head=head, pos=pos), mx.Patch(Fixed(mean)))
            np.testing.assert_allclose(values(at_pos)[:, row, head], scored(model, batch, [one]), atol=2e-5)
    assert np.abs(values(over_all) - values(per_pos)).max() > 1e-4


def test_patterns_always_have_a_mean_per_position(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=3, lengths=LENGTHS)
    result = mx.Ablation("pattern", ("layer", "head"), edit="mean", layers=(2,))(model, batch)
    pattern = model.cache(batch.clean, ["pattern"], layers=[2])["pattern", 2]
    real = batch.mask.float()[:, None, :, None]
    mean = (pattern * real).sum(0) / real.sum(0).clamp(min=1)
    by_hand = scored(
        model, batch, [mx.Intervention(mx.Site("pattern", 2, head=1), mx.Patch(Fixed(mean[1].expand(3, 9, 9))))]
    )
    np.testing.assert_allclose(values(result)[:, 0, 1], by_hand, atol=2e-5)


@pytest.mark.parametrize("seed", range(5))
def test_resampling_never_uses_the_prompts_own(model_of, pairs, seed):
    model = model_of("gpt2")
    batch = pairs(model, n=4)
    result = mx.Ablation("z", ("layer",), edit="resample", seed=seed)(model, batch)
    z = model.cache(batch.clean, ["z"])
    chosen = []
    for i in range(4):
        row = batch.rows(slice(i, i + 1))
        patches = [
            [mx.Intervention(mx.Site("z", layer), mx.Patch(z.rows(slice(j, j + 1)))) for layer in range(3)]
            for j in range(4)
        ]
        options = np.array([[scored(model, row, [patch])[0] for patch in of_prompt] for of_prompt in patches])
        error = np.abs(options - values(result)[i]).max(1)
        assert error.min() < 2e-5, "the value is that of some other prompt, the same in every layer"
        chosen.append(int(error.argmin()))
    assert all(i != j for i, j in enumerate(chosen))
    assert sorted(chosen) == [0, 1, 2, 3], "each prompt is used once"


def test_resampling_takes_from_the_run_asked(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2)
    result = mx.Ablation("resid_pre", ("layer",), edit="resample", reference="corrupted", layers=(0,))(model, batch)
    swapped = mx.ContrastBatch.from_tokens(batch.corrupted.flip(0), batch.corrupted.flip(0), batch.answers, batch.wrong)
    np.testing.assert_allclose(values(result)[:, 0], scored(model, swapped), atol=2e-5)


def test_noise_has_the_size_that_was_asked(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=3, lengths=LENGTHS)
    embed = model.cache(batch.clean, ["embed"])["embed"][batch.mask]
    std = float(embed.std(correction=0))
    result = mx.Ablation("embed", ("pos",), edit="noise", noise=0.5, seed=3, pos=(2,))(model, batch)
    from mechxai.core.edit import AddNoise

    by_hand = scored(model, batch, [mx.Intervention(mx.Site("embed", pos=2), AddNoise(0.5 * std, 3))])
    np.testing.assert_allclose(values(result)[:, 0], by_hand, atol=1e-4)
    none = mx.Ablation("z", ("layer", "head"), edit="noise", noise=0.0)(model, batch)
    np.testing.assert_allclose(values(none), np.broadcast_to(scored(model, batch)[:, None, None], (3, 3, 4)), atol=2e-5)
    other = mx.Ablation("embed", ("pos",), edit="noise", noise=0.5, seed=4, pos=(2,))(model, batch)
    assert np.abs(values(other) - values(result)).max() > 1e-4


@pytest.mark.parametrize("edit", ["zero", "mean", "resample", "noise"])
def test_levels_agree_and_a_seed_decides(model_of, pairs, edit):
    model = model_of("neox")
    batch = pairs(model, n=3)
    method = mx.Ablation("z", ("layer", "head"), edit=edit)
    wave, hooked, small = (
        values(method(model, batch, execution=execution))
        for execution in (mx.Execution("wave"), mx.Execution("hooked"), mx.Execution("wave", tokens_per_wave=40))
    )
    np.testing.assert_allclose(wave, hooked, atol=2e-5)
    np.testing.assert_allclose(small, hooked, atol=2e-5, err_msg="prompts cut into other waves")


def test_what_a_result_says(model_of, pairs):
    model = model_of("gpt2")
    result = mx.Ablation("z", ("layer", "head"), edit="mean", seed=5)(model, pairs(model))
    assert result.data["value"].dims == ("layer", "head")
    np.testing.assert_allclose(result.data["value"], values(result).mean(0))
    assert result.info.seed == 5
    assert result.info.method["edit"] == "mean"
    assert result.info.method["name"] == "ablation"
    assert (result.data["value_low"] <= result.data["value"]).all()
    assert (result.data["value"] <= result.data["value_high"]).all()
    for array in result.data.data_vars.values():
        assert array.attrs["units"]
        assert array.attrs["long_name"]


def test_refused(model_of, pairs, monkeypatch):
    model = model_of("gpt2")
    batch, padded = pairs(model), pairs(model, n=3, lengths=LENGTHS)
    with pytest.raises(ConfigError, match=r"edit='means' is not allowed. Did you mean 'mean'"):
        mx.Ablation(edit="means")
    with pytest.raises(ConfigError, match=r"reference='corrupt' is not allowed. Did you mean 'corrupted'"):
        mx.Ablation(reference="corrupt")
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("a forward pass was made"))
    with pytest.raises(ConfigError, match=r"other prompts, but the batch has one prompt"):
        mx.Ablation(edit="resample")(model, pairs(model, n=1))
    with pytest.raises(ShapeError, match=r"same position of other prompts, but the prompts differ in length"):
        mx.Ablation(edit="resample")(model, padded)
    with pytest.raises(ShapeError, match="per_position=false"):
        mx.Ablation(edit="mean", per_position=True)(model, padded)
    with pytest.raises(SiteError, match="Layer 7"):
        mx.Ablation(layers=(7,))(model, batch)
