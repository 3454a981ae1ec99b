"""A circuit in plain words, every sentence with its number: from results on one model and task."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mechxai.core.result import Result
from mechxai.figures.text import number, words

# What a role's attention goes from and to, and what the head does there.
_LOOKS = {
    "duplicate_token": ("S2", "S1"),
    "s_inhibition": ("END", "S2"),
    "name_mover": ("END", "IO"),
    "negative_name_mover": ("END", "IO"),
    "previous_token": ("each token", "the one before"),
    "induction": ("a repeated token", "the one after its first occurrence"),
    "first_token": ("each token", "the first"),
}
_DOES = {
    "name_mover": ("copying", "writes the name it looks at"),
    "negative_name_mover": ("suppressing", "writes against the name it looks at"),
    "s_inhibition": ("s_inhibition_path", "reaches the name movers' queries"),
}
_MOST_HEADS, _MOST_EDGES = 12, 3
_MEASURED = ("edge_patching", "path_patching", "edge_attribution")  # edges, the exact ones first


def circuit_account(results: Iterable[Result]) -> list[str]:
    """What the results say of a circuit, a sentence each; empty without roles of heads.

    Args:
        results: of one model and task: `HeadRoles`, which names the heads; scores of edges, exact ones preferred;
            `EvaluateCircuit`, `CircuitStability`, `CircuitTests`, `CircuitCriteria`, as far as they are there.
    """
    known = {str(result.info.method.get("name")): result for result in results}
    if "head_roles" not in known:
        return []
    edges = next((known[name] for name in _MEASURED if name in known), None)
    found = list(_heads(known["head_roles"], edges))
    for name, said in _SAID.items():
        if name in known:
            found += said(known[name].data)
    return found


def _heads(roles: Result, edges: Result | None) -> Iterator[str]:
    """Each head with a role, the largest effect first, and the edges that carry most from and to it.

    Yields:
        Sentences.
    """
    data = roles.data
    effect = np.maximum(np.abs(data["effect"].values), np.abs(data["effect_noise"].values))
    named = [place for place in np.ndindex(effect.shape) if str(data["role"].values[place])]
    named.sort(key=lambda place: -effect[place])
    if not named:
        yield "No head earned a role: none both follows a known pattern and changes the metric when it is patched."
    for place in named[:_MOST_HEADS]:
        yield from _head(data, _Head(*place), edges)
    if len(named) > _MOST_HEADS:
        yield f"{len(named) - _MOST_HEADS} more heads have a role."


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
    source, target = _LOOKS.get(role, ("", ""))
    own = words(str(data["attends_to"].values[place]))
    free = f"follows the relation {own}" if role == "syntactic" else f"looks {own}"
    looks = f"attends from {source} to {target}" if source else free
    said = f"Head {head.layer}.{head.head} {looks} ({float(data[pattern].values[place]):.2f} of its attention)"
    score, does = _DOES.get(role, ("", ""))
    if score in data:
        said += f" and {does} ({float(data[score].values[place]):.2f})"
    restored, removed = (float(data[name].values[place]) for name in ("effect", "effect_noise"))
    article = "an" if role[0] in "aeiou" or role.startswith("s_") else "a"
    yield (
        f"{said}: {article} {words(role)} head. Patching it restores {restored:.0%} of the gap between the prompts, "
        f"and taking it away removes {removed:.0%}."
    )
    if edges is not None:
        yield from _edges(edges, head)


def _edges(edges: Result, head: _Head) -> Iterator[str]:
    """What the head reads and who reads it, by the edges that carry most.

    Yields:
        A sentence, where an edge of it matters.
    """
    data = edges.data
    values = np.nan_to_num(data["value"].values)
    largest = np.abs(values).max(initial=0.0)
    exact = "" if str(edges.info.method.get("name")) != "edge_attribution" else ", to first order"
    src, dest = (data[end].values.astype(str) for end in ("src", "dest"))
    into = np.array([name.startswith(f"{head.node}.") for name in dest])
    for mask, verb in ((into, "It reads"), (src == head.node, "It writes to")):
        ranked = np.argsort(-np.abs(values)).tolist()
        order = [at for at in ranked if mask[at] and abs(values[at]) > 0.02 * largest]
        if order:
            unit = str(data["value"].attrs.get("units", ""))
            parts = [_edge(data, at, into=mask is into, unit=unit) for at in order[:_MOST_EDGES]]
            yield f"{verb} {'; '.join(parts)}{exact}."


def _edge(data: xr.Dataset, at: int, *, into: bool, unit: str) -> str:
    src, dest = str(data["src"].values[at]), str(data["dest"].values[at])
    part = {"q": "query", "k": "key", "v": "value"}.get(dest.rpartition(".")[2], "")
    other = src if into else dest.removesuffix(f".{dest.rpartition('.')[2]}") if part else dest
    by = f" by its {part}" if part and into else f", its {part}" if part else ""
    said = f"{_node(other)}{by} ({number(float(data['value'].values[at]), unit)}"
    if "value_low" in data:
        low, high = (number(float(data[f"value_{end}"].values[at]), "") for end in ("low", "high"))
        said += f", 95 % {low} to {high}"
    return said + ")"


def _node(name: str) -> str:
    """A node in words."""
    if name in ("embed", "logits"):
        return {"embed": "the embedding", "logits": "the logits"}[name]
    if name.startswith("m"):
        return f"MLP {name[1:]}"
    layer, _, rest = name[1:].partition(".")
    return f"{'head' if rest.startswith('h') else 'the keys and values of group'} {layer}.{rest[1:]}"


def _evaluated(data: xr.Dataset) -> list[str]:
    faithful = data["faithfulness"].values
    enough = np.nonzero(faithful >= 0.9)[0]
    at = int(enough[0]) if len(enough) else int(np.nanargmax(faithful))
    low, high = (float(data[f"faithfulness_{end}"].values[at]) for end in ("low", "high"))
    chance = float(data["random_faithfulness"].values[at].mean().round(2)) + 0.0 if data.sizes["draw"] else np.nan
    said = (
        f"Alone, {int(data['n_edges'].values[at])} of {data.sizes['edge']:,} edges bring {faithful[at]:.0%} (95 % "
        f"{low:.0%} to {high:.0%}) of the gap on prompts they were not found on; random circuits of that size bring "
        f"{chance:.0%}."
    )
    if "auroc" not in data:
        return [said]
    return [said, f"Against the circuit that is known, the scores have an AUROC of {float(data['auroc']):.2f}."]


def _stable(data: xr.Dataset) -> list[str]:
    return [
        f"Found on other draws of the prompts, {float(data['jaccard'].mean()):.0%} of the chosen edges are the same "
        f"(on two halves {float(data['halves_jaccard'].mean()):.0%}, by chance {float(data['jaccard_chance']):.0%})."
    ]


def _tested(data: xr.Dataset) -> list[str]:
    p = {str(name): float(data["p"].sel(test=name)) for name in data["test"].values}
    against = [words(name) for name in ("equivalence", "independence") if p.get(name, 1.0) < 0.05]
    lacking = [words(name) for name in ("sufficiency", "necessity", "minimality") if p.get(name, 0.0) >= 0.05]
    said = ", ".join(f"{words(name)} p = {value:.3g}" for name, value in p.items())
    verdict = (
        f"What counts against the circuit: {', '.join([*against, *lacking])}" if against or lacking else "It passes"
    )
    return [f"{verdict} ({said})."]


def _judged(data: xr.Dataset) -> list[str]:
    worst = int(np.nanargmax(data["incomplete"].values))
    least = int(np.nanargmin(data["missed"].values))
    apart, chance = float(data["incomplete"].values[worst]), float(data["incomplete_random"].mean())
    gone = ", ".join(map(_node, str(data["set"].values[worst]).replace("greedy: ", "").split(", ")))
    return [
        f"Without {gone}, circuit and model are {apart:.0%} of the gap apart (random circuits "
        f"{chance:.0%}); the node that is needed least, {_node(str(data['node'].values[least]))}, changes "
        f"{float(data['missed'].values[least]):.0%} of it."
    ]


_SAID = {
    "evaluate_circuit": _evaluated,
    "circuit_stability": _stable,
    "circuit_criteria": _judged,
    "circuit_tests": _tested,
}
