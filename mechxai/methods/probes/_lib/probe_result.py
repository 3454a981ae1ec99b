"""The scores of probes as a dataset."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from mechxai.core.grid import Position
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.result import variable
from mechxai.core.site import Site
from mechxai.methods.probes._lib.layer_probes import ProbeScores
from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.result_parts import position_labels

_DIMS = ("site", "layer", "pos")
_MEANING = {
    "accuracy": ("fraction", "accuracy on test prompts"),
    "balanced_accuracy": ("fraction", "balanced accuracy"),
    "auroc": ("fraction", "area under the ROC curve"),
    "calibration_error": ("fraction", "expected calibration error"),
    "log_loss": ("nats", "mean log-loss"),
    "majority_baseline": ("fraction", "accuracy of the most frequent training label"),
    "control_accuracy": ("fraction", "accuracy on the control labels"),
    "selectivity": ("fraction", "accuracy minus control accuracy"),
    "r2": ("fraction", "R squared on test prompts"),
    "mean_squared_error": ("label units squared", "mean squared error"),
    "control_r2": ("fraction", "R squared on the control labels"),
    "codelength": ("bits", "online codelength of the training labels"),
    "compression": ("1", "uniform codelength over online codelength"),
    "C": ("1", "chosen inverse regularisation"),
    "n_train": ("examples", "labelled training rows"),
    "n_test": ("examples", "labelled test rows"),
}
_ENDS = {"low": "low end of the 95 % bootstrap over prompts", "high": "high end of the 95 % bootstrap over prompts"}
_PARAMETERS = ("weight", "bias", "center")


def headline(dataset: ProbeDataset) -> str:
    """The name of the variable that ``value`` repeats."""
    return "r2" if dataset.is_numbers else "accuracy"


def probe_result(
    dataset: ProbeDataset,
    scores: Mapping[Site, ProbeScores],
    random: Mapping[Site, ProbeScores],
    *,
    positions: Sequence[Position],
    likelihood: Likelihood,
) -> xr.Dataset:
    """ProbeScores by site, layer and position; for the random-weights model, only the headline score."""
    sites = list(dict.fromkeys(site.name for site in scores))
    layers = sorted({site.layer if site.layer is not None else 0 for site in scores})
    first = next(iter(scores.values()))
    names = [name for name in first if name not in (*_PARAMETERS, "class_means")]
    data = {name: variable(_DIMS, _array(scores, name, sites, layers), *_unit_and_meaning(name)) for name in names}
    main = headline(dataset)
    data["value"] = data[main]
    for end in ("low", "high"):
        data[f"value_{end}"] = data[f"{main}_{end}"]
    if random:
        values = _array(random, main, sites, layers)
        data[f"random_model_{main}"] = variable(_DIMS, values, "fraction", f"{_MEANING[main][1]}, random weights")
    coords: dict[str, object] = {"site": sites, "layer": layers, "pos": position_labels(dataset, positions)}
    if "weight" in first:
        coords["klass"] = (
            list(dataset.names) if likelihood.n_columns > 1 else [dataset.names[1] if dataset.names else "number"]
        )
        data |= _parameters(scores, sites, layers)
    return xr.Dataset(data, coords=coords)


def _parameters(
    scores: Mapping[Site, ProbeScores], sites: Sequence[str], layers: Sequence[int]
) -> dict[str, xr.DataArray]:
    width = max(of_site["weight"].shape[-1] for of_site in scores.values())
    padded = {
        site: {
            name: np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])], constant_values=np.nan)
            if name != "bias"
            else values
            for name, values in of_site.items()
            if name in _PARAMETERS
        }
        for site, of_site in scores.items()
    }
    of = "for raw activations"
    return {
        "weight": variable(
            (*_DIMS, "klass", "d"), _array(padded, "weight", sites, layers), "log-odds per unit", f"probe weights, {of}"
        ),
        "bias": variable((*_DIMS, "klass"), _array(padded, "bias", sites, layers), "log-odds", f"probe bias, {of}"),
        "center": variable((*_DIMS, "d"), _array(padded, "center", sites, layers), "activation", "training mean"),
    }


def _array(scores: Mapping[Site, ProbeScores], name: str, sites: Sequence[str], layers: Sequence[int]) -> np.ndarray:  # noqa: PLR0917
    shape = next(of_site[name].shape for of_site in scores.values() if name in of_site)
    values = np.full((len(sites), len(layers), *shape), np.nan)
    for site, of_site in scores.items():
        if name in of_site:
            values[sites.index(site.name), layers.index(site.layer if site.layer is not None else 0)] = of_site[name]
    return values


def _unit_and_meaning(name: str) -> tuple[str, str]:
    stem, _, end = name.rpartition("_")
    if end in _ENDS and stem in _MEANING:
        return _MEANING[stem][0], f"{_MEANING[stem][1]}, {_ENDS[end]}"
    return _MEANING[name]
