"""The methods of attribution by name, for configs and the command line."""

from collections.abc import Sequence

from mechxai.core.errors import ConfigError, nearest
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution.attention_rollout import AttentionRollout
from mechxai.methods.attribution.attention_scores import AttentionScores
from mechxai.methods.attribution.exact_shapley import ExactShapley
from mechxai.methods.attribution.gradient_x_input import GradientXInput
from mechxai.methods.attribution.integrated_gradients import IntegratedGradients
from mechxai.methods.attribution.kernel_shap import KernelShap
from mechxai.methods.attribution.lime import Lime
from mechxai.methods.attribution.occlusion import Occlusion
from mechxai.methods.attribution.partition_shap import PartitionShap
from mechxai.methods.attribution.saliency import Saliency
from mechxai.methods.attribution.smooth_grad import SmoothGrad

Named = str | Attribution
ATTRIBUTIONS: dict[str, type[Attribution]] = {
    kind.card.name: kind
    for kind in (
        Saliency,
        GradientXInput,
        IntegratedGradients,
        SmoothGrad,
        Occlusion,
        Lime,
        KernelShap,
        PartitionShap,
        ExactShapley,
        AttentionScores,
        AttentionRollout,
    )
}


def method_of(named: Named) -> Attribution:
    """The method a name means, with its defaults; a method itself.

    Raises:
        ConfigError: no method of attribution has that name.
    """
    if isinstance(named, Attribution):
        return named
    if named not in ATTRIBUTIONS:
        raise ConfigError(f"Attribution {named!r} was asked", allowed=nearest(named, ATTRIBUTIONS))
    return ATTRIBUTIONS[named]()


def labelled(methods: Sequence[Named]) -> dict[str, Attribution]:
    """Methods by label: their name, and a number where a name comes again."""
    found: dict[str, Attribution] = {}
    for method in map(method_of, methods):
        name = method.card.name
        again = sum(one.card.name == name for one in found.values())
        found[f"{name} {again + 1}" if again else name] = method
    return found
