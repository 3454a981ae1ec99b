"""Exactness: in float64 levels equal TransformerLens' patching to 1e-6; in float32 they err as TransformerLens does.

And by property: random shapes, grids, padding, edits and metrics, every level against the oracle.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mechxai as mx
from mechxai.core.edit import AddNoise, Edit, ResampleAblate
from mechxai.core.metric import as_metric
from mechxai.engine.contrast import with_reference
from mechxai.engine.execution import LEVEL_NAMES
from mechxai.engine.run import run_sweep
from mechxai.engine.sources import RunSource, mean_source
from mechxai.engine.sweep import Sweep
from tests import typed
from tests.conftest import FOLDED, MODELS
from tests.engine.test_levels import SITES_HEAD, SITES_POS, reference

FAST = LEVEL_NAMES[2:]
# Hugging Face's RMSNorm works in float32 whatever the model's dtype, so two ways of summing differ by its rounding
ROUNDS = {("llama", "bridge"): 2e-5}


def values(model, batch, method, engine):
    result = method(model, batch, execution=mx.Execution(engine))
    return result.data["per_example"].values, int(result.data["level"])


@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
@pytest.mark.parametrize("direction", ["denoise", pytest.param("noise", marks=pytest.mark.slow)])
def test_float64_equals_transformer_lens(model_of, pairs, kind, backend, processing, direction):
    model = model_of(kind, backend, processing, "float64")
    batch = pairs(model)
    for site in SITES_POS + SITES_HEAD:
        if site == "resid_mid" and kind == "neox":
            continue
        over = ("layer", "pos") if site in SITES_POS else ("layer", "head")
        theirs = reference(model, batch, site, over, direction)
        method = mx.ActivationPatching(site, over, direction=direction)
        for engine in ("suffix", "fused"):
            ours, level = values(model, batch, method, engine)
            error = np.abs(ours - theirs).max()
            assert error <= ROUNDS.get((kind, backend), 1e-6), (site, engine, error)
            assert LEVEL_NAMES[level] == engine or (kind, backend) in ROUNDS, (site, engine, level)


@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_float32_errs_no_more_than_transformer_lens(model_of, pairs, kind, backend, processing):
    """Both against float64, the largest error over the cells of a sweep; four times theirs is allowed."""
    single, double = (model_of(kind, backend, processing, dtype) for dtype in ("float32", "float64"))
    batch = pairs(single, n=3)
    for site, over in (("resid_pre", ("layer", "pos")), ("mlp_out", ("layer", "pos")), ("z", ("layer", "head"))):
        exact = reference(double, batch, site, over)
        theirs = np.abs(reference(single, batch, site, over) - exact).max()
        for engine in FAST:
            ours, _ = values(single, batch, mx.ActivationPatching(site, over), engine)
            assert np.abs(ours - exact).max() <= 4 * theirs + 1e-6, (site, engine, theirs)


# Properties -----------------------------------------------------------------------------------------------------------

N_LAYERS, N_HEADS, N_KV, D_HEAD, D_MODEL = 3, 4, 2, 16, 64
WIDTHS = {
    "z": D_HEAD,
    "k": D_HEAD,
    "resid_pre": D_MODEL,
    "resid_post": D_MODEL,
    "attn_out": D_MODEL,
    "mlp_out": D_MODEL,
}
ANY_SITES = (
    "embed",
    "resid_pre",
    "resid_post",
    "attn_out",
    "mlp_out",
    "mlp_post",
    "q",
    "k",
    "v",
    "z",
    "pattern",
    "result",
)


class Halved(Edit):
    """An edit of one's own, that says nothing of positions and looks at all of them."""

    def __call__(self, activation, site):
        return activation - activation.mean(1, keepdim=True) / 2


@st.composite
def sites(draw, width):
    name = draw(st.sampled_from(ANY_SITES))
    row = mx.Site("embed").row if name == "embed" else mx.Site(name, 0).row
    layer = draw(st.integers(0, N_LAYERS - 1)) if row.has_layer else None
    head = draw(st.none() | st.integers(0, N_KV - 1)) if row.head_axis else None
    pos = draw(st.none() | st.integers(-width, width - 1) | st.just("S"))
    return mx.Site(name, layer, head, pos)


KINDS = ("patch", "other", "zero", "mean", "resample", "noise", "steer", "project", "own")


def edit_of(kind, site, sources):
    if kind == "steer":
        return mx.Steer(torch.linspace(-1, 1, WIDTHS[site.name]))
    if kind == "project":
        return mx.ProjectOut(torch.linspace(-1, 1, WIDTHS[site.name]))
    return sources[kind]


EXAMPLES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@settings(EXAMPLES, max_examples=12, derandomize=True)  # at random, and many more, below
@given(data=st.data())
@pytest.mark.parametrize(("kind", "backend", "processing"), FOLDED)
def test_every_level_equals_the_oracle(model_of, kind, backend, processing, data):
    check_levels(model_of(kind, backend, processing), data)


