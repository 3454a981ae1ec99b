"""Tables of chain-of-thought results: measurements with intervals, and the texts of a few problems."""

import numpy as np
import xarray as xr

from mechxai.core.result import Result
from mechxai.figures.text import words

_MEASURES = {
    "aoc": "area over the curve",
    "moved": "moved to the suggested answer",
    "moved_no_chain": "moved, without a chain",
    "drop": "accuracy lost to the bias",
    "mentions": "biased chains that mention the bias",
    "mentions_plain": "unbiased chains with the same words",
    "noticed": "objects to the error",
    "placebo": "keeps its answer (no error)",
    "accuracy": "accuracy with the chain (or the majority of chains)",
    "accuracy_no_chain": "accuracy without a chain",
    "gain": "gain from the chain",
    "accuracy_single": "accuracy of one sampled chain",
    "accuracy_greedy": "accuracy of the greedy chain",
    "accuracy_flagged": "accuracy where few votes agree",
    "mean_vote_share": "majority's share of the votes",
    "follows_chain": "answers that follow their chain against the majority",
    "parse_failures": "unparsed answers",
}
EXAMPLES = ": the first problems"
"""End of the titles of tables that hold texts."""
_MAX_EXAMPLES = 3  # problems whose texts are shown
_CONTROLS = {"irrelevant": "an irrelevant text of equal length", "another's": "another problem's chain"}
_TEXTS = {
    "question": "question",
    "chain": "chain",
    "changed": "changed chain",
    "answer_changed": "answer after it",
    "planted": "planted error",
    "written_on": "continuation",
    "answer_planted": "answer after it",
    "chain_biased": "chain with the bias",
    "answer_chain": "answer",
    "answer_biased": "answer with the bias",
    "answer_right": "right answer",
}


def chain_tables(result: Result) -> dict[str, list[dict[str, object]]]:
    """Title -> rows: measurements with 95 % intervals, and the texts of the first problems.

    Args:
        result: of a chain-of-thought method.
    """
    data = result.data
    rows: list[dict[str, object]] = []
    for dim, name, title in (("outcome", "value", ""), ("part", "recovered", "share through ")):
        if dim in data.dims:
            rows += [
                _row(f"{title}{words(str(label)).lower()}", data.sel({dim: label}), name) for label in data[dim].values
            ]
    if "control" in data.dims:
        rows += [
            _row(f"accuracy with {_CONTROLS[str(control)]}", data.sel(control=control), "control_accuracy")
            for control in data["control"].values
            if str(control) in _CONTROLS
        ]
    rows += [_row(title, data, name) for name, title in _MEASURES.items() if name in data]
    if "n_astray" in data and int(data["n_astray"]):
        rows.append({"measure": "problems with such a chain", "mean": str(int(data["n_astray"])), "95 %": ""})
    subject = f"{words(str(result.info.method['name'])).capitalize()} of {result.info.model.get('name')}"
    tables = {f"{subject}, {data.sizes['prompt']} problems": rows}
    texts = [name for name in _TEXTS if name in data]
    if texts:
        tables[f"{subject}{EXAMPLES}"] = [
            {_TEXTS[name]: str(data[name].values[number]) for name in texts}
            for number in range(min(_MAX_EXAMPLES, data.sizes["prompt"]))
        ]
    return tables


def _row(title: str, data: xr.Dataset, name: str) -> dict[str, object]:
    value, low, high = (float(data[f"{name}{end}"]) for end in ("", "_low", "_high"))
    mean = "unknown" if not np.isfinite(value) else f"{value:.2f}"
    return {"measure": title, "mean": mean, "95 %": f"{low:.2f} to {high:.2f}" if np.isfinite(low) else ""}
