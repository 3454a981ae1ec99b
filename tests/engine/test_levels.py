"""Each level equals TransformerLens' patching in every cell, and the levels equal each other; laws of patching."""

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import AlignmentError, NumericsError, SiteError
from tests.conftest import FOLDED, MODELS

SITES_POS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_post")
SITES_HEAD = ("q", "k", "v", "z", "pattern", "result")


def reference(model, batch, site, over, direction="denoise"):
    """TransformerLens' generic patching, prompt by prompt: [prompt, *over]."""
    import pandas as pd
    import transformer_lens.patching as patching

    patching.tqdm = lambda rows, **_: rows
    setters = {
        ("layer", "pos"): patching.layer_pos_patch_setter,
        ("layer", "head"): patching.layer_head_pattern_patch_setter
        if site == "pattern"
        else patching.layer_head_vector_patch_setter,
        ("layer", "pos", "head"): patching.layer_pos_head_vector_patch_setter,
    }
    found = []
    if site == "result":
        model.inner.set_use_attn_result(True)
    for i in range(len(batch)):
        length = int(batch.lengths[i])
        clean, corrupted = batch.clean[i : i + 1, :length], batch.corrupted[i : i + 1, :length]
        base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
        a, b, end = batch.answers[i, 0, 0], batch.wrong[i, 0, 0], int(batch.answer_pos[i])
        _, cache = model.inner.run_with_cache(source)
        axes = {
            "layer": model.architecture.n_layers,
            "pos": length,
            "head": model.architecture.size("kv_head" if site in "kv" else "head"),
        }
        index = pd.DataFrame(list(np.ndindex(*(axes[axis] for axis in over))), columns=list(over))
        with torch.no_grad():
            out = patching.generic_activation_patch(
                model.inner,
                base,
                cache,
                lambda logits, end=end, a=a, b=b: logits[0, end, a] - logits[0, end, b],
                setters[over],
                {"mlp_post": "post"}.get(site, site),
                index_df=index,
            )
        found.append(out.reshape([axes[axis] for axis in over]))
    if site == "result":
        model.inner.set_use_attn_result(False)
    return torch.stack(found).detach().numpy()


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
@pytest.mark.parametrize("direction", ["denoise", pytest.param("noise", marks=pytest.mark.slow)])  # test_exact has both
def test_equals_transformer_lens_cell_by_cell_per_prompt(model_of, pairs, kind, backend, processing, direction):
    model = model_of(kind, backend, processing)
    batch = pairs(model)
    for site in SITES_POS + SITES_HEAD:
        over = ("layer", "pos") if site in SITES_POS else ("layer", "head")
        if site == "resid_mid" and kind == "neox":
            with pytest.raises(SiteError, match="same residual stream"):
                mx.ActivationPatching(site, over)(model, batch)
            continue
        ours = mx.ActivationPatching(site, over, direction=direction)(model, batch)
        theirs = reference(model, batch, site, over, direction)
        assert int(ours.data["level"]) == 4
        np.testing.assert_allclose(ours.data["per_example"].values, theirs, atol=1e-4, err_msg=f"{site} {direction}")
        assert np.abs(theirs - theirs.mean((1, 2), keepdims=True)).max() > 1e-4, (
            f"{site}: the reference shows no effect at all"
        )


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_head_by_position_equals_transformer_lens(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=1)
    for site in ("z", "v"):
        ours = mx.ActivationPatching(site, ("layer", "pos", "head"))(model, batch)
        np.testing.assert_allclose(
            ours.data["per_example"].values, reference(model, batch, site, ("layer", "pos", "head")), atol=1e-4
        )


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_wave_equals_hooked(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model, n=3, lengths=[9, 6, 7])
    for site, over in (
        ("mlp_post", ("layer", "pos")),
        ("z", ("pos", "layer", "head")),
        ("pattern", ("layer", "head", "pos")),
    ):
        waves = [
            mx.ActivationPatching(site, over)(model, batch, execution=mx.Execution(engine=engine, tokens_per_wave=200))
            .data["per_example"]
            .values
            for engine in ("wave", "hooked")
        ]
        np.testing.assert_allclose(waves[0], waves[1], atol=2e-5)


