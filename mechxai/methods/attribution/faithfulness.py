"""Is an attribution true to the model? Its players taken away and put back, beside random rankings."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.baselines import BASELINES
from mechxai.methods.attribution._lib.evaluation.comparison import (
    EvaluationSettings,
    Judging,
    curve_variables,
    judged,
    measure_variables,
)
from mechxai.methods.attribution._lib.evaluation.measures import player_scores
from mechxai.methods.attribution._lib.evaluation.sensitivity import max_sensitivity, randomisation_similarity
from mechxai.methods.attribution._lib.method_names import Named, method_of
from mechxai.methods.attribution._lib.players import KINDS
from mechxai.methods.attribution._lib.scores import attributed
from mechxai.methods.attribution.integrated_gradients import IntegratedGradients
from mechxai.methods.result_parts import bounded, position_labels, run_info, token_texts

FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)  # ERASER's


@final
@register(
    MethodCard(
        name="faithfulness",
        family="attribution",
        kind="faithfulness",
        question="Is an attribution true: does the score follow when its tokens go or come?",
        cost="the method (twice, and sensitivity_draws times more), and about 2 x 14 passes per ranking and prompt",
        source="DeYoung et al. 2020 (arXiv 1911.03429); Yeh et al. 2019 (arXiv 1901.09392); Zhao & Aletras 2023 "
        "(arXiv 2305.10496); Adebayo et al. 2018 (arXiv 1810.03292)",
        pros="interventions, beside random rankings, with paired intervals",
        cons="prompts with tokens taken away are no natural text; depends on the baseline",
    )
)
@dataclass(frozen=True)
class Faithfulness(Method):
    """Scores a method of attribution by what happens when its players are taken away.

    The score may be that of one token, a contrast or a whole continuation (``metric=logprob``): generation is judged
    like everything else.

    Attributes:
        of: the method, or its name.
        metric: what is scored; also asked of the method.
        baseline: what stands in for players taken away by the judge; the method's own is its own.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        fractions: of the players, at which comprehensiveness and sufficiency are taken (ERASER's by default).
        random_draws: random rankings beside the method.
        infidelity_draws: random sets of players.
        soft_draws: of the soft measures' masks; 0 leaves them out.
        sensitivity_draws: small moves of the input; 0 leaves max-sensitivity out.
        radius: of the moves, as a share of the standard deviation of the embeddings.
        randomise: whether to ask a model with random weights, too.
        seed: of all draws.
    """

    of: Named = IntegratedGradients()  # noqa: RUF009 - frozen
    metric: AnyMetric = "logit_diff"
    baseline: str = "pad"
    players: str = "token"
    special: bool = False
    fractions: Sequence[float] = FRACTIONS
    random_draws: int = 10
    infidelity_draws: int = 32
    soft_draws: int = 5
    sensitivity_draws: int = 3
    radius: float = 0.02
    randomise: bool = True
    seed: int = 0

    def _check_fields(self) -> None:
        as_metric(self.metric)
        method_of(self.of)
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("players", self.players, KINDS)
        _ = self._judging
        if self.sensitivity_draws < 0 or not self.radius > 0:
            raise ConfigError(
                f"faithfulness with sensitivity_draws={self.sensitivity_draws}, radius={self.radius}",
                allowed="0 or more draws, a positive radius",
            )

    @property
    def _judging(self) -> Judging:
        return Judging(self.fractions, self.random_draws, self.infidelity_draws, self.soft_draws, self.seed)

    def __call__(self, model: Any, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Every measure, as `measure_variables` and `curve_variables` name them, without their dim ``method``.

        Returns:
            Also ``max_sensitivity`` and ``randomisation_similarity`` with intervals, and ``attribution`` [prompt, pos],
            what the method gave.
        """
        started = time.perf_counter()
        asked = EvaluationSettings(self.metric, self.baseline, self.players, self.special)
        method = asked.put(method_of(self.of))
        judge, own = asked.problem(model, batch, execution), method.problem(model, batch, execution)
        scores = method.scores(own)
        players = player_scores(own, scores.tokens)
        measures, found = judged(judge, [players], self._judging)
        unit = as_metric(self.metric).unit
        data = measure_variables(measures, 1, unit) | curve_variables(found, 1, unit)
        draws = {"radius": self.radius, "draws": self.sensitivity_draws, "seed": self.seed}
        if self.sensitivity_draws:
            moved = max_sensitivity(method, own, players, **draws)
            meaning = f"largest relative change of scores as the input moves by {self.radius} of its spread"
            data |= bounded("max_sensitivity", ("method",), moved[:, None], units="fraction", meaning=meaning)
        if self.randomise:
            similar = randomisation_similarity(method, own, players, seed=self.seed)
            meaning = "Spearman's correlation of scores' sizes with those on random weights"
            data |= bounded(
                "randomisation_similarity", ("method",), similar[:, None], units="correlation", meaning=meaning
            )
        tokens = attributed(own, scores).numpy()[None]
        data["attribution"] = variable(("method", "prompt", "pos"), tokens, scores.units or unit, "what was judged")
        data["token"] = token_texts(own.subject.text, own.batch.clean, own.batch.lengths)
        coords = {
            "method": [method.card.name],
            "prompt": list(range(len(batch))),
            "pos": position_labels(batch, list(range(batch.n_pos))),
            "share": np.linspace(0, 1, 21),
        }
        cost = {
            "forward_passes": (judge.tally.forward + own.tally.forward) / len(batch),
            "seconds": time.perf_counter() - started,
        }
        own_only = xr.Dataset(data, coords=coords).isel(method=0)
        return Result(own_only, run_info(self, model, batch, cost=cost, notes=scores.notes))
