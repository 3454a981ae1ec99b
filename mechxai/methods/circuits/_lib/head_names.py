"""From pattern scores to names: what a head looks at, and the role it has where patching it changes something."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# What only a look at the tokens can tell, then what any head can do that looks at nothing in them. A head that has
# one of the first may well rest on the first token elsewhere; it is named after what it does, not where it rests.
FOLLOWING = ("previous_token", "duplicate_token", "induction", "s_inhibition", "name_mover")
RESTING = ("first_token", "positional", "syntactic")
_NAMES = (*FOLLOWING, *RESTING, "copying", "suppressing", "s_inhibition_path")  # of scores that decide


@dataclass(frozen=True)
class Naming:
    """When a score earns a name.

    Attributes:
        attention: smallest pattern score.
        effect: smallest effect of patching.
        copying: smallest copying score of a name mover; smallest score against it of a negative one.
    """

    attention: float
    effect: float
    copying: float

    def roles(self, scores: Mapping[str, np.ndarray], effect: np.ndarray) -> np.ndarray:
        """Every role whose pattern score and effect both pass, with commas between; empty for none.

        Args:
            scores: by name, ``[layer, head]``.
            effect: the larger of both directions, ``[layer, head]``.
        """
        found = np.full(effect.shape, "", dtype=object)
        for place in np.ndindex(effect.shape):
            if effect[place] >= self.effect:
                passed = self._passed(_at(scores, place))
                following = [name for name in (*FOLLOWING, "negative_name_mover") if name in passed]
                found[place] = ", ".join(following or [name for name in RESTING if name in passed])
        return found.astype(str)

    def attends_to(self, scores: Mapping[str, np.ndarray], distance: np.ndarray, relation: np.ndarray) -> np.ndarray:
        """What each head looks at, effect or not: its strongest pattern that passes; empty for none.

        Args:
            scores: by name, ``[layer, head]``.
            distance: of ``positional``, in tokens.
            relation: of ``syntactic``.
        """
        found = np.full(distance.shape, "", dtype=object)
        for place in np.ndindex(distance.shape):
            own = {name: score for name, score in _at(scores, place).items() if score >= self.attention}
            kind = [name for name in FOLLOWING if name in own] or [name for name in RESTING if name in own]
            if kind:
                found[place] = _in_words(max(kind, key=own.__getitem__), int(distance[place]), str(relation[place]))
        return found.astype(str)

    def _passed(self, own: Mapping[str, float]) -> list[str]:
        passed = {name: name for name in own if own[name] >= self.attention}
        if "name_mover" in passed and own.get("copying", 0.0) < self.copying:
            negative = own.get("suppressing", 0.0) >= self.copying
            passed["name_mover"] = "negative_name_mover" if negative else ""
        if own.get("s_inhibition_path", np.inf) < self.effect:  # it does not reach the name movers' queries
            passed.pop("s_inhibition", None)
        return [name for name in passed.values() if name]


def _at(scores: Mapping[str, np.ndarray], place: tuple[int, ...]) -> dict[str, float]:
    return {name: float(scores[name][place]) for name in _NAMES if name in scores}


def _in_words(name: str, distance: int, relation: str) -> str:
    if name == "positional":
        return ("itself", "previous_token")[distance] if distance < 2 else f"{distance} tokens back"
    return relation if name == "syntactic" else name
