"""Sentences on the evaluation of a circuit, each with its numbers, and nodes in words."""

import numpy as np
import xarray as xr

from mechxai.figures.text import words

_SIGNIFICANT = 0.05
_FAITHFUL = 0.9


def node_in_words(name: str) -> str:
    """A node's name in words: ``a2.h1`` is ``head 2.1``, ``m0`` is ``MLP 0``."""
    if name in ("embed", "logits"):
        return {"embed": "the embedding", "logits": "the logits"}[name]
    if name.startswith("m"):
        return f"MLP {name[1:]}"
    layer, _, rest = name[1:].partition(".")
    return f"{'head' if rest.startswith('h') else 'the keys and values of group'} {layer}.{rest[1:]}"


def curve_sentences(data: xr.Dataset) -> list[str]:
    """The smallest circuit that is 90 % faithful (or the most faithful one), compared with random circuits.

    Args:
        data: of `EvaluateCircuit`.
    """
    faithfulness = data["faithfulness"].values
    enough = np.nonzero(faithfulness >= _FAITHFUL)[0]
    at = int(enough[0]) if len(enough) else int(np.nanargmax(faithfulness))
    low, high = (float(data[f"faithfulness_{end}"].values[at]) for end in ("low", "high"))
    chance = float(data["random_faithfulness"].values[at].mean().round(2)) + 0.0 if data.sizes["draw"] else np.nan
    sentence = (
        f"On held-out prompts, {int(data['n_edges'].values[at])} of {data.sizes['edge']:,} edges alone recover "
        f"{faithfulness[at]:.0%} (95 % {low:.0%} to {high:.0%}) of the gap; random circuits of that size recover "
        f"{chance:.0%}."
    )
    if "auroc" not in data:
        return [sentence]
    return [sentence, f"Against the known circuit, the scores have an AUROC of {float(data['auroc']):.2f}."]


def stability_sentences(data: xr.Dataset) -> list[str]:
    """The overlap of circuits found on resampled prompts.

    Args:
        data: of `CircuitStability`.
    """
    return [
        f"On resampled prompts, {float(data['jaccard'].mean()):.0%} of the selected edges are the same (on two halves "
        f"{float(data['halves_jaccard'].mean()):.0%}, by chance {float(data['jaccard_chance']):.0%})."
    ]


def criteria_sentences(data: xr.Dataset) -> list[str]:
    """The knockout on which circuit and model differ most, and the least necessary node.

    Args:
        data: of `CircuitCriteria`.
    """
    worst = int(np.nanargmax(data["incomplete"].values))
    least = int(np.nanargmin(data["missed"].values))
    difference, chance = float(data["incomplete"].values[worst]), float(data["incomplete_random"].mean())
    names = str(data["set"].values[worst]).replace("greedy: ", "").split(", ")
    return [
        f"Without {', '.join(map(node_in_words, names))}, circuit and model differ by {difference:.0%} of the gap "
        f"(random circuits {chance:.0%}). The least necessary node, {node_in_words(str(data['node'].values[least]))}, "
        f"changes {float(data['missed'].values[least]):.0%} of it."
    ]


def hypothesis_sentences(data: xr.Dataset) -> list[str]:
    """The p-values of the hypothesis tests and the tests that the circuit fails.

    Args:
        data: of `CircuitTests`.
    """
    p = {str(name): float(data["p"].sel(test=name)) for name in data["test"].values}
    rejected = [words(name) for name in ("equivalence", "independence") if p.get(name, 1.0) < _SIGNIFICANT]
    unsupported = [
        words(name) for name in ("sufficiency", "necessity", "minimality") if p.get(name, 0.0) >= _SIGNIFICANT
    ]
    failed = ", ".join([*rejected, *unsupported])
    values = ", ".join(f"{words(name)} p = {value:.3g}" for name, value in p.items())
    return [f"{f'The circuit fails the tests of {failed}' if failed else 'The circuit passes all tests'} ({values})."]
