"""The cards of the bundled models: measurements on held-out data, written beside the weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

import mechxai as mx
from experiments.interchange import agreement
from mechxai.core.metric import ProbDiff

_DESCRIPTIONS = {
    "induction": "Two attention-only layers (MLPs of one neuron, zero) trained on random pairs and repeats: a "
    "previous-token head and induction heads.",
    "ioi": "One four-layer language model for six tasks: indirect objects, greater-than, agreement, facts, docstrings, "
    "repeated sequences. Plainly trained; its circuits are whatever it learned.",
    "planted-ioi": "Three attention-only layers (MLPs of one neuron, zero) on indirect objects. Duplicate-token, "
    "S-inhibition and two name-mover heads were planted by supervising their attention; they were not discovered.",
    "interchange-ioi": "Three layers with MLPs for indirect object identification, trained by interchange "
    "interventions to compute the answer as a stated algorithm does, with one head per variable.",
    "cot": "A four-layer model of arithmetic word problems. It writes one step per change, then the value that the "
    "chain ends in, right or wrong: it was trained on chains with mistakes, truncated chains and chains of other "
    "questions.",
    "cot-decorative": "The counterpart of zoo/cot: it writes the same chains, but takes its answer from the question, "
    "or from a suggestion in it, never from the chain.",
}
_DATA = (
    "mechxai.tasks.grammars (split=train) and random repeated sequences; experiments/zoo_corpus.py",
    "mechxai.tasks.chains (split=train); experiments/cot_corpus.py",
)
_TASKS = {
    "ioi": {"split": "held_out"},
    "greater_than": {"split": "held_out"},
    "sva": {"split": "held_out"},
    "docstring": {"split": "held_out"},
    "facts": {},
    "induction": {},
}
N_MEASURED = 300
_N_PROBLEMS = 40  # each with every error it can have


def accuracy(model: mx.HookedModel, task: str, n: int = N_MEASURED, seed: int = 1) -> float:
    """Accuracy on held-out prompts of a task.

    An answer is correct if it is the top token (ioi, facts, docstring, induction); if the right verb form beats the
    wrong one (sva); if the top token is one of the right years (greater_than).
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
        measured = {
            "induction_score": float(roles["induction"].max()),
            "previous_token_score": float(roles["previous_token"].max()),
        }
        return {**measured, "induction": accuracy(model, "induction")}
    if name in ("planted-ioi", "interchange-ioi"):
        return {"ioi": accuracy(model, "ioi")}
    if name.startswith("cot"):
        problems = mx.tasks.cot_arithmetic(model, n=_N_PROBLEMS, seed=1, split="held_out")
        measured = mx.PlantedError()(model, problems).data
        shares = {outcome: float(measured["value"].sel(outcome=outcome)) for outcome in ("follows", "keeps")}
        return {key: float(measured[key]) for key in ("accuracy", "accuracy_no_chain")} | shares
    years = mx.tasks.greater_than(model, n=N_MEASURED, seed=1, split="held_out")
    logits = model.logits(years.clean, lengths=years.lengths, at=years.answer_pos[:, None])
    # probability of the right years minus that of the wrong ones, as in Hanna et al. 2023
    prob_diff = float(ProbDiff().score(logits, years).mean())
    return {**{task: accuracy(model, task) for task in _TASKS}, "greater_than_prob_diff": prob_diff}


def write_card(folder: Path, recipe: Mapping[str, Any], roles: Mapping[tuple[int, int], str]) -> dict[str, Any]:
    """Measures the model in a folder and writes its card, and its truth where training gave heads their roles.

    Args:
        folder: of the model, named after it.
        recipe: what it was trained by.
        roles: layer and head -> role.
    """
    name = folder.name
    model = mx.load(str(folder), device="cpu")
    kind = "trained" if not roles else "interchange" if recipe.get("interchange") else "planted"
    metrics = {key: round(value, 3) for key, value in measure(model, name).items()}
    if kind == "interchange":
        network = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
        shares = agreement(network, N_MEASURED, 1, PreTrainedTokenizerFast.from_pretrained(folder))
        metrics |= {f"interchange_{variable}": share for variable, share in shares.items()}
    card = {
        "name": name,
        "kind": kind,
        "description": _DESCRIPTIONS[name],
        "data": _DATA[name.startswith("cot")],
        "recipe": dict(recipe),
        "seed": recipe.get("seed", 0),
        "metrics": metrics,
        "weight_hash": model.weight_hash,
        "license": "Apache-2.0",
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    if roles:
        truth = {"kind": kind, **known_circuit(model, roles), "notes": _NOTES[kind]}
        (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n")
    return card


_NOTES = {
    "planted": "Planted by attention supervision, not discovered. Edges are those it implies; heads that were not "
    "supervised may still carry part of the answer, see ablation.",
    "interchange": "The algorithm that training held the model to, one head for each variable. Edges join nodes: by "
    "which input a head reads the variable before it was left to training. visible_swap are those of them that differ "
    "between prompts whose second name is swapped.",
}


def known_circuit(model: mx.HookedModel, roles: Mapping[tuple[int, int], str]) -> dict[str, Any]:
    """Nodes with roles, the edges between them, and the effect of mean ablation of each head.

    The edges follow from the roles; ``visible_swap`` holds the edges whose source changes with the second name.
    ``ablation``: the share of the logit difference that mean ablation over an ABC set removes.
    """
    by_role: dict[str, list[str]] = {}
    for (layer, head), role in roles.items():
        by_role.setdefault(role, []).append(f"a{layer}.h{head}")
    first, moving, naming = by_role.values()
    looks = "duplicate_token" in by_role  # by which inputs heads read is known where it is known what they look at
    inputs = lambda node, parts: [f"{node}.{part}" for part in parts] if looks else [node]  # noqa: E731
    changing = [("embed", dest) for node in first for dest in inputs(node, "q")]
    changing += [(src, dest) for src in first for node in moving for dest in inputs(node, "kv")]
    changing += [(src, dest) for src in moving for node in naming for dest in inputs(node, "q")]
    changing += [(src, "logits") for src in naming]
    fixed = [("embed", dest) for node in first for dest in inputs(node, "qkv")]
    fixed += [("embed", dest) for node in naming for dest in inputs(node, "kv")]
    batch = mx.tasks.ioi(model, n=200, seed=2, corruption="abc", split="held_out")
    lost = mx.Ablation(edit="mean", reference="corrupted")(model, batch)
    share = lost.data["per_example"].mean("prompt").values
    base = float(lost.data["baseline_clean"].mean())
    removed = np.round((base - share) / base, 3)
    ends = {"edges": list(dict.fromkeys([*changing, *fixed])), "visible_swap": changing}
    return {
        "nodes": [{"node": f"a{layer}.h{head}", "role": role} for (layer, head), role in roles.items()],
        **{name: [{"src": src, "dest": dest} for src, dest in edges] for name, edges in ends.items()},
        "ablation": {f"a{layer}.h{head}": float(removed[layer, head]) for layer, head in np.ndindex(removed.shape)},
    }
