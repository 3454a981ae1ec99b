"""What a figure shows, in plain sentences."""

from collections.abc import Mapping

from mechxai.figures.axes import TITLES
from mechxai.figures.cells import Cell
from mechxai.figures.headings import display_name
from mechxai.figures.shown_variable import Shown
from mechxai.figures.text import interval, number, words

_EDITS = {
    "zero": "set to zero",
    "mean": "replaced by its mean over the {reference} prompts",
    "resample": "replaced by that of another {reference} prompt",
    "noise": "blurred with Gaussian noise",
}


_DONE = {
    "activation_patching": "The corrupted prompts were run with one place of {site} at a time taken from the "
    "clean run.",
    "activation_patching noise": "The clean prompts were run with one place of {site} at a time taken from the "
    "corrupted run.",
    "causal_tracing": "The subject's embeddings were blurred with noise, and one place of {site} at a time put back to "
    "clean.",
    "ablation": "The clean prompts were run with one place of {site} at a time {how}.",
    "head_roles": "Each head was scored on the attention that every role asks for, and patched to measure its effect; "
    "it gets a role only where both agree.",
    "logit_lens": "{site} of every layer was read through the model's own final norm and unembedding.",
    "linear_probes": "A {probe} probe was trained on {site} at every layer and position asked, its regularisation "
    "chosen on validation prompts, and judged on groups of prompts that it had not seen; so were its controls.",
    "probe_causal_check": "Probes were trained on {site}, and the test prompts' clean runs edited along their "
    "directions, one layer at a time; random directions changed the same activations by as much.",
    "saliency": "The gradient of the score in every token's embedding was taken.",
    "gradient_x_input": "The gradient of the score in every token's embedding was multiplied with that embedding.",
    "smooth_grad": "The gradient of the score was averaged over noisy copies of the embeddings.",
    "integrated_gradients": "The gradient of the score was integrated along a straight line from a baseline "
    "({baseline}) to the prompt; the scores should add up to what the score changes on the way.",
    "occlusion": "One player at a time was replaced by a baseline ({baseline}), all others left as they were.",
    "lime": "Random sets of players were replaced by a baseline ({baseline}), and a ridge regression fitted to what "
    "came of it.",
    "kernel_shap": "Sampled sets of players were replaced by a baseline ({baseline}), and Shapley values estimated by "
    "regression.",
    "partition_shap": "Neighbouring players were replaced by a baseline ({baseline}) along a tree, and Owen values "
    "taken.",
    "exact_shapley": "Every set of players was replaced by a baseline ({baseline}), and Shapley values counted out.",
    "attention_scores": "The attention of the answer position was read; it does not say what was used.",
    "attention_rollout": "Attention was followed through the layers from the answer position, residual connections "
    "included; it does not say what was used.",
    "faithfulness": "Players were taken away and put back in the order of their scores, beside random rankings; a true "
    "attribution makes the score fall fast as they go, and rise fast as they come.",
    "compare_attributions": "Every method was put to the same prompts, score and players, and judged by the same "
    "interventions beside random rankings.",
    "rephrasing_stability": "One method was put to every rephrasing of a question, and its scores of the words "
    "that they share were compared.",
    "attention_patterns": "Every head's attention was read from one pass; the pages beside the figure show all of it.",
    "acdc": "From the logits back, one edge after the other was cut ({reference} in its place) and stayed cut where "
    "the loss rose by less than a threshold.",
    "attribution_patching": "The difference between the clean and the corrupted run at {site} was multiplied with the "
    "gradient of the metric there: to first order, what patching it would do.",
    "circuit_criteria": "Edges were ranked on some prompts; on others sets of nodes were knocked out of the circuit of "
    "the highest and of the whole model ({reference} in place of what is cut): what is missing from the circuit, and "
    "which node is not needed.",
    "circuit_stability": "Prompts were drawn anew, with replacement and in halves, and the highest edges chosen again.",
    "compare_circuits": "Every method ranked edges on half of the prompts; the circuits of the highest were run on the "
    "other half, beside random ones, and held against the circuit that is known.",
    "circuit_tests": "Edges were ranked on some prompts; on others the circuit of the highest was run alone, cut out, "
    "and without each of its edges ({reference} in place of what is cut), beside random circuits and detours.",
    "edge_attribution": "What every node writes, less what stands in for it ({reference}), was multiplied with the "
    "gradient of the metric at every input that reads it: to first order, what the edge brings.",
    "edge_pruning": "A gate on every edge ({reference} behind it) was trained, all at once, so that a given share of "
    "open gates does what the whole model does.",
    "edge_patching": "The clean prompts were run with one input of one head or MLP at a time seeing one node as it is "
    "in the corrupted run; everything after it followed.",
    "edge_patching denoise": "The corrupted prompts were run with one input of one head or MLP at a time seeing one "
    "node as it is in the clean run; everything after it followed.",
    "path_patching": "The clean prompts were run with what one receiver reads answering to one sender as it is in the "
    "corrupted run; everything after the receiver followed.",
    "path_patching denoise": "The corrupted prompts were run with what one receiver reads answering to one sender as "
    "it is in the clean run; everything after the receiver followed.",
    "information_flow_routes": "From one position's last residual stream down to the tokens, edges were followed that "
    "bring a vector near the one it is added into; nothing was edited, and what is near need not be what acts.",
    "evaluate_circuit": "Edges were ranked on some prompts; on others the model was run with all but the highest cut "
    "({reference} in their place), beside random circuits of the same size.",
    "early_answering": "The model wrote a chain of thought, and its answer was read after ever more of it.",
    "adding_mistakes": "Each step of the model's chain in turn was said wrong; it wrote on from there, and its answer "
    "was read.",
    "paraphrasing": "The first steps of the model's chain were said in other words; it wrote on from there, and its "
    "answer was read.",
    "filler_tokens": "The model's chain was replaced by ever more fillers, and its answer read.",
    "biasing_feature": "Each problem was asked plainly, and with a wrong answer made tempting.",
    "planted_error": "The model's chain was cut at a step, that step said wrong, and the model wrote on to its answer; "
    "beside it the same with the step said right.",
    "self_consistency": "Many chains were drawn for each problem, and the answers behind them voted.",
    "chain_flow": "Two problems in the same words were run, and what one run holds at a part of the prompt was put "
    "into the other, at all layers together and at each alone.",
    "neuron_factors": "The activations of each prompt's MLP neurons were factored into groups that fire together, "
    "negative ones counted as 0; an ablation sets the strongest neurons of a group to zero, beside those of other "
    "groups and random ones.",
    "direct_logit_attribution": "The logit difference was split into what every component wrote into the residual "
    "stream, the final norm's scale held fixed; how later components react is not in it.",
}


