"""Results as the methods make them, with known numbers."""

import numpy as np
import xarray as xr

from mechxai.core.result import Result, RunInfo, variable

SENTENCE = "<bos> When Mary and John went to the store , John gave a bottle of milk to her"
TOKENS = SENTENCE.split()
LABELS = [f"{at}: {token}" for at, token in enumerate(TOKENS)]


def coords(over, sizes, labels):
    found = {dim: np.arange(size) for dim, size in zip(over, sizes, strict=True) if dim in ("layer", "head", "neuron")}
    if "pos" in over:
        found["pos"] = list(labels)[: sizes[over.index("pos")]]
    return found


# Method -> the kind of its results, as on the method's card.
KINDS = {
    "activation_patching": "patching",
    "causal_tracing": "patching",
    "ablation": "ablation",
    "head_roles": "head_roles",
    "edge_patching": "edges",
    "information_flow_routes": "routes",
    "logit_lens": "lens",
    "direct_logit_attribution": "contributions",
}


def sweep(
    over=("layer", "pos"),
    sizes=(12, 18),
    *,
    method="activation_patching",
    site="resid_pre",
    seed=0,
    labels=LABELS,
    peak=None,
):
    """A patching result: weak noise, and 0.9 recovered at ``peak`` (the middle by default)."""
    rng = np.random.default_rng(seed)
    recovered = rng.normal(0, 0.03, sizes)
    for reach, at in ((0.9, tuple(size // 2 for size in sizes)), (-0.4, tuple(size // 4 for size in sizes))):
        recovered[(at if peak is None or reach < 0 else peak)] = reach
    per_example = -2 + 6 * (recovered + rng.normal(0, 0.1, (16, *sizes)))
    value = per_example.mean(0)
    width = 0.3 + 0 * value
    found = {
        "value": variable(over, value, "logits", "logit difference of the patched run, mean over prompts"),
        "value_low": variable(over, value - width, "logits", "lower end"),
        "value_high": variable(over, value + width, "logits", "upper end"),
        "per_example": variable(("prompt", *over), per_example, "logits", "logit difference of the patched run"),
        "recovered": variable(
            over, recovered, "fraction", "share of the clean run's logit difference that is recovered"
        ),
        "recovered_low": variable(over, recovered - 0.05, "fraction", "lower end"),
        "recovered_high": variable(over, recovered + 0.05, "fraction", "upper end"),
        "baseline_clean": variable(("prompt",), np.full(16, 4.0), "logits", "clean run"),
        "baseline_corrupted": variable(("prompt",), np.full(16, -2.0), "logits", "corrupted run"),
        "level": variable((), 2, "level", "engine level"),
        "noise_floor": variable((), 3e-6, "logits", "largest change of a cell that changes nothing"),
    }
    return Result(xr.Dataset(found, coords=coords(over, sizes, labels)), info(method, site, over))


def info(method, site, over, **more):
    return RunInfo(
        method={
            "name": method,
            "site": site,
            "over": list(over),
            "direction": "denoise",
            "metric": "logit_diff",
            **more,
        },
        model={
            "name": "zoo/ioi",
            "backend": "hooked_transformer",
            "processing": "folded",
            "dtype": "float32",
            "weight_hash": "ab12cd34",
        },
        task={"name": "ioi", "n": 16, "seed": 0, "dropped": {}},
        seed=0,
        versions={"python": "3.11", "torch": "2.9"},
        commit="c9b14f3",
        cost={"forward_passes": 41.0, "cells": 216.0, "cells_reused": 0.0, "seconds": 3.21},
        notes=("2 prompts were dropped: their tokens do not line up",),
        kind=KINDS[method],
    )


def head_roles(layers=4, heads=8):
    """Scores per head with four roles."""
    rng = np.random.default_rng(1)
    over = ("layer", "head")
    names = (
        "previous_token",
        "duplicate_token",
        "induction",
        "name_mover",
        "s_inhibition",
        "copying",
    )
    scores = {name: rng.beta(1, 12, (layers, heads)) for name in names}
    role = np.full((layers, heads), "", dtype=object)
    for at, (name, place) in enumerate(
        zip(
            ("previous_token", "duplicate_token", "induction", "name_mover"),
            ((0, 1), (0, 5), (1, 3), (3, 6)),
            strict=True,
        )
    ):
        role[place] = name
        scores[names[min(at, 3)]][place] = 0.93
    found = {name: variable(over, value, "fraction", f"{name} score") for name, value in scores.items()}
    effect = rng.normal(0, 0.1, (layers, heads))
    effect[3, 6], effect[2, 2] = 2.4, -1.1
    found["effect"] = variable(over, effect, "logits", "change of the logit difference when ablated")
    found["effect_noise"] = variable(over, effect / 2, "logits", "change of the logit difference when put in")
    found["attends_to"] = variable(over, role.astype(str), "pattern", "strongest pattern")
    found["role"] = variable(over, role.astype(str), "role", "role")
    return Result(xr.Dataset(found, coords=coords(over, (layers, heads), ())), info("head_roles", "pattern", over))


def plain(dims, sizes, name="accuracy", units="fraction", **along):
    """A result of no method that figures know."""
    values = np.random.default_rng(2).random(sizes)
    return Result(
        xr.Dataset({name: variable(dims, values, units, f"{name} of something")}, coords=along),
        RunInfo(method={"name": "linear_probes"}),
    )
