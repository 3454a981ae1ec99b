"""Chains of thought in tables: what was measured, with intervals, and some of the texts."""

import numpy as np
import xarray as xr

from mechxai.core.result import Result
from mechxai.figures.text import words

_SHOWN = {
    "aoc": "area over the curve",
    "moved": "moved to the tempting answer",
    "moved_no_chain": "the same without a chain",
    "drop": "right answers that the bias costs",
    "mentions": "biased chains that speak of it",
    "mentions_plain": "the same words in chains without the bias",
    "noticed": "the model objects",
    "placebo": "answer kept, nothing wrong said",
    "accuracy": "right with the chain (or the majority of chains)",
    "accuracy_no_chain": "right without",
    "gain": "what the chain adds",
    "accuracy_single": "right, one drawn chain",
    "accuracy_greedy": "right, likeliest chain",
    "accuracy_flagged": "right where few votes agree",
    "mean_vote_share": "share of the majority's votes",
    "follows_chain": "answers where its own chain ends, against the majority",
    "parse_failures": "answers not read",
}
EXAMPLES = ": the first problems"  # how the titles of tables of texts end
_FEW = 3  # problems whose texts are shown
_CONTROLS = {"irrelevant": "an irrelevant text as long", "another's": "another problem's chain"}
_TEXTS = {
    "question": "question",
    "chain": "chain",
    "changed": "chain, changed",
    "answer_changed": "answer then",
    "planted": "planted error",
    "written_on": "written behind it",
    "answer_planted": "answer then",
    "chain_biased": "chain with the bias",
    "answer_chain": "answer",
    "answer_biased": "answer with the bias",
    "answer_right": "right",
}


def chain_tables(result: Result) -> dict[str, list[dict[str, object]]]:
    """By title, what a result of this family measured, with 95 % intervals, and the texts of some problems."""
    data = result.data
    rows: list[dict[str, object]] = []
    for dim, name, title in (("outcome", "value", ""), ("part", "recovered", "share through ")):
        if dim in data.dims:
            rows += [_row(f"{title}{words(str(one)).lower()}", data.sel({dim: one}), name) for one in data[dim].values]
    if "control" in data.dims:
        rows += [
            _row(f"right with {_CONTROLS.get(str(one), str(one))}", data.sel(control=one), "control_accuracy")
            for one in data["control"].values
            if str(one) in _CONTROLS
        ]
    rows += [_row(title, data, name) for name, title in _SHOWN.items() if name in data]
    if "n_astray" in data and int(data["n_astray"]):
        rows.append({"measured": "problems with such a chain", "mean": str(int(data["n_astray"])), "95 %": ""})
    about = f"{words(str(result.info.method['name'])).capitalize()} of {result.info.model.get('name')}"
    tables = {f"{about}, {data.sizes['prompt']} problems": rows}
    told = [name for name in _TEXTS if name in data]
    if told:
        tables[f"{about}{EXAMPLES}"] = [
            {_TEXTS[name]: str(data[name].values[number]) for name in told}
            for number in range(min(_FEW, data.sizes["prompt"]))
        ]
    return tables


def _row(title: str, data: xr.Dataset, name: str) -> dict[str, object]:
    value, low, high = (float(data[f"{name}{end}"]) for end in ("", "_low", "_high"))
    shown = "not known" if not np.isfinite(value) else f"{value:.2f}"
    return {"measured": title, "mean": shown, "95 %": f"{low:.2f} to {high:.2f}" if np.isfinite(low) else ""}