def what_was_done(method: Mapping[str, object]) -> str:
    """One sentence on what is behind each number; empty for methods that it does not know."""
    name = str(method.get("name"))
    text = _DONE.get(f"{name} {method.get('direction')}") or _DONE.get(name, "")
    reference = method.get("reference", "reference")
    how = _EDITS.get(str(method.get("edit")), "taken out").format(reference=reference)
    site = method.get("site", "an activation")
    names = site if isinstance(site, str) else ", ".join(map(str, site)) if isinstance(site, (list, tuple)) else site
    own = {"probe": words(str(method.get("probe"))), "baseline": method.get("baseline")}
    return text.format(site=names, how=how, reference=reference, **own)


def what_is_shown(shown: Shown) -> str:
    """One sentence on the number itself and how to read it."""
    by = " by ".join(TITLES.get(dim, words(dim)) for dim in shown.dims)
    text = f"The figure shows: {shown.long_name}" + (f", {by}" if by else "")
    if shown.name == "recovered":
        return f"{text}: 0 is no effect, 1 the whole gap between the clean and the corrupted run."
    if shown.center:
        return f"{text}; white is {number(shown.center, shown.unit)}, the run without the edit."
    return f"{text}."


def what_stands_out(shown: Shown, strongest: list[Cell]) -> str:
    """One sentence on the strongest cell."""
    if not strongest:
        return "No cell has a value."
    first = strongest[0]
    at = f" ({first.label})" if first.label and len(shown.dims) else ""
    between = interval(first.low, first.high)
    unit = "" if shown.name == "recovered" else shown.unit
    says = f"{display_name(shown)} {number(first.value, unit)}" + (f", 95 % interval {between}" if between else "")
    return (
        f"Farthest from no effect: {first.name}{at}, {says}."
        if _is_effect(shown)
        else f"Largest: {first.name}{at}, {says}."
    )


def _is_effect(shown: Shown) -> bool:
    return shown.name == "recovered" or bool(shown.center) or shown.name.startswith("effect")
