"""Faithfulness: whether the score follows as an attribution's players are deleted and inserted, beside random ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.method import MethodCard, register
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result, variable
from mechxai.core.work_clock import work_seconds
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.base import Attribution
from mechxai.methods.attribution._lib.baselines import Baseline
from mechxai.methods.attribution._lib.evaluation.comparison import (
    curve_variables,
    evaluate_rankings,
    measure_variables,
)
from mechxai.methods.attribution._lib.evaluation.sensitivity import max_sensitivity, randomisation_similarity
from mechxai.methods.attribution._lib.evaluation.settings import (
    ERASER_FRACTIONS,
    AttributionEvaluation,
    with_settings,
)
from mechxai.methods.attribution._lib.input import AttributionInput, attribution_input
from mechxai.methods.attribution._lib.method_names import MethodOrName, method_of
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.scores import attributed_tokens, player_scores
from mechxai.methods.attribution.integrated_gradients import IntegratedGradients
from mechxai.methods.result_parts import bounded, position_labels, run_info, token_texts


@final
@register(
    MethodCard(
        name="faithfulness",
        family="attribution",
        kind="faithfulness",
        question="Is an attribution faithful: does the score follow as its tokens are deleted or inserted?",
        cost="the method (twice, and sensitivity_draws times more), and about 2 x 14 passes per ranking and prompt",
        source="DeYoung et al. 2020 (arXiv 1911.03429); Yeh et al. 2019 (arXiv 1901.09392); Zhao & Aletras 2023 "
        "(arXiv 2305.10496); Adebayo et al. 2018 (arXiv 1810.03292)",
        pros="interventions, beside random rankings, with paired intervals",
        cons="prompts with tokens deleted are not natural text; depends on the baseline",
    )
)
@dataclass(frozen=True)
class Faithfulness(AttributionEvaluation):
    """Evaluates an attribution method by what happens when its players are deleted.

    The metric may score one token, a contrast or a whole continuation (``metric=logprob``): generation is evaluated
    like everything else.

    Attributes:
        of: the method, or its name.
        metric: what is scored; the method uses it too.
        baseline: what replaces a token that the evaluation deletes; the method keeps its own baseline.
        players: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        fractions: of the players, at which comprehensiveness and sufficiency are computed (ERASER's by default).
        random_draws: random rankings that the method is compared with.
        infidelity_draws: random sets of players.
        soft_draws: masks of the soft measures; 0 leaves these measures out.
        sensitivity_draws: small moves of the input; 0 leaves max-sensitivity out.
        radius: of the moves, as a share of the standard deviation of the embeddings.
        randomise: whether to run the method on a model with random weights, too.
        seed: of all draws.
    """

    of: MethodOrName = IntegratedGradients()  # noqa: RUF009 - frozen
    metric: AnyMetric = "logit_diff"
    baseline: Baseline = "pad"
    players: PlayerKind = "token"
    special: bool = False
    fractions: Sequence[float] = ERASER_FRACTIONS
    random_draws: int = 10
    infidelity_draws: int = 32
    soft_draws: int = 5
    sensitivity_draws: int = 3
    radius: float = 0.02
    randomise: bool = True
    seed: int = 0

    def _check_fields(self) -> None:
        method_of(self.of)
        if self.sensitivity_draws < 0:
            raise ConfigError(f"sensitivity_draws is {self.sensitivity_draws}: it must be at least 0")
        if not self.radius > 0:
            raise ConfigError(f"radius is {self.radius}: it must be positive")

    def __call__(self, model: Any, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Every measure and curve of the method's scores.

        Returns:
            The variables of `measure_variables` and `curve_variables` without their dim ``method``;
            ``max_sensitivity`` and ``randomisation_similarity`` with intervals; ``attribution`` [prompt, pos], the
            method's scores; ``token`` [prompt, pos].
        """
        started = work_seconds()
        method = with_settings(method_of(self.of), self.input_settings)
        evaluation = attribution_input(model, batch, self.input_settings, execution=execution)
        inputs = method.inputs(model, batch, execution)
        scores = method.scores(inputs)
        by_player = player_scores(inputs, scores.tokens)
        measures, curves = evaluate_rankings(evaluation, [by_player], self.evaluation_settings)
        unit = as_metric(self.metric).unit
        data = measure_variables(measures, 1, unit) | curve_variables(curves, 1, unit)
        data |= self._sensitivity_variables(method, inputs, by_player)
        tokens = attributed_tokens(inputs, scores).numpy()[None]
        data["attribution"] = variable(("method", "prompt", "pos"), tokens, scores.units or unit, "evaluated scores")
        data["token"] = token_texts(inputs.model.text, inputs.batch.clean, inputs.batch.lengths)
        coords = {
            "method": [method.card.name],
            "prompt": list(range(len(batch))),
            "pos": position_labels(batch, list(range(batch.n_pos))),
            "share": np.linspace(0, 1, 21),
        }
        cost = {
            "forward_passes": (evaluation.tally.forward + inputs.tally.forward) / len(batch),
            "seconds": work_seconds() - started,
        }
        dataset = xr.Dataset(data, coords=coords).isel(method=0)
        return Result(dataset, run_info(self, model, batch, cost=cost, notes=scores.notes))

    def _sensitivity_variables(
        self, method: Attribution, inputs: AttributionInput, scores: np.ndarray
    ) -> dict[str, xr.DataArray]:
        """Max-sensitivity and the similarity under random weights, as far as the fields ask for them."""
        data: dict[str, xr.DataArray] = {}
        if self.sensitivity_draws:
            draws = {"radius": self.radius, "draws": self.sensitivity_draws, "seed": self.seed}
            change = max_sensitivity(method, inputs, scores, **draws)
            meaning = f"largest relative change of scores as the input moves by {self.radius} of its spread"
            data |= bounded("max_sensitivity", ("method",), change[:, None], units="fraction", meaning=meaning)
        if self.randomise:
            similarity = randomisation_similarity(method, inputs, scores, seed=self.seed)
            meaning = "Spearman's correlation of scores' magnitudes with those on random weights"
            data |= bounded(
                "randomisation_similarity", ("method",), similarity[:, None], units="correlation", meaning=meaning
            )
        return data