def test_bert_is_exact_at_level_0_and_1(model_of, pairs):
    model = model_of("bert")
    batch = pairs(model)
    for site in ("resid_pre", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z"):
        over = ("layer", "head") if site in "qkvz" else ("layer", "pos")
        ours = mx.ActivationPatching(site, over)(model, batch).data["per_example"].values
        np.testing.assert_allclose(ours, reference(model, batch, site, over), atol=1e-4, err_msg=site)
    padded = pairs(model, n=3, lengths=[9, 6, 7])
    result = mx.ActivationPatching("resid_pre")(model, padded)
    assert int(result.data["level"]) == 0, "rows of a padded bidirectional batch have masks of their own"
    single = padded.rows(slice(1, 2))
    alone = mx.ContrastBatch.from_tokens(single.clean[:, :6], single.corrupted[:, :6], single.answers, single.wrong)
    np.testing.assert_allclose(
        result.data["per_example"].values[1, :, :6],
        mx.ActivationPatching("resid_pre")(model, alone).data["per_example"].values[0],
        atol=1e-4,
    )


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_laws(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    batch = pairs(model)
    everything = mx.ActivationPatching("resid_pre", ("layer",))(model, batch).data["recovered"].values
    np.testing.assert_allclose(
        everything, 1.0, atol=1e-3, err_msg="the whole residual stream of any layer is everything"
    )
    nothing = mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model, same=True)).data["per_example"].values
    base = (
        mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model, same=True)).data["baseline_corrupted"].values
    )
    np.testing.assert_allclose(
        nothing,
        np.broadcast_to(base[:, None, None], nothing.shape),
        atol=1e-5,
        err_msg="patching a run with itself changes nothing",
    )
    before = mx.ActivationPatching("resid_pre", pos=(0, 1, 2))(model, batch).data["recovered"].values
    np.testing.assert_allclose(
        before, 0.0, atol=1e-3, err_msg="before the first differing token there is nothing to patch"
    )
    noise = mx.ActivationPatching("resid_pre", ("layer",), direction="noise")(model, batch).data["recovered"].values
    np.testing.assert_allclose(noise, 1.0, atol=1e-3)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_padded_rows_equal_singles(model_of, pairs, kind, backend, processing):
    model = model_of(kind, backend, processing)
    lengths = [9, 6, 7]
    batch = pairs(model, n=3, lengths=lengths, first=3)
    together = mx.ActivationPatching("attn_out")(model, batch).data["per_example"].values
    for i, length in enumerate(lengths):
        row = batch.rows(slice(i, i + 1))
        alone = mx.ContrastBatch.from_tokens(row.clean[:, :length], row.corrupted[:, :length], row.answers, row.wrong)
        single = mx.ActivationPatching("attn_out")(model, alone).data["per_example"].values
        np.testing.assert_allclose(together[i, :, :length], single[0], atol=2e-5)
        outside = together[i, :, length:]
        np.testing.assert_allclose(outside, np.full_like(outside, float(batch_baseline(model, alone))), atol=2e-5)


def batch_baseline(model, batch):
    return mx.ActivationPatching("z", ("layer", "head"))(model, batch).data["baseline_corrupted"].values[0]


def test_left_padding_gives_what_right_padding_gives(model_of, pairs):
    model = model_of("llama")
    batch = pairs(model, n=3, lengths=[9, 6, 7], first=3)
    mask = batch.mask
    width = batch.n_pos
    left = torch.stack([row.roll(width - int(n)) for row, n in zip(batch.clean, batch.lengths, strict=True)])
    left_corrupted = torch.stack(
        [row.roll(width - int(n)) for row, n in zip(batch.corrupted, batch.lengths, strict=True)]
    )
    rolled = torch.stack([row.roll(width - int(n)) for row, n in zip(mask, batch.lengths, strict=True)])
    again = mx.ContrastBatch.from_tokens(left, left_corrupted, batch.answers, batch.wrong, mask=rolled)
    first, second = (mx.ActivationPatching("mlp_out")(model, one).data["per_example"].values for one in (batch, again))
    np.testing.assert_array_equal(first, second)


