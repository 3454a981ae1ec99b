"""PartitionSHAP: Owen values, the Shapley values along a tree of tokens, words and stretches of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from mechxai.core.errors import ConfigError
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import Baseline
from mechxai.methods.attribution._lib.coalitions import value_function
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import PlayerKind, players_of
from mechxai.methods.attribution._lib.prompt_by_prompt import prompt_by_prompt
from mechxai.methods.attribution._lib.scores import TokenScores, pad_rows, spread_over_tokens

_COALITIONS_AT_ONCE = 256


@final
@register(
    MethodCard(
        name="partition_shap",
        family="attribution",
        kind="attribution",
        question="What does each player bring, neighbours coming and going together?",
        cost="up to n_samples forward passes per prompt; about M^2 take the whole of a balanced tree",
        source="Lundberg & Lee 2017 (arXiv 1705.07874); Owen 1977; the shap package's PartitionExplainer",
        pros="adds up; fewer passes than Shapley values; stretches of text stay whole",
        cons="depends on the tree; subtrees beyond the budget share their value evenly",
    )
)
@dataclass(frozen=True)
class PartitionShap(Attribution):
    """SHAP's ``PartitionExplainer`` over a balanced tree of the prompt: tokens into words, words into halves of text.

    Attributes:
        metric: what is scored.
        baseline: what replaces an absent player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        n_samples: coalitions per prompt at most.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
    """

    metric: AnyMetric = "logit_diff"
    baseline: Baseline = "pad"
    n_samples: int = 500
    players: PlayerKind = "token"
    special: bool = False

    def _check_fields(self) -> None:
        if self.n_samples < 4:
            raise ConfigError(f"n_samples is {self.n_samples}: it must be at least 4")

    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The Owen value of every player."""
        values = pad_rows(prompt_by_prompt(self, inputs, self._owen_values), inputs.players.most)
        return TokenScores(spread_over_tokens(inputs, values.nan_to_num()), complete=True)

    def _owen_values(self, inputs: AttributionInput, number: int) -> Tensor:
        """The values of a prompt's players, ``[player]``."""
        import shap  # noqa: PLC0415 - heavy

        del number
        n = inputs.players.most
        if n == 1:
            return inputs.target_score - inputs.baseline_score
        masker = _IdentityMasker(balanced_tree(self._leaves(inputs)), (1, n))
        explainer = shap.PartitionExplainer(value_function(inputs), masker)
        explanation: Any = explainer(
            np.ones((1, n)), max_evals=self.n_samples, batch_size=_COALITIONS_AT_ONCE, silent=True
        )
        return torch.from_numpy(np.asarray(explanation.values[0], dtype=np.float64))

    def _leaves(self, inputs: AttributionInput) -> list[list[int]]:
        """The players, grouped by word if they are tokens and the model has a tokenizer."""
        n = inputs.players.most
        if self.players != "token" or inputs.model.text.tokenizer is None:
            return [[player] for player in range(n)]
        words = players_of(inputs.model.text, inputs.batch, "word", special=self.special)
        by_word: dict[int, list[int]] = {}
        for player, word in zip(inputs.players.of_token[0].tolist(), words.of_token[0].tolist(), strict=True):
            if player >= 0:
                by_word.setdefault(word, []).append(player)
        return list(by_word.values())


@dataclass(frozen=True)
class _IdentityMasker:
    """A masker of SHAP that passes the mask on as the masked input."""

    clustering: np.ndarray
    shape: tuple[int, int]

    def __call__(self, mask: np.ndarray, row: np.ndarray) -> tuple[np.ndarray]:
        del row
        return (np.asarray(mask, dtype=float).reshape(1, -1),)


def balanced_tree(leaves: Sequence[Sequence[int]]) -> np.ndarray:
    """A balanced binary tree over neighbouring leaves, with each group joined first, as SciPy's linkage matrix.

    Args:
        leaves: groups of players, in the order of the text.

    Returns:
        ``[player - 1, 4]``: the two nodes joined, their distance (number of players below), and that number again.
    """
    rows: list[tuple[int, int, float, int]] = []
    n_leaves = sum(len(group) for group in leaves)

    def join(nodes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """The node that joins nodes, by halves, and the number of players below it."""
        if len(nodes) == 1:
            return nodes[0]
        middle = len(nodes) // 2
        (left, n_left), (right, n_right) = join(nodes[:middle]), join(nodes[middle:])
        rows.append((left, right, float(n_left + n_right), n_left + n_right))
        return n_leaves + len(rows) - 1, n_left + n_right

    join([join([(player, 1) for player in group]) for group in leaves])
    return np.array(rows, dtype=float)
