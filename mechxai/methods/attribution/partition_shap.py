"""Owen values: Shapley values along a tree of tokens, words and stretches of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import BASELINES
from mechxai.methods.attribution._lib.coalitions import score_of_present
from mechxai.methods.attribution._lib.input import AttributionInput
from mechxai.methods.attribution._lib.players import KINDS, players_of
from mechxai.methods.attribution._lib.prompt_by_prompt import prompt_by_prompt
from mechxai.methods.attribution._lib.scores import Scores, of_players, together

_AT_ONCE = 256  # coalitions asked together


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
        cons="depends on the tree; what is cut short is shared out evenly",
    )
)
@dataclass(frozen=True)
class PartitionShap(Attribution):
    """SHAP's ``PartitionExplainer`` over a balanced tree of the prompt: tokens into words, words into halves of text.

    Attributes:
        metric: what is scored.
        baseline: what stands in place of a player: ``pad``, ``mask``, ``zero``, ``mean``, ``counterfactual``,
            ``blank``.
        n_samples: coalitions per prompt at most.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
    """

    metric: AnyMetric = "logit_diff"
    baseline: str = "pad"
    n_samples: int = 500
    players: str = "token"
    special: bool = False

    def _check_fields(self) -> None:
        as_metric(self.metric)
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("players", self.players, KINDS)
        if self.n_samples < 4:
            raise ConfigError(f"partition_shap with n_samples={self.n_samples}", allowed="4 or more")

    def scores(self, problem: AttributionInput) -> Scores:
        """The Owen value of every player."""
        found = together(prompt_by_prompt(self, problem, self._owen), problem.players.most)
        return Scores(of_players(problem, found.nan_to_num()), complete=True)

    def _owen(self, problem: AttributionInput, number: int) -> Tensor:
        """The values of a prompt's players, ``[player]``."""
        import shap  # noqa: PLC0415 - heavy

        del number
        n = problem.players.most
        if n == 1:
            return problem.target_score - problem.baseline_score
        masker = _Masks(tree(self._leaves(problem)), (1, n))
        explainer = shap.PartitionExplainer(score_of_present(problem), masker)
        explanation: Any = explainer(np.ones((1, n)), max_evals=self.n_samples, batch_size=_AT_ONCE, silent=True)
        return torch.from_numpy(np.asarray(explanation.values[0], dtype=np.float64))

    def _leaves(self, problem: AttributionInput) -> list[list[int]]:
        """The players, by word where they are tokens and words are known."""
        n = problem.players.most
        if self.players != "token" or problem.subject.text.tokenizer is None:
            return [[player] for player in range(n)]
        words = players_of(problem.subject.text, problem.batch, "word", special=self.special)
        by_word: dict[int, list[int]] = {}
        for player, word in zip(problem.players.of_token[0].tolist(), words.of_token[0].tolist(), strict=True):
            if player >= 0:
                by_word.setdefault(word, []).append(player)
        return list(by_word.values())


@dataclass(frozen=True)
class _Masks:
    """What SHAP calls a masker: here the masked input is the mask itself."""

    clustering: np.ndarray
    shape: tuple[int, int]

    def __call__(self, mask: np.ndarray, row: np.ndarray) -> tuple[np.ndarray]:
        del row
        return (np.asarray(mask, dtype=float).reshape(1, -1),)


def tree(leaves: Sequence[Sequence[int]]) -> np.ndarray:
    """A balanced binary tree over neighbouring leaves, those of a group joined first, as SciPy's linkage matrix.

    Args:
        leaves: groups of players, in the order of the text.

    Returns:
        ``[player - 1, 4]``: the two nodes joined, their distance (players beneath), and players beneath.
    """
    rows: list[tuple[int, int, float, int]] = []
    n_leaves = sum(len(group) for group in leaves)

    def join(nodes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Node and players beneath, of nodes joined by halves."""
        if len(nodes) == 1:
            return nodes[0]
        middle = len(nodes) // 2
        (left, n_left), (right, n_right) = join(nodes[:middle]), join(nodes[middle:])
        rows.append((left, right, float(n_left + n_right), n_left + n_right))
        return n_leaves + len(rows) - 1, n_left + n_right

    join([join([(player, 1) for player in group]) for group in leaves])
    return np.array(rows, dtype=float)
