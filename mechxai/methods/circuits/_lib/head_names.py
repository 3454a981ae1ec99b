"""Names of heads from their scores: what a head attends to, and its role where patching it has an effect."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Patterns that depend on the tokens, then patterns that any head can have whatever the tokens. A head with one of the
# former may also rest on the first token where it has nothing to do; it is named by the pattern that depends on tokens.
FOLLOWING = ("previous_token", "duplicate_token", "induction", "s_inhibition", "name_mover")
RESTING = ("first_token", "positional", "syntactic")
_SCORES = (*FOLLOWING, *RESTING, "copying", "suppressing", "s_inhibition_path")  # the scores that decide


@dataclass(frozen=True)
class RoleThresholds:
    """The smallest scores that give a head a role.

    Attributes:
        attention: smallest pattern score.
        effect: smallest effect of patching.
        copying: smallest copying score of a name mover; smallest suppressing score of a negative name mover.
    """

    attention: float
    effect: float
    copying: float

    def roles(self, scores: Mapping[str, np.ndarray], effect: np.ndarray) -> np.ndarray:
        """Every role whose pattern score and effect both pass, joined by commas; empty for none.

        Args:
            scores: by name, ``[layer, head]``.
            effect: the larger of both directions, ``[layer, head]``.
        """
        roles = np.full(effect.shape, "", dtype=object)
        for index in np.ndindex(effect.shape):
            if effect[index] >= self.effect:
                passed = self._passed(_scores_at(scores, index))
                following = [name for name in (*FOLLOWING, "negative_name_mover") if name in passed]
                roles[index] = ", ".join(following or [name for name in RESTING if name in passed])
        return roles.astype(str)

    def attended_patterns(
        self, scores: Mapping[str, np.ndarray], distance: np.ndarray, relation: np.ndarray
    ) -> np.ndarray:
        """The strongest pattern of each head that passes, whether patching has an effect or not; empty for none.

        Args:
            scores: by name, ``[layer, head]``.
            distance: of ``positional``, in tokens.
            relation: of ``syntactic``.
        """
        patterns = np.full(distance.shape, "", dtype=object)
        for index in np.ndindex(distance.shape):
            passed = {name: score for name, score in _scores_at(scores, index).items() if score >= self.attention}
            names = [name for name in FOLLOWING if name in passed] or [name for name in RESTING if name in passed]
            if names:
                strongest = max(names, key=passed.__getitem__)
                patterns[index] = _pattern_label(strongest, int(distance[index]), str(relation[index]))
        return patterns.astype(str)

    def _passed(self, scores: Mapping[str, float]) -> list[str]:
        """The names of a head's patterns that pass."""
        passed = {name: name for name in scores if scores[name] >= self.attention}
        if "name_mover" in passed and scores.get("copying", 0.0) < self.copying:
            negative = scores.get("suppressing", 0.0) >= self.copying
            passed["name_mover"] = "negative_name_mover" if negative else ""
        if scores.get("s_inhibition_path", np.inf) < self.effect:  # it does not reach the name movers' queries
            passed.pop("s_inhibition", None)
        return [name for name in passed.values() if name]


def _scores_at(scores: Mapping[str, np.ndarray], index: tuple[int, ...]) -> dict[str, float]:
    return {name: float(scores[name][index]) for name in _SCORES if name in scores}


def _pattern_label(name: str, distance: int, relation: str) -> str:
    if name == "positional":
        return ("itself", "previous_token")[distance] if distance < 2 else f"{distance} tokens back"
    return relation if name == "syntactic" else name
