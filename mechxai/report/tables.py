"""The tables a result has beside its figure: heads by role, attributions side by side, chains of thought."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from mechxai.core.result import Result
from mechxai.figures.text import words
from mechxai.report.chain_tables import chain_tables
from mechxai.report.head_tables import census, head_table

CHAINS = (
    "early_answering",
    "adding_mistakes",
    "paraphrasing",
    "filler_tokens",
    "biasing_feature",
    "planted_error",
    "self_consistency",
    "chain_flow",
)
# Few and short, so that a terminal has room for them; the result has more.
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
    """A title and one row per method of a `CompareAttributions`, the most comprehensive first, random rankings last."""
    data = result.data.assign(agrees=_agrees(result))
    there = [name for name in _COLUMNS if name in data]
    rows: list[dict[str, object]] = []
    for index in data["comprehensiveness"].argsort().values[::-1]:
        values = {_COLUMNS[name]: float(data[name].values[index]) for name in there}
        rows.append({"method": words(str(data["method"].values[index])), **values})
    chance = {
        _COLUMNS[name]: float(data[f"{name}_random"]) if f"{name}_random" in data else float("nan") for name in there
    }
    title = f"Attributions of {result.info.model.get('name')}, {data.sizes['prompt']} prompts"
    return title, [*rows, {"method": "random", **chance}]


def circuits_tables(result: Result) -> dict[str, list[dict[str, object]]]:
    """By title, of every model of a `CompareCircuits`, one row per method and ablation, the best AUROC first."""
    found: dict[str, list[dict[str, object]]] = {}
    for model in result.data["model"].values:
        rows = found[f"Ways of finding the circuit of {model}"] = []
        of_model = result.data.sel(model=model).stack(way=("method", "reference"))
        for at in np.argsort(-of_model["auroc"].values, kind="stable"):
            own = of_model.isel(way=at)
            if not np.isfinite(float(own["auroc"])):
                continue
            method, reference = own["way"].item()
            values = {title: float(own[name]) for name, title in _CIRCUIT_COLUMNS.items()}
            rows.append({"method": words(str(method)), "cut": str(reference), **values})
    return found


def _agrees(result: Result) -> xr.DataArray:
    """Each method's mean rank correlation with the others."""
    pairs = result.data["agreement"]
    others = pairs.where(~np.eye(len(pairs), dtype=bool))
    return others.mean("other")


def own_tables(result: Result, card: Mapping[str, Any]) -> dict[str, list[dict[str, object]]]:
    """The tables that a result has beside its figure, by title.

    Args:
        result: of any method.
        card: of the model, with its known circuit where it has one.
    """
    name = result.info.method.get("name")
    if name == "head_roles":
        return dict([head_table(result, card.get("truth")), census(result)])
    if name == "compare_circuits":
        return circuits_tables(result)
    if name in CHAINS:
        return chain_tables(result)
    return dict([comparison_table(result)]) if name == "compare_attributions" else {}
