"""Tables of head roles: the heads, compared with the known circuit if there is one, and a census of patterns."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mechxai.core.result import Result
from mechxai.figures.text import words

_MAX_HEADS = 12
_LISTED = 4  # heads per pattern in the census
_MIN_EFFECT = 0.01  # share of the gap
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
    """A title and one row per head: heads with a role, heads of the known circuit, then those with the largest effect.

    Args:
        result: of `HeadRoles`.
        truth: the model's known circuit (``nodes`` with ``node`` and ``role``), if there is one; adds a column that
            tells which of its heads were found.

    Returns:
        Title and rows.
    """
    known = {node["node"]: node["role"] for node in (truth or {}).get("nodes", []) if ".h" in node["node"]}
    role = result.data["role"].values
    effect = np.maximum(np.abs(result.data["effect"].values), np.abs(result.data["effect_noise"].values))
    order = sorted(
        np.ndindex(effect.shape), key=lambda place: (not role[place], _node(place) not in known, -effect[place])
    )
    places = [place for place in order if role[place] or _node(place) in known or effect[place] >= _MIN_EFFECT]
    n_named = sum(bool(role[place]) or _node(place) in known for place in places)
    rows = [_row(result, place, known if truth else None) for place in places[: max(_MAX_HEADS, n_named)]]
    name = result.info.model.get("name")
    if not known:
        return f"Heads of {name}", rows
    n_found = sum(row["circuit"] == "found" for row in rows)
    n_more = sum(row["circuit"] == "-" and bool(row["role"]) for row in rows)
    more = f"; {n_more} more have a role" if n_more else ""
    return f"Heads of {name}: {n_found} of {len(known)} {(truth or {}).get('kind', 'known')} heads found{more}", rows


def census(result: Result) -> tuple[str, list[dict[str, object]]]:
    """A title and one row per pattern: heads that follow it, those of them with an effect, and the strongest.

    Args:
        result: of `HeadRoles`, with its thresholds.
    """
    data, settings = result.data, result.info.method
    min_attention, min_effect = float(str(settings["attention"])), float(str(settings["effect"]))
    effect = np.maximum(np.abs(data["effect"].values), np.abs(data["effect_noise"].values))
    rows: list[dict[str, object]] = []
    for name in (pattern for pattern in _PATTERNS if pattern in data):
        scores = data[name].values
        following = sorted(zip(*np.nonzero(scores >= min_attention), strict=True), key=lambda place: -scores[place])
        listed = [f"{layer}.{head} {scores[layer, head]:.2f}" for layer, head in following[:_LISTED]]
        rows.append(
            {
                "pattern": words(name),
                "heads": len(following),
                "with an effect": sum(bool(effect[place] >= min_effect) for place in following),
                "strongest": ", ".join(listed) + (" ..." if len(following) > _LISTED else ""),
            }
        )
    limits = f"attention >= {min_attention:g}; effect >= {min_effect:g} of the gap"
    return f"Attention patterns of {effect.size} heads ({limits})", rows


def _node(place: tuple[int, ...]) -> str:
    return f"a{place[0]}.h{place[1]}"


def _row(result: Result, place: tuple[int, ...], known: Mapping[str, str] | None) -> dict[str, object]:
    data = result.data
    row: dict[str, object] = {"head": f"{place[0]}.{place[1]}", "role": str(data["role"].values[place])}
    if known is not None:
        expected = known.get(_node(place), "")
        is_found = expected in str(row["role"]).split(", ")
        row["circuit"] = "-" if not expected else "found" if is_found else f"MISSED {expected}"
    row["restores"] = float(data["effect"].values[place])
    row["removes"] = float(data["effect_noise"].values[place])
    row["attends to"] = words(str(data["attends_to"].values[place])) or "-"
    row["attention"] = max(float(data[name].values[place]) for name in _PATTERNS if name in data)
    if "copying" in data:
        row["copies"] = float(data["copying"].values[place])
    return row
