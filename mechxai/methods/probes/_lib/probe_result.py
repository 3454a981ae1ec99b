"""What probes reached, as a dataset."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from mechxai.core.grid import Position
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.result import variable
from mechxai.core.site import Site
from mechxai.methods.probes._lib.layer_probes import Scores
from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.result_parts import position_labels

_DIMS = ("site", "layer", "pos")
_MEANING = {
    "accuracy": ("fraction", "accuracy on test prompts"),
    "balanced_accuracy": ("fraction", "balanced accuracy"),
    "auroc": ("fraction", "area under the ROC curve"),
    "calibration_error": ("fraction", "expected calibration error"),
    "log_loss": ("nats", "mean log-loss"),
    "majority_baseline": ("fraction", "accuracy of the commonest training label"),
    "control_accuracy": ("fraction", "accuracy on the control labels"),
    "selectivity": ("fraction", "accuracy less the control's"),
    "r2": ("fraction", "R squared on test prompts"),
    "mean_squared_error": ("label units squared", "mean squared error"),
    "control_r2": ("fraction", "R squared on the control labels"),
    "codelength": ("bits", "online codelength of the training labels"),
    "compression": ("1", "uniform codelength over online codelength"),
    "C": ("1", "inverse regularisation chosen"),
    "n_train": ("examples", "labelled training rows"),
    "n_test": ("examples", "labelled test rows"),
}
_ENDS = {"low": "low end of the 95 % bootstrap over prompts", "high": "high end of the 95 % bootstrap over prompts"}
_PARAMETERS = ("weight", "bias", "center")


def headline(dataset: ProbeDataset) -> str:
    """The variable that ``value`` repeats."""
    return "r2" if dataset.is_numbers else "accuracy"


def probe_result(
    dataset: ProbeDataset,
    found: Mapping[Site, Scores],
    random: Mapping[Site, Scores],
    *,
    positions: Sequence[Position],
    likelihood: Likelihood,
) -> xr.Dataset:
    """Scores by site, layer and position; of the random-weights model, the headline alone."""
    names = list(dict.fromkeys(site.name for site in found))
    layers = sorted({site.layer if site.layer is not None else 0 for site in found})
    scores = [name for name in next(iter(found.values())) if name not in (*_PARAMETERS, "class_means")]
    data = {name: variable(_DIMS, _laid(found, name, names, layers), *_words(name)) for name in scores}
    main = headline(dataset)
    data["value"] = data[main]
    for end in ("low", "high"):
        data[f"value_{end}"] = data[f"{main}_{end}"]
    if random:
        values = _laid(random, main, names, layers)
        data[f"random_model_{main}"] = variable(_DIMS, values, "fraction", f"{_MEANING[main][1]}, random weights")
    coords: dict[str, object] = {"site": names, "layer": layers, "pos": _positions(dataset, positions)}
    if "weight" in next(iter(found.values())):
        coords["klass"] = (
            list(dataset.names) if likelihood.n_columns > 1 else [dataset.names[1] if dataset.names else "number"]
        )
        data |= _parameters(found, names, layers)
    return xr.Dataset(data, coords=coords)


def _parameters(found: Mapping[Site, Scores], names: Sequence[str], layers: Sequence[int]) -> dict[str, xr.DataArray]:
    width = max(scores["weight"].shape[-1] for scores in found.values())
    wide = {
        site: {
            name: np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])], constant_values=np.nan)
            if name != "bias"
            else values
            for name, values in scores.items()
            if name in _PARAMETERS
        }
        for site, scores in found.items()
    }
    of = "for activations as they are"
    return {
        "weight": variable(
            (*_DIMS, "klass", "d"), _laid(wide, "weight", names, layers), "log-odds per unit", f"probe weights, {of}"
        ),
        "bias": variable((*_DIMS, "klass"), _laid(wide, "bias", names, layers), "log-odds", f"probe bias, {of}"),
        "center": variable((*_DIMS, "d"), _laid(wide, "center", names, layers), "activation", "training mean"),
    }


def _laid(found: Mapping[Site, Scores], name: str, names: Sequence[str], layers: Sequence[int]) -> np.ndarray:  # noqa: PLR0917
    shape = next(scores[name].shape for scores in found.values() if name in scores)
    values = np.full((len(names), len(layers), *shape), np.nan)
    for site, scores in found.items():
        if name in scores:
            values[names.index(site.name), layers.index(site.layer if site.layer is not None else 0)] = scores[name]
    return values


def _positions(dataset: ProbeDataset, positions: Sequence[Position]) -> list[str]:
    return position_labels(dataset, positions)


def _words(name: str) -> tuple[str, str]:
    stem, _, end = name.rpartition("_")
    if end in _ENDS and stem in _MEANING:
        return _MEANING[stem][0], f"{_MEANING[stem][1]}, {_ENDS[end]}"
    return _MEANING[name]