def test_roles_and_negative_positions_name_each_rows_own_place(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=3, lengths=[9, 6, 7], first=3)
    by_role = mx.ActivationPatching("resid_post", ("layer", "pos"), pos=("END", -1, -2))(model, batch)
    assert list(by_role.data["pos"].values) == ["END", "-1", "-2"]
    values = by_role.data["per_example"].values
    np.testing.assert_allclose(values[:, :, 0], values[:, :, 1], rtol=0, atol=1e-6)  # they may lie in two packs
    every = mx.ActivationPatching("resid_post")(model, batch).data["per_example"].values
    for i, length in enumerate((9, 6, 7)):
        np.testing.assert_allclose(values[i, :, 2], every[i, :, length - 2], atol=1e-5)


def test_same_packing_gives_the_same_bits(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=4)
    first, second = (
        mx.ActivationPatching("z", ("layer", "head"))(model, batch).data["per_example"].values for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_float64_is_exact_to_1e_9(model_of, pairs, kind):
    model = model_of(kind, dtype="float64")
    batch = pairs(model)
    ours = mx.ActivationPatching("z", ("layer", "head"))(model, batch).data["per_example"].values
    # Hugging Face's RMSNorm works in float32 whatever the model's dtype
    exact = 1e-6 if (kind, model.backend.name) == ("llama", "bridge") else 1e-9
    np.testing.assert_allclose(ours, reference(model, batch, "z", ("layer", "head")), atol=exact)


def test_bfloat16_states_its_noise_floor(model_of, pairs):
    model = model_of("gpt2", dtype="bfloat16")
    result = mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model))
    assert np.isfinite(result.data["per_example"].values).all()
    assert float(result.data["noise_floor"]) < 0.2


def test_no_hook_is_left_after_a_run_or_an_exception(model_of, pairs):
    model = model_of("gpt2")
    count = lambda: sum(len(point.fwd_hooks) for point in model.inner.hook_dict.values())  # noqa: E731
    before = count()

    def explode(logits, batch):
        raise RuntimeError("boom")

    mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model))
    with pytest.raises(RuntimeError, match="boom"):
        mx.ActivationPatching("result", ("layer", "head"), metric=explode)(model, pairs(model))
    assert count() == before
    assert not getattr(model.inner.cfg, "use_attn_result", False)
    assert torch.is_grad_enabled()


def test_a_custom_metric_reads_full_logits(model_of, pairs):
    model = model_of("neox")
    batch = pairs(model, n=3, lengths=[9, 6, 7])

    def mine(logits, rows):
        at = logits[torch.arange(len(rows)), rows.answer_pos]
        return at.gather(1, rows.answers[:, 0]).squeeze(1) - at.gather(1, rows.wrong[:, 0]).squeeze(1)

    ours = mx.ActivationPatching("mlp_out", metric=mine)(model, batch).data["per_example"].values
    np.testing.assert_allclose(
        ours, mx.ActivationPatching("mlp_out")(model, batch).data["per_example"].values, atol=1e-5
    )


def test_refused_before_any_forward_pass(model_of, pairs, monkeypatch):
    model = model_of("gpt2")
    batch = pairs(model)
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("a forward pass was made"))
    with pytest.raises(SiteError, match="Did you mean 'resid_pre'"):
        mx.ActivationPatching("resid_pri")
    with pytest.raises(SiteError, match=r"Layer 3 is out of range: this model has 3 layers \(0-2\)"):
        mx.ActivationPatching("resid_pre", layers=(3,))(model, batch)
    with pytest.raises(SiteError, match=r"Head|head"):
        mx.ActivationPatching("z", ("layer", "head"), heads=(7,))(model, batch)
    with pytest.raises(SiteError, match="Unknown role 'S3'"):
        mx.ActivationPatching("resid_pre", pos=("S3",))(model, batch)
    with pytest.raises(AlignmentError, match="same number of tokens"):
        mx.ContrastBatch.from_tokens(
            torch.ones(1, 5, dtype=torch.long), torch.ones(1, 4, dtype=torch.long), torch.tensor([3]), torch.tensor([4])
        )


def test_nan_is_refused_with_the_name_of_its_cell(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model)
    weights = {"q": torch.tensor(0.0)}

    def nan_where_layer_2_is_edited(logits, rows):
        score = logits[torch.arange(len(rows)), rows.answer_pos, 11]
        seen.append(score)
        return torch.where(weights["q"] > 0, score * torch.nan, score)

    seen = []
    sweep = mx.ActivationPatching("z", ("layer", "head"), metric=nan_where_layer_2_is_edited)
    sweep(model, batch)  # the self-check is done
    weights["q"] = torch.tensor(1.0)
    with pytest.raises(NumericsError, match="nan on prompt 0"):
        sweep(model, batch)