@pytest.mark.slow
@settings(EXAMPLES, max_examples=300)
@given(data=st.data())
@pytest.mark.parametrize(("kind", "backend", "processing"), MODELS)
def test_every_level_equals_the_oracle_at_length(model_of, kind, backend, processing, data):
    check_levels(model_of(kind, backend, processing), data)


def check_levels(model, data):
    typed.anew()  # each example has shapes of its own
    n, width = data.draw(st.integers(1, 4), "prompts"), data.draw(st.integers(2, 9), "width")
    lengths = [width, *data.draw(st.lists(st.integers(2, width), min_size=n - 1, max_size=n - 1), "lengths")]
    batch = batch_of(data, n, width, lengths)
    metric = as_metric(data.draw(st.sampled_from(["logit_diff", "prob", "kl_divergence", own_metric]), "metric"))
    batch = with_reference(model, batch, metric)
    run = data.draw(st.sampled_from(["clean", "corrupted"]), "run")
    chosen = data.draw(
        st.lists(
            st.lists(st.tuples(sites(width), st.sampled_from(KINDS)), min_size=1, max_size=3), min_size=1, max_size=8
        ),
        "cells",
    )
    sweep = Sweep(batch, run, cells_of(model, batch, metric, run, chosen), metric, base_of(data))
    oracle = run_sweep(model, sweep, mx.Execution("hooked")).values
    tokens = data.draw(st.sampled_from([10, 60, 1000]), "tokens per wave")
    for engine in ("auto", "suffix"):
        found = run_sweep(model, sweep, mx.Execution(engine, tokens_per_wave=tokens)).values
        np.testing.assert_allclose(found, oracle, atol=5e-5, rtol=1e-5, err_msg=engine)


def own_metric(logits, batch):
    """Reads logits of every position, the first as well as the last."""
    rows = torch.arange(len(batch))
    return logits[rows, batch.answer_pos, 11] - logits[:, 0, 12] + logits[:, :2].mean((1, 2))


def batch_of(data, n, width, lengths):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6), "seed"))
    clean = torch.randint(10, 190, (n, width), generator=generator)
    differs = torch.rand(n, width, generator=generator) < data.draw(
        st.sampled_from([0.0, 0.2, 0.7]), "share that differs"
    )
    corrupted = torch.where(differs, 10 + (clean - 10 + 7) % 180, clean)
    answers = torch.randint(10, 190, (n,), generator=generator)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    at = torch.tensor([data.draw(st.integers(max(0, length - 2), length - 1), "answer at") for length in lengths])
    role = torch.tensor([data.draw(st.integers(0, length - 1), "role at") for length in lengths])
    return mx.ContrastBatch.from_tokens(
        clean, corrupted, answers, 10 + (answers - 9) % 180, mask=mask, answer_pos=at, roles={"S": role}
    )


def cells_of(model, batch, metric, run, chosen):
    whole = tuple(dict.fromkeys(site.whole for cell in chosen for site, _ in cell))
    other = {"clean": "corrupted", "corrupted": "clean"}[run]
    told = RunSource(model, batch, other, metric, whole)
    plain = tuple(site for site in whole if site.name != "pattern")
    sources = {
        "patch": mx.Patch(told),
        "other": mx.Patch(told.rows(slice(None))),
        "zero": mx.ZeroAblate(),
        "mean": mx.MeanAblate(mean_source(model, batch, run=run, sites=plain, per_position=False)),
        "resample": ResampleAblate(told.rows(slice(None)), tuple(reversed(range(len(batch))))),
        "noise": AddNoise(0.5),
        "own": Halved(),
    }
    cells = []
    for cell in chosen:
        made = []
        for site, kind in cell:
            vector_only = kind in ("steer", "project") and (site.name not in WIDTHS)
            no_mean = kind == "mean" and site.name == "pattern"
            couples = kind == "own" and (site.pos is not None or site.name == "pattern")
            # what stands at a position that the other prompt does not have is nobody's business
            ragged = kind == "resample" and bool((batch.lengths < batch.n_pos).any())
            kind_ = "zero" if vector_only or no_mean or couples or ragged else kind
            made.append(mx.Intervention(site, edit_of(kind_, site, sources)))
        cells.append(tuple(made))
    return cells


def base_of(data):
    return data.draw(
        st.sampled_from(
            [
                (),
                (),
                (mx.Intervention(mx.Site("embed"), AddNoise(1.0)),),
                (mx.Intervention(mx.Site("z", 1, head=0), mx.ZeroAblate()),),
                (mx.Intervention(mx.Site("resid_pre", 1), mx.Steer(torch.ones(D_MODEL))),),
            ]
        ),
        "base",
    )
