"""Reading with a tuned lens: what each layer would predict, in its own basis."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import final

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result
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
        question="What would each layer predict, once its own basis is translated into the last layer's?",
        cost="one forward pass per prompt, one unembedding per layer and position; and a lens, trained once",
        source="Belrose et al. 2023 (arXiv 2303.08112)",
        pros="less biased than the logit lens, above all in early layers",
        cons="says what can be read out, not what later layers use",
    )
)
@dataclass(frozen=True)
class TunedLensReading(Method):
    """Reads the residual stream before every block through a trained lens.

    Attributes:
        lens: the lens, or the folder of one: of `TunedLens.save`, of the ``tuned-lens`` package, or of a
            ``tuned_lens_train`` run.
        over, target, run, k, tokens, interventions: as `LogitLens`.

    Source: Belrose et al. 2023.
    """

    lens: TunedLens | str = ""
    over: Sequence[str] = ("layer", "pos")
    target: Target = "answer"
    run: str = "clean"
    k: int = 5
    tokens: Sequence[Target] = ()
    interventions: Sequence[Intervention] = ()

    def _check_fields(self) -> None:
        self._plain()

    def _plain(self) -> LogitLens:
        """What is read, but for the translation: what stands before each block, on which lenses are trained."""
        asked = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "lens"}
        return LogitLens("resid_pre", **asked)

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """What every layer says at every position.

        Returns:
            As `LogitLens`.

        Raises:
            ModelSupportError: a lens of another model.
            ArtifactError: no such lens.
            ConfigError: a target that is not one token.

        Cost: as `LogitLens`, and a product of matrices per layer and position.
        """
        lens = opened(self.lens, model)
        return read_lens(self._plain(), model, batch, execution=execution, translate=lens, method=self)


def opened(lens: TunedLens | str, model: HookedModel) -> TunedLens:
    """The lens, loaded where a folder was given, and checked against the model."""
    if isinstance(lens, str):
        if not lens:
            raise ConfigError(
                "A tuned lens was asked", got="no lens", fix="give lens=<folder>; experiment=tuned_lens_train makes one"
            )
        return TunedLens.load(lens, model)
    lens.check(model)
    return lens
