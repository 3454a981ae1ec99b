"""Sentences of a report: the method, the figure and its strongest cell."""

from collections.abc import Mapping

from mechxai.figures.axes import TITLES
from mechxai.figures.cells import Cell
from mechxai.figures.headings import display_name
from mechxai.figures.selected_variable import SelectedVariable
from mechxai.figures.text import interval, number, words

# What an ablation does to an activation.
_EDITS = {
    "zero": "set to zero",
    "mean": "replaced by its mean over the {reference} prompts",
    "resample": "replaced by its value on another {reference} prompt",
    "noise": "perturbed by Gaussian noise",
}

# Method (and direction, where the sentence depends on it) -> what was done to get each number.
_METHODS = {
    "activation_patching": "The corrupted prompts were run with one activation of {site} at a time patched in from the "
    "clean run.",
    "activation_patching noise": "The clean prompts were run with one activation of {site} at a time patched in from "
    "the corrupted run.",
    "causal_tracing": "The subject's embeddings were corrupted with noise, and one activation of {site} at a time was "
    "restored to its clean value.",
    "ablation": "The clean prompts were run with one activation of {site} at a time {edit}.",
    "head_roles": "Each head was scored on the attention pattern of every role and patched to measure its effect; it "
    "gets a role only if both agree.",
    "logit_lens": "The model's final norm and unembedding were applied to {site} of every layer.",
    "linear_probes": "A {probe} probe was trained on {site} at every layer and position, with its regularisation "
    "chosen on validation prompts, and tested on held-out groups of prompts, as were its controls.",
    "probe_causal_check": "Probes were trained on {site}, and the clean runs of the test prompts were edited along the "
    "probes' directions, one layer at a time; edits of the same size along random directions are the control.",
    "saliency": "Each token's score is the gradient of the target's score with respect to its embedding.",
    "gradient_x_input": "Each token's score is the gradient of the target's score with respect to its embedding, times "
    "that embedding.",
    "smooth_grad": "The gradient of the target's score was averaged over noisy copies of the embeddings.",
    "integrated_gradients": "The gradient of the target's score was integrated along a straight line from a baseline "
    "({baseline}) to the prompt; the scores should sum to the change of the target's score along the line.",
    "occlusion": "One player at a time was replaced by a baseline ({baseline}), with all others unchanged.",
    "lime": "Random sets of players were replaced by a baseline ({baseline}), and a ridge regression was fitted to the "
    "target's scores.",
    "kernel_shap": "Sampled sets of players were replaced by a baseline ({baseline}), and Shapley values were "
    "estimated by regression.",
    "partition_shap": "Neighbouring players were replaced by a baseline ({baseline}) along a tree, which gives Owen "
    "values.",
    "exact_shapley": "Every set of players was replaced by a baseline ({baseline}), which gives exact Shapley values.",
    "attention_scores": "Each token's score is the attention it gets from the answer position; attention does not show "
    "whether a token is used.",
    "attention_rollout": "Attention was propagated through the layers from the answer position, including residual "
    "connections; attention does not show whether a token is used.",
    "faithfulness": "Players were removed and inserted in the order of their scores, and compared with random "
    "rankings; a faithful attribution makes the target's score fall fast on removal and rise fast on insertion.",
    "compare_attributions": "Every method was run on the same prompts, target and players, and evaluated by the same "
    "interventions against random rankings.",
    "rephrasing_stability": "One method was run on every rephrasing of a question, and its scores of the shared words "
    "were compared.",
    "attention_patterns": "The attention of every head was recorded in one forward pass; the attention pages hold all "
    "of it.",
    "acdc": "Edges were ablated one after the other, from the logits back ({reference} in their place), and stayed "
    "ablated if the loss rose by less than a threshold.",
    "attribution_patching": "The difference between the clean and the corrupted activation at {site} was multiplied by "
    "the gradient of the metric: a first-order estimate of the effect of patching.",
    "circuit_criteria": "Edges were ranked on some prompts. On other prompts, sets of nodes were ablated in the "
    "circuit of the highest-ranked edges and in the full model ({reference} in place of ablated edges), which shows "
    "what the circuit lacks and which of its nodes are unnecessary.",
    "circuit_stability": "The prompts were resampled, with replacement and in halves, and the highest-ranked edges "
    "were selected again.",
    "compare_circuits": "Every method ranked edges on half of the prompts. The circuits of the highest-ranked edges "
    "were run on the other half, and compared with random circuits and the known circuit.",
    "circuit_tests": "Edges were ranked on some prompts. On other prompts, the circuit of the highest-ranked edges was "
    "run alone, ablated, and run without each of its edges ({reference} in place of ablated edges), and compared with "
    "random circuits and detours.",
    "edge_attribution": "The difference between each node's output and its replacement ({reference}) was multiplied by "
    "the gradient of the metric at every input that reads it: a first-order estimate of the edge's effect.",
    "edge_pruning": "A gate on every edge ({reference} if closed) was trained, all at once, so that a given share of "
    "open gates reproduces the model's behaviour.",
    "edge_patching": "The clean prompts were run with one edge at a time patched: one input of a head or MLP reads one "
    "node's output from the corrupted run, and everything downstream is recomputed.",
    "edge_patching denoise": "The corrupted prompts were run with one edge at a time patched: one input of a head or "
    "MLP reads one node's output from the clean run, and everything downstream is recomputed.",
    "path_patching": "The clean prompts were run with one path at a time patched: the receiver's input responds to the "
    "sender's output from the corrupted run, and everything downstream of the receiver is recomputed.",
    "path_patching denoise": "The corrupted prompts were run with one path at a time patched: the receiver's input "
    "responds to the sender's output from the clean run, and everything downstream of the receiver is recomputed.",
    "information_flow_routes": "Edges were followed down from the last residual stream of one position; an edge is "
    "important if its vector is close to the sum it is added to. Nothing was edited, and a close vector need not have "
    "an effect.",
    "evaluate_circuit": "Edges were ranked on some prompts. On other prompts, the model was run with all but the "
    "highest-ranked edges ablated ({reference} in their place), and compared with random circuits of the same size.",
    "early_answering": "The model wrote a chain of thought, and gave its answer after increasing parts of it.",
    "adding_mistakes": "A mistake was inserted at each step of the model's chain in turn; the model continued the "
    "chain and gave its answer.",
    "paraphrasing": "The first steps of the model's chain were paraphrased; the model continued the chain and gave its "
    "answer.",
    "filler_tokens": "The model's chain was replaced by increasing numbers of filler tokens, and the model gave its "
    "answer.",
    "biasing_feature": "Each problem was given plainly and with a bias towards a wrong answer.",
    "planted_error": "The model's chain was cut at a step, the step was replaced by an erroneous one, and the model "
    "continued to its answer; the control continues from the correct step.",
    "self_consistency": "Several chains were sampled for each problem, and their answers voted.",
    "chain_flow": "Two problems with the same wording were run, and the activations at one part of the prompt were "
    "patched from one run into the other, at all layers together and at each layer alone.",
    "neuron_factors": "The activations of each prompt's MLP neurons were factored into groups that fire together, with "
    "negative activations counted as 0. The ablation sets the strongest neurons of a group to zero, compared with "
    "those of other groups and random neurons.",
    "direct_logit_attribution": "The logit difference was split into each component's write to the residual stream, "
    "with the final norm's scale held fixed; indirect effects through later components are not included.",
}


