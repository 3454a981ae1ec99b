"""A prompt's score as a function of which players are there: all that SHAP and LIME need to know of a model."""

from collections.abc import Callable

import numpy as np
import torch

from mechxai.methods.attribution._lib.input import AttributionInput

Present = Callable[[np.ndarray], np.ndarray]  # 1 where a player is there, [cell, player], to scores, [cell]


def score_of_present(problem: AttributionInput) -> Present:
    """The function of a problem of one prompt. Cost: a forward pass per row in which some are there and some not."""

    def function(present: np.ndarray) -> np.ndarray:
        there = torch.as_tensor(np.asarray(present)) > 0.5  # [cell, player]
        found = torch.where(there.all(1), problem.target_score, problem.baseline_score)
        mixed = (there.any(1) & ~there.all(1)).nonzero()[:, 0]
        if len(mixed):
            found[mixed] = problem.without(~there[mixed][:, None])[:, 0]
        return found.numpy()

    return function
