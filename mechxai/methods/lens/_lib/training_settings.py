"""How a tuned lens is trained."""

from dataclasses import dataclass

from mechxai.core.errors import ConfigError, check_choice

OPTIMIZERS, LOSSES = ("sgd", "adam"), ("kl", "ce")


@dataclass(frozen=True)
class Recipe:
    """How a lens is trained. Defaults: Belrose et al. 2023, and the ``tuned-lens`` package.

    Attributes:
        steps: optimiser steps; the learning rate falls linearly to 0 over them.
        tokens_per_step: tokens whose gradients are summed up for a step. (The package takes 2**18.)
        optimizer: ``sgd`` (Nesterov, momentum 0.9) or ``adam`` (amsgrad).
        lr_scale: 1 is a learning rate of 0.1 for SGD, 1e-3 for Adam.
        weight_decay: pulls the translators to the identity; SGD's only.
        clip: of the norm of the gradient over all translators.
        loss: ``kl``, to the model's own output at the same position; or ``ce``, to the token that follows.
        bias_only: only b is trained; the baseline that any gain must beat.
        seed: of the order of the sequences.
        checkpoint_every: steps between checkpoints.
    """

    steps: int = 250
    tokens_per_step: int = 8192
    optimizer: str = "sgd"
    lr_scale: float = 1.0
    weight_decay: float = 1e-3
    clip: float = 1.0
    loss: str = "kl"
    bias_only: bool = False
    seed: int = 0
    checkpoint_every: int = 25

    def __post_init__(self) -> None:
        for name, allowed in (("optimizer", OPTIMIZERS), ("loss", LOSSES)):
            check_choice(name, getattr(self, name), allowed)
        for name in ("steps", "tokens_per_step", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} was asked", allowed="1 or more")
        for name in ("lr_scale", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} was asked", allowed="more than 0")


def rate(recipe: Recipe) -> float:
    """The learning rate of the first step."""
    return recipe.lr_scale * (0.1 if recipe.optimizer == "sgd" else 1e-3)