def method_sentence(method: Mapping[str, object]) -> str:
    """One sentence on how each number was obtained; empty for unknown methods.

    Args:
        method: `RunInfo.method`.
    """
    name = str(method.get("name"))
    text = _METHODS.get(f"{name} {method.get('direction')}") or _METHODS.get(name, "")
    reference = method.get("reference", "reference")
    site = method.get("site", "an activation")
    return text.format(
        site=", ".join(map(str, site)) if isinstance(site, (list, tuple)) else site,
        edit=_EDITS.get(str(method.get("edit")), "ablated").format(reference=reference),
        reference=reference,
        probe=words(str(method.get("probe"))),
        baseline=method.get("baseline"),
    )


def figure_sentence(selected: SelectedVariable) -> str:
    """One sentence on the variable in the figure and how to read it."""
    dims = " and ".join(TITLES.get(dim, words(dim)) for dim in selected.dims)
    text = f"The figure shows: {selected.long_name}" + (f", by {dims}" if dims else "")
    if selected.name == "recovered":
        return f"{text}. 0 is no effect, 1 the full gap between the clean and the corrupted run."
    if selected.center:
        return f"{text}. White is {number(selected.center, selected.unit)}, the run without the edit."
    return f"{text}."


def strongest_sentence(selected: SelectedVariable, strongest: list[Cell]) -> str:
    """One sentence on the strongest cell.

    Args:
        selected: the variable of the cells.
        strongest: cells, strongest first.
    """
    if not strongest:
        return "No cell has a value."
    first = strongest[0]
    label = f" ({first.label})" if first.label and len(selected.dims) else ""
    bounds = interval(first.low, first.high)
    unit = "" if selected.name == "recovered" else selected.unit
    value = f"{display_name(selected)} {number(first.value, unit)}" + (f", 95 % interval {bounds}" if bounds else "")
    return f"{'Strongest effect' if _is_effect(selected) else 'Largest value'}: {first.name}{label}, {value}."


def _is_effect(selected: SelectedVariable) -> bool:
    return selected.name == "recovered" or bool(selected.center) or selected.name.startswith("effect")
