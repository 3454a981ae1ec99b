"""What a bundled model can do, measured on what it has not seen, and written beside its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import mechxai as mx
from mechxai.core.metric import ProbDiff

_DESCRIPTIONS = {
    "induction": "Two attention-only layers (MLPs of one neuron, zero) trained on random pairs and repeats: a "
    "previous-token head and induction heads.",
    "ioi": "One four-layer language model for six tasks: indirect objects, greater-than, agreement, facts, docstrings, "
    "repeated sequences. Plainly trained; its circuits are whatever it learned.",
    "planted-ioi": "Three attention-only layers (MLPs of one neuron, zero) on indirect objects. Duplicate-token, "
    "S-inhibition and two name-mover heads were planted by supervising their attention; they were not discovered.",
}
_ROLES = {("S2", "S1"): "duplicate_token", ("END", "S2"): "s_inhibition", ("END", "IO"): "name_mover"}
_TASKS = {
    "ioi": {"split": "held_out"},
    "greater_than": {"split": "held_out"},
    "sva": {"split": "held_out"},
    "docstring": {"split": "held_out"},
    "facts": {},
    "induction": {},
}
N_MEASURED = 300


def accuracy(model: mx.HookedModel, task: str, n: int = N_MEASURED, seed: int = 1) -> float:
    """Share of held-out prompts of a task that the model gets right.

    Right is: the answer is the top token (ioi, facts, docstring, induction); the right verb form beats the wrong one
    (sva); the top token is one of the right years (greater_than).
    """
    batch = getattr(mx.tasks, task)(model, n=n, seed=seed, **_TASKS[task])
    logits = model.logits(batch.clean, lengths=batch.lengths, at=batch.answer_pos[:, None])
    answers, wrong = batch.answers[..., 0], batch.wrong[..., 0]
    if task == "sva":
        final = logits[:, 0]
        return float((final.gather(1, answers[:, :1]) > final.gather(1, wrong[:, :1])).double().mean())
    return float((logits[:, 0].argmax(-1)[:, None] == answers).any(1).double().mean())


def measure(model: mx.HookedModel, name: str) -> dict[str, float]:
    """The numbers of a card."""
    if name == "induction":
        roles = mx.HeadRoles()(model, mx.tasks.induction(model, n=32)).data
        found = {
            "induction_score": float(roles["induction"].max()),
            "previous_token_score": float(roles["previous_token"].max()),
        }
        return {**found, "induction": accuracy(model, "induction")}
    if name == "planted-ioi":
        return {"ioi": accuracy(model, "ioi")}
    years = mx.tasks.greater_than(model, n=N_MEASURED, seed=1, split="held_out")
    logits = model.logits(years.clean, lengths=years.lengths, at=years.answer_pos[:, None])
    # probability of the right years minus that of the wrong ones, as in Hanna et al. 2023
    prob_diff = float(ProbDiff().score(logits, years).mean())
    return {**{task: accuracy(model, task) for task in _TASKS}, "greater_than_prob_diff": prob_diff}


def write_card(
    folder: Path, recipe: Mapping[str, Any], planted: Mapping[tuple[int, int], tuple[str, str]] | None
) -> dict[str, Any]:
    """Measures the model in a folder and writes its card, and its truth where a circuit was planted."""
    name = folder.name
    model = mx.load(str(folder), device="cpu")
    card = {
        "name": name,
        "kind": "planted" if planted else "trained",
        "description": _DESCRIPTIONS[name],
        "data": "mechxai.tasks.grammars (split=train) and random repeated sequences; experiments/zoo_corpus.py",
        "recipe": dict(recipe),
        "seed": recipe.get("seed", 0),
        "metrics": {key: round(value, 3) for key, value in measure(model, name).items()},
        "weight_hash": model.weight_hash,
        "license": "Apache-2.0",
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    if planted:
        (folder / "truth.json").write_text(json.dumps(planted_truth(model, planted), indent=2) + "\n")
    return card


def planted_truth(model: mx.HookedModel, planted: Mapping[tuple[int, int], tuple[str, str]]) -> dict[str, Any]:
    """The planted circuit: nodes with roles, the edges between them, and what mean ablation of each node costs.

    The edges are those the supervised attention implies; further edges and heads may carry part of the answer, and
    ``ablation`` shows how much (share of the logit difference that mean ablation over an ABC set removes).
    """
    names = {place: f"a{place[0]}.h{place[1]}" for place in planted}
    by_role: dict[str, list[str]] = {}
    for place, ends in planted.items():
        by_role.setdefault(_ROLES[ends], []).append(names[place])
    edges = [("embed", f"{node}.{part}") for node in by_role["duplicate_token"] for part in "qkv"]
    edges += [
        (src, f"{dest}.{part}")
        for src in by_role["duplicate_token"]
        for dest in by_role["s_inhibition"]
        for part in "kv"
    ]
    edges += [(src, f"{dest}.q") for src in by_role["s_inhibition"] for dest in by_role["name_mover"]]
    edges += [("embed", f"{dest}.{part}") for dest in by_role["name_mover"] for part in "kv"]
    edges += [(src, "logits") for src in by_role["name_mover"]]
    batch = mx.tasks.ioi(model, n=200, seed=2, corruption="abc", split="held_out")
    lost = mx.Ablation(edit="mean", reference="corrupted")(model, batch)
    share = lost.data["per_example"].mean("prompt").values
    base = float(lost.data["baseline_clean"].mean())
    removed = np.round((base - share) / base, 3)
    return {
        "kind": "planted",
        "nodes": [{"node": names[place], "role": _ROLES[ends]} for place, ends in planted.items()],
        "edges": [{"src": src, "dest": dest} for src, dest in edges],
        "ablation": {f"a{layer}.h{head}": float(removed[layer, head]) for layer, head in np.ndindex(removed.shape)},
        "notes": "Planted by attention supervision, not discovered. Edges are those it implies; heads that "
        "were not supervised may still carry part of the answer, see ablation.",
    }
