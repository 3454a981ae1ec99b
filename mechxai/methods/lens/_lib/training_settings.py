"""The training recipe of a tuned lens."""

from dataclasses import dataclass
from typing import Literal, final

from mechxai.core.errors import ConfigError
from mechxai.core.fields import settle_fields

LensOptimizer = Literal["sgd", "adam"]
LensLoss = Literal["kl", "ce"]


@dataclass(frozen=True)
class RecipeFields:
    """The fields of a training recipe: abstract base of `Recipe` and of the method `TunedLensTraining`.

    Defaults: Belrose et al. 2023, and the ``tuned-lens`` package.

    Attributes:
        steps: optimiser steps; the learning rate falls linearly to 0 over them.
        tokens_per_step: tokens whose gradients are summed for one step. (The package takes 2**18.)
        optimizer: ``sgd`` (Nesterov, momentum 0.9) or ``adam`` (amsgrad).
        lr_scale: 1 is a learning rate of 0.1 for SGD, 1e-3 for Adam.
        weight_decay: pulls the translators towards the identity; SGD only.
        clip: maximum norm of the gradient over all translators.
        loss: ``kl``, to the model's output at the same position; or ``ce``, to the token that follows.
        bias_only: train only b; the baseline that any gain must beat.
        seed: seed of the order of the sequences.
        checkpoint_every: steps between checkpoints.
    """

    steps: int = 250
    tokens_per_step: int = 8192
    optimizer: LensOptimizer = "sgd"
    lr_scale: float = 1.0
    weight_decay: float = 1e-3
    clip: float = 1.0
    loss: LensLoss = "kl"
    bias_only: bool = False
    seed: int = 0
    checkpoint_every: int = 25

    def _check_fields(self) -> None:
        for name in ("steps", "tokens_per_step", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("lr_scale", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be positive")


@final
@dataclass(frozen=True)
class Recipe(RecipeFields):
    """A checked training recipe, see `RecipeFields`."""

    def __post_init__(self) -> None:
        settle_fields(self)
        self._check_fields()


def rate(recipe: Recipe) -> float:
    """The learning rate of the first step."""
    return recipe.lr_scale * (0.1 if recipe.optimizer == "sgd" else 1e-3)
