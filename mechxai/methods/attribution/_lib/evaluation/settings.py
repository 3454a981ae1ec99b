"""`AttributionEvaluation`: the fields that every evaluation of attributions has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mechxai.core.errors import ConfigError
from mechxai.core.method import Method
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import Baseline
from mechxai.methods.attribution._lib.input import InputSettings
from mechxai.methods.attribution._lib.players import PlayerKind

ERASER_FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class EvaluationSettings:
    """The draws and fractions of an evaluation.

    Attributes:
        fractions: of the players, at which comprehensiveness and sufficiency are computed.
        random_draws: random rankings that every method is compared with.
        infidelity_draws: random sets of players.
        soft_draws: masks of the soft measures; 0 leaves these measures out.
        seed: of all draws.
    """

    fractions: Sequence[float]
    random_draws: int
    infidelity_draws: int
    soft_draws: int
    seed: int


class AttributionEvaluation(Method):
    """Base of the evaluations. Concrete ones are final frozen dataclasses with these fields among theirs.

    Attributes:
        metric: what is scored.
        baseline: what replaces a token that the evaluation deletes.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        fractions: of the players, at which comprehensiveness and sufficiency are computed.
        random_draws: random rankings that every method is compared with.
        infidelity_draws: random sets of players.
        soft_draws: masks of the soft measures; 0 leaves these measures out.
        seed: of all draws.
    """

    metric: AnyMetric
    baseline: Baseline
    players: PlayerKind
    special: bool
    fractions: Sequence[float]
    random_draws: int
    infidelity_draws: int
    soft_draws: int
    seed: int

    def _check_fields(self) -> None:
        as_metric(self.metric)
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise ConfigError(f"fractions is {self.fractions}", allowed="numbers above 0, up to 1")
        for name, value, least in (
            ("random_draws", self.random_draws, 1),
            ("infidelity_draws", self.infidelity_draws, 1),
            ("soft_draws", self.soft_draws, 0),
        ):
            if value < least:
                raise ConfigError(f"{name} is {value}: it must be at least {least}")

    @property
    def input_settings(self) -> InputSettings:
        """The settings of the evaluation's own deletions."""
        return InputSettings(self.metric, self.baseline, self.players, self.special)

    @property
    def evaluation_settings(self) -> EvaluationSettings:
        """The draws and fractions."""
        return EvaluationSettings(self.fractions, self.random_draws, self.infidelity_draws, self.soft_draws, self.seed)


def with_settings(method: Attribution, settings: InputSettings) -> Attribution:
    """The method with these settings' metric and players; it keeps its own baseline."""
    return replace(method, metric=settings.metric, players=settings.players, special=settings.special)  # type: ignore[type-var] # a dataclass
