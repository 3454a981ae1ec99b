"""The page of model families as Markdown, from the outcomes of `benchmarks.families`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.families.checkpoints import FAMILIES, GROUPS

Report = Mapping[str, Mapping[str, Mapping[str, Any]]]

_INTRO = """# Model families

`make families` writes this page; do not edit it. Every row is a tiny random checkpoint in the Hugging Face format. Its
log-probabilities, padding, caches, patching, edges, lens, attribution and generated text are compared with Hugging
Face's own model and hooks on it. *Configuration switches* are families with another setting.

- **loads as**: the backend that `mx.load` chooses (HT: HookedTransformer); weights are folded unless the cell says raw.
- **levels**: the highest [level of the engine](concepts/engine.md) for sweeps over `resid_pre` and over `z`.
- **yes**: equal to the independent computation. **no**: refused, with the reason below the tables; **in part**: one of
  several sites or methods is. **wrong**, **error**: a fault.
- *a / b*: on TransformerLens {lines}, where they differ.
"""
COLUMNS: dict[str, tuple[str, ...]] = {
    "logits": ("logits", "logits, raw", "padding"),
    "caches": ("cache of resid_post", "cache of z", "cache of pattern", "cache of mlp_post"),
    "patching": (
        "patching of resid_pre",
        "patching of z",
        "ablation of z",
        "ablation of mlp_out",
        "edits of every site",
    ),
    "edges": ("edges",),
    "lens, DLA, probes": ("lens", "direct attribution by head", "direct attribution by layer", "probes"),
    "gradients, SHAP": ("integrated gradients", "SHAP"),
    "attention": ("patterns", "rollout"),
    "generation": ("generation",),
}
SEQUENCE_COLUMNS: dict[str, tuple[str, ...]] = {
    "outputs": ("logits", "padding"),
    "gradients": ("integrated gradients", "integrated gradients from the mean", "gradient x input"),
    "SHAP": ("SHAP",),
    "attention": ("rollout", "attention"),
    "faithfulness": ("faithfulness",),
}
_BACKENDS = {"hooked_transformer": "HT", "hooked_encoder": "HookedEncoder"}
_SEQUENCE_GROUPS = ("Classifiers", "Text encoders")
_EMPTY = "-"


def page(report: Report) -> str:
    """The whole page."""
    parts = [_INTRO.format(lines=" / ".join(report))]
    for title, group in GROUPS.items():
        parts += [f"## {title}", _table(title, group, report), ""]
    parts += ["## What is refused, and why", "", *_reasons(report), ""]
    return "\n".join(parts)


def _table(title: str, names: Mapping[str, Any], report: Report) -> str:
    columns = SEQUENCE_COLUMNS if title in _SEQUENCE_GROUPS else COLUMNS
    levels = ("levels",) if columns is COLUMNS else ()
    lines = [_row(("family", "loads as", *levels, *columns)), "|" + "---|" * (2 + len(levels) + len(columns))]
    for name in names:
        rows = [report[line].get(name, {}) for line in report]
        cells = [_merged(_loaded(row) for row in rows)]
        cells += [_merged(_levels(row) for row in rows) for _ in levels]
        cells += [_merged(_state(row, checks) for row in rows) for checks in columns.values()]
        lines.append(_row((f"`{name}`", *cells)))
    return "\n" + "\n".join(lines)


def _loaded(row: Mapping[str, Any]) -> str:
    if "loaded" not in row:
        return _state(row, ("load",)) if row else _EMPTY
    backend, _, processing = row["loaded"].partition(", ")
    backend = _BACKENDS.get(backend, backend)
    return backend if processing in ("folded", "") else f"{backend}, {processing}"


def _levels(row: Mapping[str, Any]) -> str:
    return ", ".join(str(level) for level in dict.fromkeys(int(x) for x in row.get("levels", ()))) or _EMPTY


def _state(row: Mapping[str, Any], checks: Sequence[str]) -> str:
    """ "yes", "no", "in part", "wrong" or "error" of a group of checks."""
    if "loaded" not in row and checks != ("load",):
        return _EMPTY
    states = [row.get("not right", {}).get(check, ("right", ""))[0] for check in checks]
    for state, word in (("traceback", "error"), ("wrong", "wrong")):
        if state in states:
            return word
    if "refused" not in states:
        return "yes"
    return "no" if set(states) == {"refused"} else "in part"


def _merged(cells: Iterator[str]) -> str:
    values = list(cells)
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def _reasons(report: Report) -> list[str]:
    """A bullet per reason: the checks, the reason, and the families that have it."""
    families: dict[tuple[str, str], dict[str, set[str]]] = {}
    for line, rows in report.items():
        for name, row in rows.items():
            for check, (state, detail) in row.get("not right", {}).items():
                if state == "refused":
                    families.setdefault((check, _reason(name, detail)), {}).setdefault(name, set()).add(line)
    checks: dict[tuple[str, str], list[str]] = {}
    for (check, reason), names in families.items():
        listed = ", ".join(_with_lines(name, lines, report) for name, lines in names.items())
        checks.setdefault((reason, listed), []).append(check)
    return sorted(f"- **{', '.join(of)}**: {reason} — {listed}" for (reason, listed), of in checks.items())


def _with_lines(name: str, lines: set[str], report: Report) -> str:
    return f"`{name}`" if len(lines) == len(report) else f"`{name}` ({', '.join(sorted(lines))})"


def _reason(name: str, detail: str) -> str:
    """The reason without what differs from family to family: names, folders, numbers, what is allowed instead."""
    reason = detail.partition(": ")[2].partition(" Allowed:")[0]
    model = FAMILIES[name].model
    for pattern, text in (
        (r"Model '[^']*' \(\w+\)", "the model"),
        (re.escape(f"{name} ({model})"), "the model"),
        (re.escape(model), "the model"),
        (rf"^{re.escape(name)}\b", "the model"),
        (r"'[^']*/([^/']+)'", r"`\1`"),
        (r"TransformerLens \d[\d.]*\d", "TransformerLens"),
        (r" Available architectures: \[[^)]*\)", ")"),
        (r" \(difference allowed: [\d.e-]+\)", ""),
        (r"of prompt \d+", "of a prompt"),
        (r"-?\b\d+\.\d+\b", "x"),
        (r"\b(sum to|changes by) -?\d+\b", r"\1 x"),
        (r"\|", r"\\|"),
        ("<", "&lt;"),
    ):
        reason = re.sub(pattern, text, reason)
    return reason.strip()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
