"""Tables of a `head_roles` result: its heads, beside the known circuit where there is one, and a census."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mechxai.core.result import Result
from mechxai.figures.text import words

_MOST = 12
_SHOWN = 4
_VISIBLE = 0.01  # share of the gap
_PATTERNS = (
    "previous_token",
    "duplicate_token",
    "induction",
    "s_inhibition",
    "name_mover",
    "first_token",
    "positional",
    "syntactic",
)


def head_table(result: Result, truth: Mapping[str, Any] | None = None) -> tuple[str, list[dict[str, object]]]:
    """A title and one row per head worth showing: named heads, those of the known circuit, then the largest effects.

    Args:
        result: of `HeadRoles`.
        truth: the model's known circuit (``nodes`` with ``node`` and ``role``), if it has one; adds a column that
            says which of its heads were found.

    Returns:
        Title and rows, ready for a terminal or a page.
    """
    known = {node["node"]: node["role"] for node in (truth or {}).get("nodes", []) if ".h" in node["node"]}
    role = result.data["role"].values
    effect = np.maximum(np.abs(result.data["effect"].values), np.abs(result.data["effect_noise"].values))
    order = sorted(
        np.ndindex(effect.shape), key=lambda place: (not role[place], _node(place) not in known, -effect[place])
    )
    worth = [place for place in order if role[place] or _node(place) in known or effect[place] >= _VISIBLE]
    named = sum(bool(role[place]) or _node(place) in known for place in worth)
    rows = [_row(result, place, known if truth else None) for place in worth[: max(_MOST, named)]]
    name = result.info.model.get("name")
    if not known:
        return f"Heads of {name}, as found", rows
    found = sum(row["circuit"] == "found" for row in rows)
    extra = sum(row["circuit"] == "-" and bool(row["role"]) for row in rows)
    more = f"; {extra} more earned a name" if extra else ""
    return f"Heads of {name}: {found} of {len(known)} {(truth or {}).get('kind', 'known')} heads found{more}", rows


def census(result: Result) -> tuple[str, list[dict[str, object]]]:
    """A title and one row per pattern: how many heads follow it, how many of them matter, and which follow it most.

    Args:
        result: of `HeadRoles`; its thresholds say what counts.
    """
    data, settings = result.data, result.info.method
    least, enough = float(str(settings["attention"])), float(str(settings["effect"]))
    effect = np.maximum(np.abs(data["effect"].values), np.abs(data["effect_noise"].values))
    rows: list[dict[str, object]] = []
    for name in (one for one in _PATTERNS if one in data):
        scores = data[name].values
        following = sorted(zip(*np.nonzero(scores >= least), strict=True), key=lambda place: -scores[place])
        shown = [f"{layer}.{head} {scores[layer, head]:.2f}" for layer, head in following[:_SHOWN]]
        rows.append(
            {
                "pattern": words(name),
                "heads": len(following),
                "of them with an effect": sum(bool(effect[place] >= enough) for place in following),
                "strongest": ", ".join(shown) + (" ..." if len(following) > _SHOWN else ""),
            }
        )
    return f"What {effect.size} heads look at (attention >= {least:g}; effect >= {enough:g} of the gap)", rows


def _node(place: tuple[int, ...]) -> str:
    return f"a{place[0]}.h{place[1]}"


def _row(result: Result, place: tuple[int, ...], known: Mapping[str, str] | None) -> dict[str, object]:
    data = result.data
    row: dict[str, object] = {"head": f"{place[0]}.{place[1]}", "role": str(data["role"].values[place])}
    if known is not None:
        expected = known.get(_node(place), "")
        hit = expected in str(row["role"]).split(", ")
        row["circuit"] = "-" if not expected else "found" if hit else f"MISSED {expected}"
    row["restores"] = float(data["effect"].values[place])
    row["removes"] = float(data["effect_noise"].values[place])
    row["looks at"] = words(str(data["attends_to"].values[place])) or "-"
    row["attention"] = max(float(data[name].values[place]) for name in _PATTERNS if name in data)
    if "copying" in data:
        row["copies"] = float(data["copying"].values[place])
    return row
