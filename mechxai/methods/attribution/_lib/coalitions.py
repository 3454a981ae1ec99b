"""The value function of a prompt: its score given which players are present, as SHAP and LIME take it."""

from collections.abc import Callable

import numpy as np
import torch

from mechxai.methods.attribution._lib.input import AttributionInput

ValueFunction = Callable[[np.ndarray], np.ndarray]  # 1 where a player is present, [coalition, player], to [coalition]


def value_function(inputs: AttributionInput) -> ValueFunction:
    """The value function of a single prompt. Cost: a forward pass per coalition that is neither full nor empty."""

    def values(coalitions: np.ndarray) -> np.ndarray:
        present = torch.as_tensor(np.asarray(coalitions)) > 0.5  # [coalition, player]
        scores = torch.where(present.all(1), inputs.target_score, inputs.baseline_score)
        partial = (present.any(1) & ~present.all(1)).nonzero()[:, 0]
        if len(partial):
            scores[partial] = inputs.scores_without(~present[partial][:, None])[:, 0]
        return scores.numpy()

    return values
