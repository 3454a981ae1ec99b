"""Plans: every cell runs once on every prompt, in a reproducible order, within the memory budget."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.metric import as_metric
from mechxai.engine import plan as planning
from mechxai.engine.affected_range import LATE, NEVER, affected_range, entry_layer
from mechxai.engine.contrast import patching
from mechxai.engine.execution import LEVEL_NAMES
from mechxai.engine.packing import Costs, Rows, grouped, pack_ragged, pack_windows
from mechxai.engine.plan import plan
from mechxai.engine.sizes import row_bytes
from mechxai.engine.sweep import Sweep

ZERO = mx.ZeroAblate()


def batch_of(n_prompts, width, lengths=None):
    clean = torch.arange(n_prompts * width).reshape(n_prompts, width) % 100 + 10
    mask = None if lengths is None else torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    ones = torch.ones(n_prompts, dtype=torch.long)
    return mx.ContrastBatch.from_tokens(clean, clean + 1, ones * 3, ones * 4, mask=mask)


def sweep_of(batch, sites, metric="logit_diff"):
    return Sweep(batch, "clean", [(mx.Intervention(site, ZERO),) for site in sites], as_metric(metric))


SITES = st.lists(
    st.builds(mx.Site, st.sampled_from(["z", "resid_pre", "mlp_out"]), st.integers(0, 2)) | st.just(mx.Site("embed")),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(
    n_prompts=st.integers(1, 13),
    width=st.integers(1, 20),
    sites=SITES,
    tokens=st.none() | st.integers(1, 2000),
    budget=st.none() | st.integers(1, 10**8),
    engine=st.sampled_from(["auto", *LEVEL_NAMES]),
)
def test_every_cell_meets_every_prompt_once(model_of, n_prompts, width, sites, tokens, budget, engine):
    model, sweep = model_of("gpt2"), sweep_of(batch_of(n_prompts, width), sites)
    execution = mx.Execution(engine, budget, tokens)
    made = plan(model, sweep, execution)
    waves = [(chunk, wave) for chunk, parts in zip(made.chunks, made.waves, strict=True) for wave in parts]
    assert len(waves) == made.n_waves
    assert sum(len(wave) for _, wave in waves) == made.n_rows
    met = Counter(pair for _, wave in waves for pair in zip(wave.cells, wave.prompts, strict=True))
    assert set(met.values()) == {1}, "zeroing a whole site changes every prompt, so no cell is without effect"
    assert len(met) == len(sites) * n_prompts == made.n_cells * made.n_prompts == made.forward_passes
    assert made.noops == 0
    assert plan(model, sweep, execution).digest == made.digest
    chunks = [prompt for chunk in made.chunks for prompt in range(chunk.start, chunk.stop)]
    assert chunks == list(range(n_prompts))
    for chunk, wave in waves:
        assert set(wave.prompts) <= set(range(chunk.start, chunk.stop))
        assert 0 <= wave.start < wave.stop <= width
        if tokens is not None:
            floor = len(set(wave.prompts)) if made.level == 1 else 0
            assert (len(wave) + floor) * (wave.stop - wave.start) <= max(2 * width, tokens)
    recorded = 2 * n_prompts * width * made.n_layers if made.level >= 2 else 0
    assert made.work == pytest.approx(recorded + sum(wave.work for _, wave in waves))
    assert made.flops > made.work


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("engine", LEVEL_NAMES)
def test_the_memory_budget_is_kept(model_of, kind, engine):
    model, batch = model_of(kind), batch_of(6, 12)
    sweep = sweep_of(batch, [mx.Site("z", layer, head=head) for layer in range(3) for head in range(4)])
    row = row_bytes(model, sweep, 12)
    for rows in (8, 13, 20, 50):
        made = plan(model, sweep, mx.Execution(engine, budget_bytes=rows * row))
        assert made.peak_bytes <= rows * row
    few, many = (plan(model, sweep, mx.Execution(engine, budget_bytes=rows * row)) for rows in (8, 80))
    assert few.n_waves > many.n_waves


def test_a_row_costs_more_where_more_is_kept(model_of):
    model, batch = model_of("gpt2"), batch_of(2, 12)
    z = [mx.Site("z", 0)]
    at_one = row_bytes(model, sweep_of(batch, z), 12)
    everywhere = row_bytes(model, sweep_of(batch, z, lambda logits, rows: logits[:, 0, 0]), 12)
    assert everywhere >= max(at_one, 12 * model.architecture.d_vocab * 4)
    assert row_bytes(model, sweep_of(batch, [mx.Site("result", 0)]), 12) > at_one
    assert row_bytes(model, sweep_of(batch, z), 24) > at_one


def test_free_memory_decides_without_a_budget(model_of, monkeypatch):
    model, batch = model_of("gpt2"), batch_of(4, 12)
    sweep = sweep_of(batch, [mx.Site("z", 1)] * 30)
    row = row_bytes(model, sweep, 12)
    monkeypatch.setattr(planning, "available_bytes", lambda device: 10 * row)
    assert plan(model, sweep, mx.Execution()).peak_bytes <= 6 * row


# Levels ---------------------------------------------------------------------------------------------------------------


def test_levels(model_of):
    z, norm = [mx.Site("z", 0)], [mx.Site("ln1_scale", 0)]
    even, padded = batch_of(2, 6), batch_of(2, 6, lengths=[6, 4])
    for kind in ("gpt2", "llama", "neox"):
        for batch in (even, padded):
            assert plan(model_of(kind), sweep_of(batch, z), mx.Execution()).level == 4
            assert plan(model_of(kind), sweep_of(batch, norm), mx.Execution()).level == 3, "plain blocks name no scale"
    bert = model_of("bert")
    assert plan(bert, sweep_of(even, z), mx.Execution()).level == 1
    assert plan(bert, sweep_of(padded, z), mx.Execution()).level == 0
    for level, name in enumerate(LEVEL_NAMES):
        assert plan(model_of("gpt2"), sweep_of(even, z), mx.Execution(name)).level == level


@pytest.mark.parametrize(("kind", "site", "engine"), [("bert", "z", "suffix"), ("gpt2", "ln1_scale", "fused")])
def test_a_level_that_does_not_hold_is_refused(model_of, kind, site, engine):
    with pytest.raises(ConfigError, match=f"engine='{engine}' does not fit {kind}.*is the highest"):
        plan(model_of(kind), sweep_of(batch_of(2, 6), [mx.Site(site, 0)]), mx.Execution(engine))


def test_weights_that_are_not_plain_get_the_level_that_reads_none(model_of, monkeypatch):
    model = model_of("gpt2")
    monkeypatch.setattr(type(model.backend), "plain_weights", lambda self: False)
    assert plan(model, sweep_of(batch_of(2, 6), [mx.Site("z", 0)]), mx.Execution()).level == 2


def test_functions_of_the_users_own_are_obeyed(model_of, pairs):
    """A hook that stays on the model (a steering vector, say) belongs to the model that is asked."""
    model = model_of("gpt2")
    batch, method = pairs(model), mx.ActivationPatching("resid_pre")
    plain = method(model, batch).data["per_example"].values
    point = model.backend.hooks["blocks.1.hook_resid_post"]
    point.add_hook(lambda activation, hook: activation + 1.5 * torch.sin(torch.arange(64.0)))
    try:
        steered = method(model, batch)
        oracle = method(model, batch, execution=mx.Execution("hooked"))
    finally:
        point.remove_hooks()
    assert int(steered.data["level"]) == 0
    np.testing.assert_array_equal(steered.data["per_example"].values, oracle.data["per_example"].values)
    assert np.abs(steered.data["per_example"].values - plain).max() > 1e-3
    np.testing.assert_array_equal(method(model, batch).data["per_example"].values, plain)


def test_a_forced_wave_on_a_padded_bidirectional_batch_is_still_right(model_of, pairs):
    model = model_of("bert")
    batch = pairs(model, n=3, lengths=[9, 6, 7])
    forced, oracle = (
        mx.ActivationPatching("mlp_out")(model, batch, execution=mx.Execution(engine)) for engine in ("wave", "hooked")
    )
    assert forced.data["per_example"].values == pytest.approx(oracle.data["per_example"].values, abs=1e-4)


def test_the_engine_that_was_asked_ran(model_of, pairs):
    model = model_of("gpt2")
    for engine, level in (*((name, level) for level, name in enumerate(LEVEL_NAMES)), ("auto", 4)):
        result = mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model), execution=mx.Execution(engine))
        assert int(result.data["level"]) == level


def test_what_is_saved_is_counted(model_of):
    model, batch = model_of("gpt2"), batch_of(2, 6)
    sweep = sweep_of(batch, [mx.Site("resid_pre", layer) for layer in range(3)])
    wave, hooked = (plan(model, sweep, mx.Execution(engine)) for engine in ("wave", "hooked"))
    # two prompts: base rows through 3 layers, and cells through 3, 2 and 1; six positions each
    assert wave.work == 6 * 2 * (3 + 3 + 2 + 1)
    assert hooked.work == 6 * 2 * 3 * 3
    assert "3 cells x 2 prompts, 0 of them without effect, in 1 waves at level 1 (wave)" in str(wave)
    late = sweep_of(batch, [mx.Site("resid_pre", layer, pos=4) for layer in range(3)])
    # both runs whole, and of the cells the last two positions through 3, 2 and 1 layers
    assert plan(model, late, mx.Execution("suffix")).work == 2 * 2 * 6 * 3 + 2 * 2 * (3 + 2 + 1)


def starts(affected):
    """First position that changes, ``[cell, prompt]``."""
    return affected.starts[affected.kind]


def stops(affected):
    return affected.stops[affected.kind]


def changed(affected):
    return starts(affected) < NEVER


# Reach ----------------------------------------------------------------------------------------------------------------


def test_entry_layers():
    assert entry_layer(()) == -1
    assert entry_layer((mx.Intervention(mx.Site("embed"), ZERO),)) == -1
    assert entry_layer((mx.Intervention(mx.Site("z", 2), ZERO), mx.Intervention(mx.Site("z", 1), ZERO))) == 1
    assert entry_layer((mx.Intervention(mx.Site("ln_final_normalized"), ZERO),)) == LATE


def test_a_patch_changes_nothing_before_the_first_difference_or_out_of_reach(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, n=2, width=9, first=4, lengths=[9, 6])
    sites = [mx.Site(name, layer, pos=pos) for name in ("resid_pre", "z", "k") for layer in (1, 2) for pos in range(9)]
    found = affected_range(patching(model, batch, as_metric("logit_diff"), sites=sites, direction="denoise"), 3)
    changes = dict(zip(((s.name, s.layer, s.pos) for s in sites), changed(found).tolist(), strict=True))
    for name in ("resid_pre", "z", "k"):
        assert [changes[name, 1, pos] for pos in range(9)] == [[4 <= pos < 9, 4 <= pos < 6] for pos in range(9)]
    # in the last layer what is written at a position stays there; keys and block inputs still reach the answer
    assert [changes["z", 2, pos] for pos in range(9)] == [[pos == 8, pos == 5] for pos in range(9)]
    assert [changes["k", 2, pos] for pos in range(9)] == [[4 <= pos < 9, 4 <= pos < 6] for pos in range(9)]
    assert stops(found)[:, 0].tolist() == [9] * len(sites)
    assert stops(found)[:, 1].tolist() == [6] * len(sites)


def test_other_edits_change_everything_they_touch(model_of, pairs):
    batch = pairs(model_of("gpt2"), first=4)
    found = affected_range(sweep_of(batch, [mx.Site("resid_pre", 0, pos=pos) for pos in range(9)]), 3)
    assert changed(found).all()
    assert starts(found)[:, 0].tolist() == list(range(9))


def test_a_run_patched_with_itself_is_without_effect(model_of, pairs):
    model = model_of("gpt2")
    batch = pairs(model, same=True)
    outcome = mx.ActivationPatching("z", ("layer", "head"))(model, batch)
    assert outcome.info.cost["cells_without_effect"] == outcome.info.cost["cells"]
    assert outcome.info.cost["waves"] == 0


def test_an_edit_that_couples_positions_gets_whole_rows(model_of, pairs):
    from mechxai.core.edit import AddNoise, Edit

    class Reversed(Edit):
        def __call__(self, activation, site):
            return activation.flip(1)

    batch = pairs(model_of("gpt2"), first=4)
    for edit, whole in ((Reversed(), True), (AddNoise(1.0), True), (ZERO, False), (mx.Steer(torch.ones(64)), False)):
        cells = [
            (mx.Intervention(mx.Site("resid_pre", 1), edit), mx.Intervention(mx.Site("resid_pre", 1, pos=5), ZERO))
        ]
        found = affected_range(Sweep(batch, "clean", cells, as_metric("logit_diff")), 3)
        assert (starts(found)[0, 0], stops(found)[0, 0]) == (0, 9)
        late = affected_range(Sweep(batch, "clean", [cells[0][1:]], as_metric("logit_diff")), 3)
        assert starts(late)[0, 0] == 5, whole


# Packing --------------------------------------------------------------------------------------------------------------

ROWS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 5), st.integers(0, 9), st.integers(0, 4), st.integers(0, 3)),
    min_size=1,
    max_size=60,
)


def rows_of(drawn):
    cell, prompt, start, more, layers = (np.array(part) for part in zip(*drawn, strict=True))
    return Rows(cell, prompt, start, start + 1 + more, layers)


def packed(drawn, costs, pack, *more):
    """The packing of some rows, the window of each wave, and its rows."""
    rows = rows_of(drawn)
    groups = grouped(rows.start, rows.stop, rows=np.ones(len(rows)), layers=rows.layers)
    packing = pack(groups, costs, *more)
    ordered = packing.sort(rows)
    waves = [(ordered.take(chosen), run) for chosen, run in packing.cuts()]
    assert len(waves) == len(packing)
    assert packing.n_rows == len(rows)
    return packing, [packing.windows[run] for _, run in waves if len(packing.windows)], [w for w, _ in waves]


@settings(deadline=None, max_examples=100)
@given(drawn=ROWS, wave=st.floats(0, 100), rows=st.integers(1, 40), positions=st.integers(1, 100))
def test_packing_keeps_every_row_and_its_limits(drawn, wave, rows, positions):
    every, costs = rows_of(drawn), Costs(wave, rows, positions)
    packing, windows, wide = packed(drawn, costs, pack_windows, 3)
    ragged, _, tight = packed(drawn, costs, pack_ragged)
    for waves in (wide, tight):
        kept = sorted(row for w in waves for row in zip(w.cell, w.prompt, w.start, w.stop, w.layers, strict=True))
        assert kept == sorted(zip(every.cell, every.prompt, every.start, every.stop, every.layers, strict=True))
        assert all(1 <= len(w) <= rows for w in waves)
    sizes = [len(w) * (stop - start) for w, (start, stop) in zip(wide, windows, strict=True)]
    for w, size, (start, stop) in zip(wide, sizes, windows, strict=True):
        assert start <= w.start.min() < w.stop.max() <= stop
        assert size <= max(positions, stop - start)
    assert packing.largest == max(sizes)
    layers = [w.layers.sum() for w in wide]
    assert packing.work == sum(n * (stop - start) for n, (start, stop) in zip(layers, windows, strict=True))
    for w in tight:
        assert len(w) == 1 or (w.stop - w.start).sum() <= positions
    assert ragged.largest == max((w.stop - w.start).sum() for w in tight)
    assert ragged.work == sum((w.layers * (w.stop - w.start)).sum() for w in tight)
    for w, following in itertools.pairwise(tight):  # a wave is full before the next begins
        assert len(w) == rows or (w.stop - w.start).sum() + (following.stop - following.start)[0] > positions


def test_waves_are_cut_where_it_pays():
    many = [(0, 0, 0, 9, 3)] * 10 + [(1, 0, 9, 0, 3)] * 10
    together, apart = (len(packed(many, Costs(cost, 1000, 10**6), pack_windows, 3)[2]) for cost in (1000.0, 1.0))
    # ten rows of one position would run ten in the wave of the others: 270 positions times layers more
    assert (together, apart) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"engine": "waves"}, "engine='waves' is not allowed.*Did you mean 'wave'"),
        ({"engine": "fast"}, "Allowed: auto, fused, hooked, packed, suffix, wave"),
        ({"budget_bytes": 0}, "budget_bytes is 0: it must be at least 1"),
        ({"tokens_per_wave": -1}, "tokens_per_wave is -1"),
    ],
)
def test_refused(arguments, reason):
    with pytest.raises(ConfigError, match=reason):
        mx.Execution(**arguments)
