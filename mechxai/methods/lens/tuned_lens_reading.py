"""Tuned lens: read the residual stream of every layer through trained affine translators."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import final

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result
from mechxai.engine.contrast import Run
from mechxai.engine.execution import Execution
from mechxai.methods.lens._lib.targets import Target
from mechxai.methods.lens._lib.tuned_lens import TunedLens
from mechxai.methods.lens.logit_lens import LogitLens, read_lens
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="tuned_lens",
        family="lens",
        kind="lens",
        question="What would each layer predict, once its basis is translated into that of the last layer?",
        cost="one forward pass per prompt, one unembedding per layer and position; and a lens, trained once",
        source="Belrose et al. 2023 (arXiv 2303.08112)",
        pros="less biased than the logit lens, above all in early layers",
        cons="shows what can be read out, not what later layers use",
    )
)
@dataclass(frozen=True)
class TunedLensReading(Method):
    """Reads the residual stream before every block through a trained lens.

    Attributes:
        lens: a lens, or the folder of a lens written by `TunedLens.save`, by the ``tuned-lens`` package, or by a
            ``tuned_lens_train`` run.
        over, target, run, k, tokens, interventions: as in `LogitLens`.

    Source: Belrose et al. 2023.
    """

    lens: TunedLens | str = ""
    over: Sequence[str] = ("layer", "pos")
    target: Target = "answer"
    run: Run = "clean"
    k: int = 5
    tokens: Sequence[Target] = ()
    interventions: Sequence[Intervention] = ()

    def _check_fields(self) -> None:
        self._logit_lens()

    def _logit_lens(self) -> LogitLens:
        """The logit lens with the same settings, at ``resid_pre``, on which tuned lenses are trained."""
        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "lens"}
        return LogitLens("resid_pre", **settings)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Reads every layer at every position.

        Returns:
            As for `LogitLens`.

        Raises:
            ModelSupportError: a lens of another model.
            ArtifactError: a lens that does not exist.
            ConfigError: a target that is not one token.

        Cost: that of `LogitLens`, and a matrix product per layer and position.
        """
        lens = load_lens(self.lens, model)
        return read_lens(self._logit_lens(), model, batch, execution=execution, translate=lens, method=self)


def load_lens(lens: TunedLens | str, model: HookedModel) -> TunedLens:
    """The lens, loaded if it is given as a folder, and checked against the model."""
    if isinstance(lens, str):
        if not lens:
            raise ConfigError("lens is empty", fix="Give lens=<folder>; experiment=tuned_lens_train trains a lens")
        return TunedLens.load(lens, model)
    lens.check(model)
    return lens
