"""Every method there is; importing this module registers them all."""

from mechxai.core.method import METHODS, MethodCard
from mechxai.methods.attention import attention_patterns
from mechxai.methods.attribution import (
    attention_rollout,
    attention_scores,
    compare_attributions,
    exact_shapley,
    faithfulness,
    gradient_x_input,
    integrated_gradients,
    kernel_shap,
    lime,
    occlusion,
    partition_shap,
    rephrasing_stability,
    saliency,
    smooth_grad,
)
from mechxai.methods.circuits import (
    acdc,
    attribution_patching,
    circuit_criteria,
    circuit_stability,
    circuit_tests,
    compare_circuits,
    edge_attribution,
    edge_patching,
    edge_pruning,
    evaluate_circuit,
    head_roles,
    information_flow_routes,
    path_patching,
)
from mechxai.methods.cot import (
    adding_mistakes,
    biasing_feature,
    chain_flow,
    early_answering,
    filler_tokens,
    paraphrasing,
    planted_error,
    self_consistency,
)
from mechxai.methods.lens import (
    direct_logit_attribution,
    logit_lens,
    neuron_factors,
    tuned_lens_eval,
    tuned_lens_reading,
    tuned_lens_train,
)
from mechxai.methods.patching import ablation, activation_patching, causal_tracing
from mechxai.methods.probes import linear_probes, probe_causal_check

_FAMILIES = (
    activation_patching,
    ablation,
    causal_tracing,
    head_roles,
    acdc,
    attribution_patching,
    edge_attribution,
    edge_patching,
    edge_pruning,
    evaluate_circuit,
    circuit_stability,
    circuit_criteria,
    circuit_tests,
    compare_circuits,
    path_patching,
    information_flow_routes,
    logit_lens,
    tuned_lens_reading,
    tuned_lens_train,
    tuned_lens_eval,
    direct_logit_attribution,
    neuron_factors,
    linear_probes,
    probe_causal_check,
    saliency,
    gradient_x_input,
    integrated_gradients,
    smooth_grad,
    occlusion,
    lime,
    kernel_shap,
    partition_shap,
    exact_shapley,
    attention_scores,
    attention_rollout,
    faithfulness,
    compare_attributions,
    rephrasing_stability,
    attention_patterns,
    early_answering,
    adding_mistakes,
    paraphrasing,
    filler_tokens,
    biasing_feature,
    planted_error,
    self_consistency,
    chain_flow,
)


def cards() -> list[MethodCard]:
    """The card of every method, by family, then name."""
    return sorted((kind.card for kind in METHODS.values()), key=lambda card: (card.family, card.name))
