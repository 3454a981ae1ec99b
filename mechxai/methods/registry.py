"""Every method there is; importing this module registers them all."""

from mechxai.core.method import METHODS, MethodCard
from mechxai.methods.circuits import head_roles
from mechxai.methods.patching import ablation, activation_patching, causal_tracing

_FAMILIES = (activation_patching, ablation, causal_tracing, head_roles)


def cards() -> list[MethodCard]:
    """The card of every method, by family, then name."""
    return sorted((kind.card for kind in METHODS.values()), key=lambda card: (card.family, card.name))
