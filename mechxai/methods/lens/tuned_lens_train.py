"""Training of a tuned lens as a run that resumes after interruptions; its result holds lens and losses."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

import torch
import xarray as xr

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ArtifactError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.core.work_clock import work_seconds
from mechxai.engine.execution import Execution
from mechxai.methods.lens._lib.training_settings import RecipeFields
from mechxai.methods.lens._lib.tuned_lens import TunedLens, lens_tokens
from mechxai.methods.result_parts import run_info
from mechxai.model.hooked_model import HookedModel


@final
@register(
    MethodCard(
        name="tuned_lens_train",
        family="lens",
        kind="lens_training",
        question="Which affine map lets each layer's residual stream be read by the unembedding?",
        cost="per step, one forward pass over its tokens and two unembeddings per token and layer",
        source="Belrose et al. 2023 (arXiv 2303.08112), section 3.1",
        pros="all layers from one pass; resumes bit for bit",
        cons="limited by the unembedding: about a million tokens on a CPU",
    )
)
@dataclass(frozen=True)
class TunedLensTraining(RecipeFields, Method):
    """Trains a lens on the task's prompts (both runs), or on a file of texts.

    Attributes:
        texts: a file with one document per line, used instead of the task's prompts.
        length: tokens per row of texts.
        steps, tokens_per_step, optimizer, lr_scale, weight_decay, clip, loss, bias_only, seed, checkpoint_every: see
            `RecipeFields`.

    Source: Belrose et al. 2023, section 3.1; the recipe of the ``tuned-lens`` package.
    """

    texts: str | None = None
    length: int = 256

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Trains the lens and returns it with its losses.

        Returns:
            ``loss`` [step, layer] in nats, and ``value`` [step], its mean over layers; ``A`` [layer, d_model, d_in],
            ``b`` [layer, d_model]. The run's folder can be given to other methods as ``lens=``.

        Raises:
            ModelSupportError: a bidirectional model.
            ArtifactError: a file of texts that does not exist or holds too few tokens.

        Cost: per step, one forward pass over its tokens and two unembeddings per token and layer.
        """
        started = work_seconds()
        tokens, lengths = self._training_tokens(model, batch)
        checkpoints = None if execution.cells is None else execution.cells / "training"
        lens = TunedLens.train(
            model,
            tokens,
            lengths=lengths,
            checkpoints=checkpoints,
            log=execution.log,
            progress=execution.progress,
            **self._recipe(),
        )
        rows = max(1, self.tokens_per_step // tokens.shape[1])
        cost = {
            "steps": float(self.steps),
            "forward_passes": float(self.steps * rows),
            "seconds": work_seconds() - started,
        }
        return Result(_dataset(lens), run_info(self, model, batch, cost=cost))

    def _recipe(self) -> Mapping[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(RecipeFields)}

    def _training_tokens(self, model: HookedModel, batch: ContrastBatch) -> tuple[Tokens, PromptInts | None]:
        if self.texts is None:
            return torch.cat([batch.clean, batch.corrupted]), batch.lengths.repeat(2)
        source = Path(self.texts)
        if not source.is_file():
            raise ArtifactError(
                f"The file of texts {source} does not exist", fix="Give a file with one document per line"
            )
        lines: Sequence[str] = [line for line in source.read_text(encoding="utf-8").split("\n") if line.strip()]
        return lens_tokens(model, lines, self.length), None


def _dataset(lens: TunedLens) -> xr.Dataset:
    losses = torch.zeros(0, len(lens.b)) if lens.losses is None else lens.losses
    A = variable(("layer", "d_model", "d_in"), lens.A.cpu().numpy(), "1", "translators: T(h) = h + A h + b")
    A.attrs["base"] = json.dumps(lens.base)
    A.attrs["recipe"] = json.dumps(lens.recipe)
    data = {
        "value": variable(("step",), losses.mean(1).numpy(), "nats", "mean loss over tokens and layers, by step"),
        "loss": variable(("step", "layer"), losses.numpy(), "nats", "mean loss over tokens"),
        "A": A,
        "b": variable(("layer", "d_model"), lens.b.cpu().numpy(), "1", "biases of the translators"),
    }
    coords = {"step": list(range(len(losses))), "layer": list(range(len(lens.b)))}
    return xr.Dataset(data, coords=coords)
