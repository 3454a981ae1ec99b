"""Evaluation of a tuned lens on held-out tokens, against the logit lens and a bias-only lens."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.result import Result, variable
from mechxai.core.work_clock import work_seconds
from mechxai.engine.checkpoint import TENSORS
from mechxai.engine.execution import Execution
from mechxai.engine.finished import FinishedPieces
from mechxai.methods.lens._lib.stream_reading import StreamReading, Translate, reading
from mechxai.methods.lens._lib.streams import streams_of
from mechxai.methods.lens._lib.targets import targets_of
from mechxai.methods.lens._lib.tuned_lens import TunedLens
from mechxai.methods.lens.tuned_lens_reading import load_lens
from mechxai.methods.result_parts import bounded, run_info
from mechxai.model.hooked_model import HookedModel

TRAIN = "train"
_NAMES = {"": "tuned lens", "_logit_lens": "logit lens", "_bias_only": "biases alone"}
_HELD_OUT_EVERY = 4  # one prompt in four is held out


@final
@register(
    MethodCard(
        name="tuned_lens_eval",
        family="lens",
        kind="lens_evaluation",
        question="Does a tuned lens predict better than the logit lens on tokens it was not trained on?",
        cost="one forward pass per prompt; two unembeddings per token and layer, and one per pair of layers",
        source="Belrose et al. 2023 (arXiv 2303.08112), sections 3.2 and 4",
        pros="held-out tokens, and both baselines",
        cons="does not show what the model uses",
    )
)
@dataclass(frozen=True)
class TunedLensEvaluation(Method):
    """Evaluates a lens on the clean prompts of the task, which should not be those it was trained on.

    Attributes:
        lens: a lens or its folder, as in `TunedLensReading`; or ``train``, to train a lens on three quarters of the
            prompts (both runs) and evaluate it on the rest.
        bias_only: the baseline lens trained with ``bias_only``, in the same form; none by default.
        transfer: also read every layer with every other layer's translator.
        steps, tokens_per_step, seed: recipe of a lens trained here; its other fields have their defaults.

    Source: Belrose et al. 2023, sections 3.2 (bias-only), 4.1 (transfer).
    """

    lens: TunedLens | str = ""
    bias_only: TunedLens | str | None = None
    transfer: bool = True
    steps: int = 150
    tokens_per_step: int = 2048
    seed: int = 0

    def __call__(self, model: HookedModel, batch: ContrastBatch, *, execution: Execution = Execution()) -> Result:  # noqa: B008 - frozen
        """Evaluates the lens; all values are means over real tokens, in nats.

        Returns:
            ``kl``, ``kl_logit_lens`` (and ``kl_bias_only``), ``entropy``, ``cross_entropy``,
            ``cross_entropy_logit_lens`` [layer], means over tokens; ``value`` [lens, layer], the KL divergence of every
            lens, as mean over prompts with an interval; ``gain`` [layer], KL divergence of the logit lens minus that of
            the lens, with an interval; ``transfer`` [translator, layer], the KL divergence of layers read with the
            translators of other layers.

        Raises:
            ModelSupportError: a lens of another model.
            ArtifactError: a lens that does not exist.

        Cost: one forward pass per prompt; two unembeddings per token and layer, and one per pair of layers.
        """
        started, batch = work_seconds(), batch.to(model.device)
        training, batch = self._split(batch)
        lens = self._lens(self.lens, model, training, execution=execution)
        lenses: dict[str, Translate | None] = {"": lens, "_logit_lens": None}
        if self.bias_only is not None:
            lenses["_bias_only"] = self._lens(self.bias_only, model, training, execution=execution, bias_only=True)
        real = batch.mask
        streams = [stream[real] for stream in streams_of(model, batch, "resid_pre", run="clean")]
        targets = targets_of(model, batch, "next", run="clean")[real][:, None]
        data: dict[str, xr.DataArray] = {}
        readings: dict[str, StreamReading] = {}
        for name, translate in lenses.items():
            finished = FinishedPieces(execution.cells, "lens", model, batch, translate, serializer=TENSORS)
            readings[name] = reading(
                model, streams, targets, k=1, translate=translate, progress=execution.progress, finished=finished
            )
            data |= _means(readings[name], name)
        by_prompt = [_by_prompt(read.kl_to_final[:-1], batch.mask.cpu()) for read in readings.values()]
        meaning = "KL divergence from the model's output"
        data |= bounded("value", ("lens", "layer"), np.stack(by_prompt, 1), units="nats", meaning=meaning)
        meaning = "KL divergence saved over the logit lens"
        data |= bounded("gain", ("layer",), by_prompt[1] - by_prompt[0], units="nats", meaning=meaning)
        coords: dict[str, object] = {"layer": list(range(model.architecture.n_layers))}
        coords["lens"] = [_NAMES[name] for name in readings]
        readouts = readings[""].entropy.numel() * len(readings)
        if self.transfer:
            matrix = _transfer(model, lens, streams)
            data["transfer"] = variable(
                ("translator", "layer"), matrix, "nats", "KL divergence of a layer read by another's translator"
            )
            coords["translator"] = list(range(model.architecture.n_layers))
            readouts += matrix.size * len(streams[0])
        passes = {"forward_passes": float(len(batch)), "readouts": float(readouts)}
        cost = {**passes, "seconds": work_seconds() - started}
        return Result(xr.Dataset(data, coords=coords), run_info(self, model, batch, cost=cost))

    def _split(self, batch: ContrastBatch) -> tuple[ContrastBatch | None, ContrastBatch]:
        """Prompts for training (None if nothing is trained) and for evaluation; no prompt is in both."""
        if TRAIN not in (self.lens, self.bias_only):
            return None, batch
        if len(batch) < _HELD_OUT_EVERY:
            raise ConfigError(
                f"Training and evaluating a lens needs at least {_HELD_OUT_EVERY} prompts, not {len(batch)}",
                fix="Give more prompts, or the folder of a lens",
            )
        held_out = torch.arange(len(batch), device=batch.clean.device) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
        return batch.rows((~held_out).nonzero()[:, 0]), batch.rows(held_out.nonzero()[:, 0])

    def _lens(
        self,
        lens: TunedLens | str,
        model: HookedModel,
        training: ContrastBatch | None,
        *,
        execution: Execution,
        bias_only: bool = False,
    ) -> TunedLens:
        if lens != TRAIN or training is None:
            return load_lens(lens, model)
        folder = None if execution.cells is None else execution.cells / ("bias_only" if bias_only else "training")
        return TunedLens.train(
            model,
            torch.cat([training.clean, training.corrupted]),
            lengths=training.lengths.repeat(2),
            checkpoints=folder,
            log=execution.log,
            progress=execution.progress,
            steps=self.steps,
            tokens_per_step=self.tokens_per_step,
            seed=self.seed,
            bias_only=bias_only,
        )


def _means(read: StreamReading, name: str) -> dict[str, xr.DataArray]:
    of = f"the {_NAMES[name]}"
    rows = {
        "kl": (read.kl_to_final, f"KL divergence of {of} from the model's output"),
        "cross_entropy": (-read.target_logprob, f"cross-entropy of {of} to the token that follows"),
        "entropy": (read.entropy, f"entropy of {of}"),
    }
    return {
        f"{key}{name}": variable(("layer",), np.nanmean(values[:-1].numpy(), 1), "nats", meaning)
        for key, (values, meaning) in rows.items()
    }


def _by_prompt(values: Tensor, real: Tensor) -> np.ndarray:
    """Each prompt's mean, ``[prompt, layer]``, of values ``[layer, place]``."""
    prompt = real.nonzero()[:, 0]
    sums = torch.zeros(len(real), len(values), dtype=values.dtype).index_add_(0, prompt, values.T)
    return (sums / real.sum(1, keepdim=True)).numpy()


def _transfer(model: HookedModel, lens: TunedLens, streams: list[Tensor]) -> np.ndarray:
    """KL divergence of every layer read with every layer's translator, ``[translator, layer]``."""
    rows = []
    no_targets = torch.full((len(streams[0]), 1), -1, device=streams[0].device)
    for translator in range(len(streams) - 1):
        read = reading(
            model, streams, no_targets, k=1, translate=lambda _, stream, layer=translator: lens(layer, stream)
        )
        rows.append(read.kl_to_final[:-1].mean(1).numpy())
    return np.stack(rows)
