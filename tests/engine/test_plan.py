"""Plans: every cell meets every prompt once, the same way each time, within the memory there is."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mechxai as mx
from mechxai.core.errors import ConfigError
from mechxai.core.metric import as_metric
from mechxai.engine import plan as planning
from mechxai.engine.plan import entry_layer, plan
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
    engine=st.sampled_from(["auto", "hooked", "wave"]),
)
def test_every_cell_meets_every_prompt_once(model_of, n_prompts, width, sites, tokens, budget, engine):
    model, sweep = model_of("gpt2"), sweep_of(batch_of(n_prompts, width), sites)
    execution = mx.Execution(engine, budget, tokens)
    made = plan(model, sweep, execution)
    met = Counter(
        (cell, prompt)
        for wave in made.waves
        for cell in wave.cells
        for prompt in range(wave.prompts.start, wave.prompts.stop)
    )
    assert set(met.values()) == {1}
    assert len(met) == len(sites) * n_prompts == made.n_cells * made.n_prompts == made.forward_passes
    assert plan(model, sweep, execution) == made
    if tokens is not None:
        for wave in made.waves:
            rows = (len(wave.cells) + made.level) * (wave.prompts.stop - wave.prompts.start)
            assert rows <= max(2, tokens // width)
    for wave in made.waves:
        late = [entry_layer(sweep.cells[cell]) for cell in wave.cells]
        assert late == sorted(late, reverse=True), "cells with late entry stand together"
    assert (
        made.row_layers
        <= made.forward_passes * made.n_layers
        + sum(w.prompts.stop - w.prompts.start for w in made.waves) * made.n_layers
    )


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("engine", ["hooked", "wave"])
def test_the_memory_budget_is_kept(model_of, kind, engine):
    model, batch = model_of(kind), batch_of(6, 12)
    sweep = sweep_of(batch, [mx.Site("z", layer, head=head) for layer in range(3) for head in range(4)])
    row = planning.row_bytes(model, sweep, 12)
    for rows in (2, 3, 7, 20, 50):
        made = plan(model, sweep, mx.Execution(engine, budget_bytes=rows * row))
        assert made.peak_bytes <= rows * row
        largest = max((len(wave.cells) + made.level) * (wave.prompts.stop - wave.prompts.start) for wave in made.waves)
        assert largest * row <= made.peak_bytes
    few, many = (plan(model, sweep, mx.Execution(engine, budget_bytes=rows * row)) for rows in (4, 40))
    assert len(few.waves) > len(many.waves)


def test_a_row_costs_more_where_more_is_kept(model_of):
    model, batch = model_of("gpt2"), batch_of(2, 12)
    z = [mx.Site("z", 0)]
    at_one = planning.row_bytes(model, sweep_of(batch, z), 12)
    everywhere = planning.row_bytes(model, sweep_of(batch, z, lambda logits, rows: logits[:, 0, 0]), 12)
    assert everywhere >= max(at_one, 12 * model.architecture.d_vocab * 4)
    assert planning.row_bytes(model, sweep_of(batch, [mx.Site("result", 0)]), 12) > at_one
    assert planning.row_bytes(model, sweep_of(batch, z), 24) > at_one


def test_free_memory_decides_without_a_budget(model_of, monkeypatch):
    model, batch = model_of("gpt2"), batch_of(4, 12)
    sweep = sweep_of(batch, [mx.Site("z", 1)] * 30)
    row = planning.row_bytes(model, sweep, 12)
    monkeypatch.setattr(planning, "available_bytes", lambda device: 10 * row)
    assert plan(model, sweep, mx.Execution()).peak_bytes <= 6 * row


def test_levels(model_of):
    z = [mx.Site("z", 0)]
    even, padded = batch_of(2, 6), batch_of(2, 6, lengths=[6, 4])
    for kind in ("gpt2", "llama", "neox"):
        for batch in (even, padded):
            assert plan(model_of(kind), sweep_of(batch, z), mx.Execution()).level == 1
    bert = model_of("bert")
    assert plan(bert, sweep_of(even, z), mx.Execution()).level == 1
    assert plan(bert, sweep_of(padded, z), mx.Execution()).level == 0
    assert plan(model_of("gpt2"), sweep_of(even, z), mx.Execution("hooked")).level == 0
    assert plan(model_of("gpt2"), sweep_of(even, z), mx.Execution("wave")).level == 1


def test_a_forced_wave_on_a_padded_bidirectional_batch_is_still_right(model_of, pairs):
    model = model_of("bert")
    batch = pairs(model, n=3, lengths=[9, 6, 7])
    forced, oracle = (
        mx.ActivationPatching("mlp_out")(model, batch, execution=mx.Execution(engine)) for engine in ("wave", "hooked")
    )
    assert forced.data["per_example"].values == pytest.approx(oracle.data["per_example"].values, abs=1e-4)


def test_the_engine_that_was_asked_ran(model_of, pairs):
    model = model_of("gpt2")
    for engine, level in (("hooked", 0), ("wave", 1), ("auto", 1)):
        result = mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model), execution=mx.Execution(engine))
        assert int(result.data["level"]) == level


def test_what_a_wave_saves_is_counted(model_of):
    model, batch = model_of("gpt2"), batch_of(2, 6)
    sweep = sweep_of(batch, [mx.Site("resid_pre", layer) for layer in range(3)])
    wave, hooked = (plan(model, sweep, mx.Execution(engine)) for engine in ("wave", "hooked"))
    # two prompts: base rows through 3 layers, and cells through 3, 2 and 1
    assert wave.row_layers == 2 * (3 + 3 + 2 + 1)
    assert hooked.row_layers == 2 * 3 * 3
    assert "3 cells x 2 prompts in 1 waves at level 1 (wave)" in str(wave)


def test_entry_layers():
    assert entry_layer(()) == -1
    assert entry_layer((mx.Intervention(mx.Site("embed"), ZERO),)) == -1
    assert entry_layer((mx.Intervention(mx.Site("z", 2), ZERO), mx.Intervention(mx.Site("z", 1), ZERO))) == 1
    assert entry_layer((mx.Intervention(mx.Site("ln_final_normalized"), ZERO),)) > 1000


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"engine": "waves"}, "engine='waves' was asked.*did you mean 'wave'"),
        ({"engine": "fast"}, "auto, hooked, wave"),
        ({"budget_bytes": 0}, "budget_bytes=0 was asked. Allowed: 1 or more"),
        ({"tokens_per_wave": -1}, "tokens_per_wave=-1"),
    ],
)
def test_refused(arguments, reason):
    with pytest.raises(ConfigError, match=reason):
        mx.Execution(**arguments)