def test_an_edit_that_overflows_is_named_by_its_site(model_of, pairs):
    from mechxai.core.edit import Intervention, Steer
    from mechxai.core.metric import LogitDiff
    from mechxai.engine.run import run_sweep
    from mechxai.engine.sweep import Sweep

    model = model_of("gpt2")
    huge = Steer(torch.full((model.architecture.d_model,), torch.inf))
    cells = [
        (Intervention(mx.Site("resid_post", layer), Steer(torch.zeros(64)) if layer < 2 else huge),)
        for layer in range(3)
    ]
    with pytest.raises(NumericsError, match=r"blocks\.2\.resid_post"):
        run_sweep(model, Sweep(pairs(model), "clean", cells, LogitDiff()), mx.Execution(engine="hooked"))


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
@pytest.mark.parametrize("engine", ["suffix", "auto"])
def test_several_sites_in_one_cell(model_of, pairs, kind, backend, processing, engine):
    """Every pair of sites in every order of layers: rows that have joined are edited again further on."""
    from mechxai.core.edit import Intervention
    from mechxai.core.metric import LogitDiff
    from mechxai.engine.run import run_sweep
    from mechxai.engine.sweep import Sweep

    model = model_of(kind, backend, processing)
    batch = pairs(model, n=2)
    names = ("resid_pre", "k", "pattern", "z", "attn_out", "mlp_post", "mlp_out", "resid_post", "ln_final_normalized")

    def at(name, layer):
        return mx.Site(name, None if name.startswith("ln_final") else layer)

    vector = {
        name: mx.Steer(torch.linspace(-1, 1, 64))
        for name in names
        if mx.Site(name, 0 if "ln" not in name else None).row.axes[-1] == "d_model"
    }
    cells = [
        tuple(
            Intervention(at(name, layer), vector.get(name, mx.ZeroAblate()))
            for name, layer in ((one, 0), (other, layer))
        )
        for one in names
        for other in names
        for layer in (0, 2)
    ]
    sweep = Sweep(batch, "clean", cells, LogitDiff())
    right = run_sweep(model, sweep, mx.Execution("hooked")).values
    found = run_sweep(model, sweep, mx.Execution(engine))
    np.testing.assert_allclose(found.values, right, atol=5e-5)
    assert found.level >= 2
    fusible = Sweep(
        batch, "clean", [cell for cell in cells if all("ln" not in one.site.name for one in cell)], LogitDiff()
    )
    if engine == "auto":
        outcome = run_sweep(model, fusible, mx.Execution())
        assert outcome.level == 4
        right = run_sweep(model, fusible, mx.Execution("hooked")).values
        np.testing.assert_allclose(outcome.values, right, atol=5e-5)


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_rows_that_run_past_the_answer(model_of, pairs, kind, backend, processing):
    """Noise on the base run needs whole rows, so the answer is not the last position; it must not look ahead."""
    from dataclasses import replace

    from mechxai.core.edit import AddNoise, Intervention, ZeroAblate
    from mechxai.core.metric import LogitDiff
    from mechxai.engine.contrast import patching
    from mechxai.engine.run import run_sweep

    model = model_of(kind, backend, processing)
    batch = replace(pairs(model, n=2, lengths=[9, 6]), answer_pos=torch.tensor([5, 3]))
    sites = [mx.Site("resid_pre", layer, pos=pos) for layer in range(3) for pos in (None, 2, 5)]
    sweep = patching(model, batch, LogitDiff(), sites=sites, direction="denoise")
    # in the last layer queries are the answer's alone by then, keys are not
    cells = [*sweep.cells, *((Intervention(mx.Site("pattern", layer, head=1), ZeroAblate()),) for layer in range(3))]
    sweep = replace(sweep, cells=cells, base=(Intervention(mx.Site("embed"), AddNoise(1.0)),))
    right = run_sweep(model, sweep, mx.Execution("hooked")).values
    found = run_sweep(model, sweep, mx.Execution())
    assert found.level == 4
    np.testing.assert_allclose(found.values, right, atol=5e-5)
