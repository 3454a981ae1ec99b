"""A circuit in words, every sentence with its number, from the results of several methods on one model and task."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mechxai.core.result import Result
from mechxai.figures.text import number, words
from mechxai.report.by_kind import REPORTS
from mechxai.report.circuit_sentences import node_in_words

# Role -> the source and target of its attention.
_ATTENDS = {
    "duplicate_token": ("S2", "S1"),
    "s_inhibition": ("END", "S2"),
    "name_mover": ("END", "IO"),
    "negative_name_mover": ("END", "IO"),
    "previous_token": ("each token", "the previous one"),
    "induction": ("a repeated token", "the token after its first occurrence"),
    "first_token": ("each token", "the first"),
}
# Role -> the score of its function, and the function in words.
_FUNCTIONS = {
    "name_mover": ("copying", "writes the name it attends to"),
    "negative_name_mover": ("suppressing", "writes against the name it attends to"),
    "s_inhibition": ("s_inhibition_path", "affects the name movers' queries"),
}
_MAX_HEADS, _MAX_EDGES = 12, 3
_SMALLEST = 0.02  # of the largest edge score; smaller scores are not mentioned
_EDGE_METHODS = ("edge_patching", "path_patching", "edge_attribution")  # exact scores first


def circuit_account(results: Iterable[Result]) -> list[str]:
    """Describes a circuit in sentences; empty without head roles.

    Args:
        results: on one model and task: `HeadRoles`, which names the heads; edge scores, of which exact ones are
            preferred; `EvaluateCircuit`, `CircuitStability`, `CircuitTests` and `CircuitCriteria`, if available.
    """
    available = list(results)
    by_kind = {result.info.kind: result for result in available}
    if "head_roles" not in by_kind:
        return []
    edges = {str(result.info.method.get("name")): result for result in available if result.info.kind == "edges"}
    edge_scores = next((edges[name] for name in _EDGE_METHODS if name in edges), None)
    sentences = list(_heads(by_kind["head_roles"], edge_scores))
    for kind, entry in REPORTS.items():
        if kind in by_kind and entry.circuit_sentences is not None:
            sentences += entry.circuit_sentences(by_kind[kind].data)
    return sentences


def _heads(roles: Result, edges: Result | None) -> Iterator[str]:
    """Describes each head with a role, largest effect first, and its strongest edges.

    Yields:
        Sentences.
    """
    data = roles.data
    effect = np.maximum(np.abs(data["effect"].values), np.abs(data["effect_noise"].values))
    with_role = [place for place in np.ndindex(effect.shape) if str(data["role"].values[place])]
    with_role.sort(key=lambda place: -effect[place])
    if not with_role:
        yield "No head has a role: none both follows a known attention pattern and changes the metric when patched."
    for place in with_role[:_MAX_HEADS]:
        yield from _head(data, _Head(*place), edges)
    if len(with_role) > _MAX_HEADS:
        yield f"{len(with_role) - _MAX_HEADS} more heads have a role."


@dataclass(frozen=True)
class _Head:
    layer: int
    head: int

    @property
    def node(self) -> str:
        return f"a{self.layer}.h{self.head}"


def _head(data: xr.Dataset, head: _Head, edges: Result | None) -> Iterator[str]:
    place = (head.layer, head.head)
    role = str(data["role"].values[place]).split(", ")[0]
    pattern = "name_mover" if role == "negative_name_mover" else role
    attention = _attention(role, words(str(data["attends_to"].values[place])))
    sentence = f"Head {head.layer}.{head.head} {attention} ({float(data[pattern].values[place]):.2f} of its attention)"
    score, function = _FUNCTIONS.get(role, ("", ""))
    if score in data:
        sentence += f" and {function} ({float(data[score].values[place]):.2f})"
    restored, removed = (float(data[name].values[place]) for name in ("effect", "effect_noise"))
    article = "an" if role[0] in "aeiou" or role.startswith("s_") else "a"
    yield (
        f"{sentence}: {article} {words(role)} head. Patching it into the corrupted run restores {restored:.0%} of the "
        f"gap between the prompts; corrupting it in the clean run removes {removed:.0%}."
    )
    if edges is not None:
        yield from _edges(edges, head)


def _attention(role: str, strongest_pattern: str) -> str:
    """The head's attention as a verb phrase."""
    if role in _ATTENDS:
        source, target = _ATTENDS[role]
        return f"attends from {source} to {target}"
    if role == "syntactic":
        return f"follows the relation {strongest_pattern}"
    return f"attends {strongest_pattern}" if strongest_pattern.endswith("back") else f"attends to {strongest_pattern}"


def _edges(edges: Result, head: _Head) -> Iterator[str]:
    """Describes the strongest edges into and out of the head.

    Yields:
        A sentence per direction with edges of relevant size.
    """
    data = edges.data
    values = np.nan_to_num(data["value"].values)
    largest = np.abs(values).max(initial=0.0)
    estimate = ", to first order" if str(edges.info.method.get("name")) == "edge_attribution" else ""
    src, dest = (data[end].values.astype(str) for end in ("src", "dest"))
    into = np.array([name.startswith(f"{head.node}.") for name in dest])
    for mask, verb in ((into, "It reads"), (src == head.node, "It writes to")):
        ranked = np.argsort(-np.abs(values)).tolist()
        order = [at for at in ranked if mask[at] and abs(values[at]) > _SMALLEST * largest]
        if order:
            unit = str(data["value"].attrs.get("units", ""))
            parts = [_edge(data, at, into=mask is into, unit=unit) for at in order[:_MAX_EDGES]]
            yield f"{verb} {'; '.join(parts)}{estimate}."


def _edge(data: xr.Dataset, at: int, *, into: bool, unit: str) -> str:
    src, dest = str(data["src"].values[at]), str(data["dest"].values[at])
    part = {"q": "query", "k": "key", "v": "value"}.get(dest.rpartition(".")[2], "")
    other = src if into else dest.removesuffix(f".{dest.rpartition('.')[2]}") if part else dest
    through = f" through its {part}" if part and into else f", its {part}" if part else ""
    text = f"{node_in_words(other)}{through} ({number(float(data['value'].values[at]), unit)}"
    if "value_low" in data:
        low, high = (number(float(data[f"value_{end}"].values[at]), "") for end in ("low", "high"))
        text += f", 95 % {low} to {high}"
    return text + ")"
