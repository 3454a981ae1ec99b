"""The heads of a `head_roles` result as a table, beside the known circuit where there is one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mechxai.core.result import Result

_MOST = 12


def head_table(result: Result, truth: Mapping[str, Any] | None = None) -> tuple[str, list[dict[str, object]]]:
    """A title and one row per head worth showing: named heads, those of the known circuit, then the largest effects.

    Args:
        result: of `HeadRoles`.
        truth: the model's known circuit (``nodes`` with ``node`` and ``role``), if it has one; adds columns that say
            whether each of its heads was found.

    Returns:
        Title and rows, ready for a terminal or a page.
    """
    data = result.data
    known = {node["node"]: node["role"] for node in (truth or {}).get("nodes", []) if ".h" in node["node"]}
    effect = np.maximum(np.abs(data["effect"].values), np.abs(data["effect_noise"].values))
    role = data["role"].values
    order = sorted(np.ndindex(effect.shape), key=lambda place: (-bool(role[place]), -(_node(place) in known), -effect[place]))
    named = sum(bool(role[place]) or _node(place) in known for place in order)
    rows = [_row(result, place, known, truth is not None) for place in order[: max(_MOST, named)] if role[place] or _node(place) in known or effect[place] > 0.01]  # noqa: PLR2004 - below 1 % nothing to see
    if not known:
        return f"Heads of {result.info.model.get('name')}, as found", rows
    found = sum(row["found"] == "yes" for row in rows)
    kind = (truth or {}).get("kind", "known")
    extra = sum(row["found"] == "not in the circuit" and bool(row["role"]) for row in rows)
    more = f"; {extra} further head{'s' if extra != 1 else ''} earned a name" if extra else ""
    return f"Heads of {result.info.model.get('name')}: {found} of {len(known)} {kind} heads found{more}", rows


def _node(place: tuple[int, ...]) -> str:
    return f"a{place[0]}.h{place[1]}"


def _row(result: Result, place: tuple[int, ...], known: Mapping[str, str], has_truth: bool) -> dict[str, object]:  # noqa: FBT001
    data = result.data
    row: dict[str, object] = {"head": f"{place[0]}.{place[1]}", "role": str(data["role"].values[place])}
    if has_truth:
        expected = known.get(_node(place), "")
        row["true role"] = expected
        row["found"] = "not in the circuit" if not expected else "yes" if expected in str(row["role"]) else "NO"
    for name in ("effect", "effect_noise", "previous_token", "duplicate_token", "induction", "s_inhibition", "name_mover", "copying"):
        if name in data:
            row[name.replace("_", " ")] = round(float(data[name].values[place]), 2)
    return row
