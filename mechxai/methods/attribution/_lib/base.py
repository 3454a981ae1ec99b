"""What all methods of attribution have in common: from a model and prompts to a problem, from scores to a result."""

import time
from abc import abstractmethod
from typing import Any, ClassVar

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ModelSupportError
from mechxai.core.method import Method
from mechxai.core.metric import AnyMetric
from mechxai.core.result import Result
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.input import AttributionInput, attribution_input
from mechxai.methods.attribution._lib.scores import Scores, attribution_result

_NO_BASELINE = "zero"  # for the baseline score of methods that have none of their own


class Attribution(Method):
    """A way of giving every token a score. Concrete ones are final frozen dataclasses with these fields among theirs.

    Attributes:
        metric: what is scored.
        players: what gets a score: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
        looks_inside: whether it needs gradients or attention; else a black box will do.
    """

    looks_inside: ClassVar[bool] = False

    metric: AnyMetric
    players: str
    special: bool

    @abstractmethod
    def scores(self, problem: AttributionInput) -> Scores:
        """The scores of a problem."""

    def problem(self, model: Any, batch: ContrastBatch, execution: Execution) -> AttributionInput:
        """The problem that the fields describe; bad ones are refused before any forward pass."""
        problem = attribution_input(
            model,
            batch,
            metric=self.metric,
            baseline=str(self.settings().get("baseline", _NO_BASELINE)),
            players=self.players,
            special=self.special,
            execution=execution,
        )
        if self.looks_inside and not problem.subject.inside:
            raise ModelSupportError(
                f"{self.card.name} of {model.name} was asked",
                got="a black box, which takes text and gives scores",
                fix="use occlusion, lime, kernel_shap, partition_shap or exact_shapley, which need no more",
            )
        return problem

    def __call__(self, model: Any, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """A score for every token of the batch's clean prompts; see `attribution_result` for the variables.

        Args:
            model: a `HookedModel`, or anything else `Explained`.
            batch: the prompts, with the answers (and wrong answers) that are scored.
            execution: how to run.

        Raises:
            ConfigError, ShapeError: a baseline, players or answers that do not fit, before any forward pass.
        """
        started = time.perf_counter()
        problem = self.problem(model, batch, execution)
        scores = self.scores(problem)
        return attribution_result(
            self, model, batch, problem=problem, scores=scores, seconds=time.perf_counter() - started
        )
