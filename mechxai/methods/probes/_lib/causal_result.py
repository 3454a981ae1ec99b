"""The effects of edits along probes' directions, as a dataset and as a verdict per layer."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from mechxai.core.result import variable
from mechxai.core.site import Site
from mechxai.core.statistics import ratio_interval
from mechxai.engine.contrast import Baselines
from mechxai.methods.probes._lib.layer_probes import ProbeScores
from mechxai.methods.result_parts import bounded

NOT_USED = "decodable, not used here"
NEGLIGIBLE = 0.05  # share of the clean-corrupted gap; a smaller fall counts as none, however certain it is
_DIMS = ("edit", "layer")
_PROBE_SCORES = ("accuracy", "accuracy_low", "accuracy_high", "majority_baseline", "control_accuracy")
_PROBE_SCORES += ("selectivity", "selectivity_low", "selectivity_high")


def causal_result(
    values: np.ndarray,
    scores: Mapping[Site, ProbeScores],
    *,
    baselines: Baselines,
    edits: Sequence[str],
    sites: Sequence[Site],
) -> tuple[xr.Dataset, tuple[str, ...]]:
    """The dataset of `ProbeCausalCheck`, and its notes.

    Args:
        values: the metric after each edit, ``[layer, edit, direction, prompt]``; the probe's direction comes first.
        scores: scores of the probes, by site.
        baselines: the metric of the test prompts' clean and corrupted runs.
        edits: names of the edits.
        sites: the site of each layer.
    """
    metric = baselines.metric
    falls = (baselines.clean - values).transpose(3, 1, 0, 2)  # [prompt, edit, layer, direction]
    probe, random = falls[..., 0], falls[..., 1:].mean(-1)
    share = ratio_interval(probe, baselines.gap)
    placebo_most = falls[..., 1:].mean(0).max(-1)
    data = {
        **bounded(
            "value", _DIMS, probe, units=metric.unit, meaning=f"fall of {metric.name} along the probe's direction"
        ),
        **bounded("placebo", _DIMS, random, units=metric.unit, meaning="the same along random directions"),
        **bounded("excess", _DIMS, probe - random, units=metric.unit, meaning="fall beyond random directions"),
        "per_example": variable(("prompt", *_DIMS), probe, metric.unit, f"fall of {metric.name}, per prompt"),
        "placebo_most": variable(_DIMS, placebo_most, metric.unit, "largest mean fall along a random direction"),
        "removed": variable(
            _DIMS, probe.mean(0) / _denominator(baselines.gap.mean()), "fraction", "share of the gap lost"
        ),
        "removed_low": variable(_DIMS, share.low, "fraction", "share of the gap lost, 95 % bootstrap, low"),
        "removed_high": variable(_DIMS, share.high, "fraction", "share of the gap lost, 95 % bootstrap, high"),
        "baseline_clean": variable(("prompt",), baselines.clean, metric.unit, f"{metric.name} of the clean run"),
        "baseline_corrupted": variable(
            ("prompt",), baselines.corrupted, metric.unit, f"{metric.name} of the corrupted run"
        ),
    }
    for name in _PROBE_SCORES:
        rows = np.array([float(scores[site][name][0]) for site in sites])
        data[name] = variable(("layer",), rows, "fraction", f"{name.replace('_', ' ')} of the probes")
    used = (data["excess_low"].values > 0) & (probe.mean(0) > placebo_most) & (data["removed"].values >= NEGLIGIBLE)
    data["used"] = variable(_DIMS, used, "1", "whether the fall exceeds what random directions do")
    decodable = data["selectivity_low"].values > 0
    verdicts = [_verdict(*pair) for pair in zip(decodable.tolist(), used.any(0).tolist(), strict=True)]
    data["verdict"] = variable(("layer",), np.array(verdicts), "text", "verdict from accuracy and effect")
    layers = [site.layer if site.layer is not None else 0 for site in sites]
    unused = [
        f"{layer} ({accuracy:.2f})"
        for layer, accuracy, verdict in zip(layers, data["accuracy"].values, verdicts, strict=True)
        if verdict == NOT_USED
    ]
    notes = (
        f"Decodable is not used: at layer {', '.join(unused)} (accuracy) the label can be decoded, but no edit along "
        f"the probe's direction changes {metric.name} by {NEGLIGIBLE:.0%} of the clean-corrupted gap and more than "
        "random directions of the same length do.",
    )
    coords = {"edit": list(edits), "layer": layers}
    return xr.Dataset(data, coords=coords), notes if unused else ()


def _verdict(decodable: bool, used: bool) -> str:  # noqa: FBT001 - two independent facts
    if not decodable:
        return "not decodable beyond the control"
    return "decodable and used" if used else NOT_USED


def _denominator(gap: float) -> float:
    return gap if abs(gap) > 1e-6 else float("nan")
