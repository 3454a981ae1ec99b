"""`Attribution`: the base of the methods that score the tokens of a prompt."""

from abc import abstractmethod
from typing import Any, ClassVar, cast

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ModelSupportError
from mechxai.core.method import Method
from mechxai.core.metric import AnyMetric, as_metric
from mechxai.core.result import Result
from mechxai.core.work_clock import work_seconds
from mechxai.engine.execution import Execution
from mechxai.methods.attribution._lib.adapters.select import attribution_model
from mechxai.methods.attribution._lib.adapters.token_ids import needs_tokens
from mechxai.methods.attribution._lib.baselines import Baseline
from mechxai.methods.attribution._lib.input import AttributionInput, InputSettings, attribution_input
from mechxai.methods.attribution._lib.players import PlayerKind
from mechxai.methods.attribution._lib.scores import TokenScores, attribution_result

_DEFAULT_BASELINE: Baseline = "zero"  # for the baseline score of methods without a baseline field


class Attribution(Method):
    """Base of the attribution methods. Concrete ones are final frozen dataclasses with these fields among theirs.

    Attributes:
        needs_internals: whether the method needs gradients or attention, which a black box lacks.
        needs_gradients: whether the method needs gradients in the embeddings.
        metric: what is scored.
        players: what receives a score: ``token``, ``word`` or ``span``.
        special: whether special tokens are players too.
    """

    needs_internals: ClassVar[bool] = False
    needs_gradients: ClassVar[bool] = False

    metric: AnyMetric
    players: PlayerKind
    special: bool

    def _check_fields(self) -> None:
        as_metric(self.metric)

    @abstractmethod
    def scores(self, inputs: AttributionInput) -> TokenScores:
        """The score of every token of the inputs' prompts."""

    def inputs(self, model: Any, batch: ContrastBatch, execution: Execution) -> AttributionInput:
        """The input that the method's fields describe.

        Raises:
            ConfigError, ShapeError, ModelSupportError: fields that do not fit, before any forward pass.
        """
        baseline = cast("Baseline", self.settings().get("baseline", _DEFAULT_BASELINE))
        adapted = attribution_model(model)
        if getattr(adapted, "replaces_tokens", False):
            if self.needs_gradients:
                raise needs_tokens(model.name, "a point between embeddings, at which gradients are taken,")
            baseline = cast("Baseline", self.settings().get("baseline", "pad"))
        settings = InputSettings(self.metric, baseline, self.players, self.special)
        inputs = attribution_input(model, batch, settings, execution=execution)
        if self.needs_internals and not inputs.model.has_internals:
            raise ModelSupportError(
                f"{self.card.name} needs gradients or attention, and {model.name} is a black box",
                fix="Use occlusion, lime, kernel_shap, partition_shap or exact_shapley, which need scores only",
            )
        return inputs

    def __call__(self, model: Any, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """A score for every token of the batch's clean prompts; see `attribution_result` for the variables.

        Args:
            model: a `HookedModel`, classifier, encoder, black box, or any other `AttributionModel`.
            batch: the prompts, with the answers (and wrong answers) that the metric scores.
            execution: how to run.

        Raises:
            ConfigError, ShapeError: a baseline, players or answers that do not fit, before any forward pass.
        """
        started = work_seconds()
        inputs = self.inputs(model, batch, execution)
        scores = self.scores(inputs)
        return attribution_result(self, model, batch, inputs=inputs, scores=scores, seconds=work_seconds() - started)
