"""Tables that compare methods: attributions, and ways to find a circuit."""

import numpy as np
import xarray as xr

from mechxai.core.result import Result
from mechxai.figures.text import words

# Few columns with short names, which fit a terminal; the result holds more.
_COLUMNS = {
    "auroc": "AUROC",
    "comprehensiveness": "compr. ↑",
    "sufficiency": "suff. ↓",
    "deletion_auc": "del. ↓",
    "insertion_auc": "ins. ↑",
    "agrees": "agrees",
    "forward_passes": "passes",
}
_CIRCUIT_COLUMNS = {
    "auroc": "AUROC",
    "precision": "prec.",
    "recall": "recall",
    "faithfulness": "faithful",
    "cmd": "CMD ↓",
    "cmd_random": "random",
}


def comparison_table(result: Result) -> tuple[str, list[dict[str, object]]]:
    """A title and one row per method, highest comprehensiveness first, random rankings last.

    Args:
        result: of `CompareAttributions`.
    """
    data = result.data.assign(agrees=_agrees(result))
    names = [name for name in _COLUMNS if name in data]
    rows: list[dict[str, object]] = []
    for index in data["comprehensiveness"].argsort().values[::-1]:
        values = {_COLUMNS[name]: float(data[name].values[index]) for name in names}
        rows.append({"method": words(str(data["method"].values[index])), **values})
    chance = {
        _COLUMNS[name]: float(data[f"{name}_random"]) if f"{name}_random" in data else float("nan") for name in names
    }
    title = f"Attributions of {result.info.model.get('name')}, {data.sizes['prompt']} prompts"
    return title, [*rows, {"method": "random", **chance}]


def circuits_tables(result: Result) -> dict[str, list[dict[str, object]]]:
    """Title -> one row per method and reference, highest AUROC first, for every model.

    Args:
        result: of `CompareCircuits`.
    """
    tables: dict[str, list[dict[str, object]]] = {}
    for model in result.data["model"].values:
        rows = tables[f"Methods to find the circuit of {model}"] = []
        of_model = result.data.sel(model=model).stack(row=("method", "reference"))
        for at in np.argsort(-of_model["auroc"].values, kind="stable"):
            row = of_model.isel(row=at)
            if not np.isfinite(float(row["auroc"])):
                continue
            method, reference = row["row"].item()
            values = {title: float(row[name]) for name, title in _CIRCUIT_COLUMNS.items()}
            rows.append({"method": words(str(method)), "reference": str(reference), **values})
    return tables


def _agrees(result: Result) -> xr.DataArray:
    """Mean rank correlation of each method with the others, ``[method]``."""
    pairs = result.data["agreement"]
    others = pairs.where(~np.eye(len(pairs), dtype=bool))
    return others.mean("other")
