"""The result of a lens: what was read, laid out by prompt, layer and position."""

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import ConfigError, check_choice
from mechxai.core.method import Method
from mechxai.core.result import Result, variable
from mechxai.core.statistics import mean_interval
from mechxai.engine.contrast import RUNS
from mechxai.engine.execution import Execution
from mechxai.methods.lens.reading import Reading, Translate, reading
from mechxai.methods.lens.streams import streams_of
from mechxai.methods.lens.targets import Target, targets_of
from mechxai.methods.record import position_labels, run_info
from mechxai.model.hooked_model import HookedModel

_DIMS = ("prompt", "layer", "pos")
_MEANING = {
    "target_logprob": ("nats", "log-probability of the target"),
    "target_rank": ("rank", "tokens more probable than the target"),
    "entropy": ("nats", "entropy of the layer's distribution"),
    "kl_to_final": ("nats", "KL divergence of the layer's distribution from the model's output"),
}


@runtime_checkable
class Lens(Protocol):
    """A method that reads residual streams; its fields are those of `LogitLens`."""

    @property
    def site(self) -> str:
        """Where it reads."""
        ...

    @property
    def over(self) -> Sequence[str]:
        """Axes of ``value``."""
        ...

    @property
    def target(self) -> Target:
        """The token asked about."""
        ...

    @property
    def run(self) -> str:
        """``clean`` or ``corrupted``."""
        ...

    @property
    def k(self) -> int:
        """Top tokens to keep."""
        ...

    @property
    def tokens(self) -> Sequence[Target]:
        """Tokens whose trajectories are wanted."""
        ...

    @property
    def interventions(self) -> Sequence[Intervention]:
        """Edits of the run."""
        ...

    def settings(self) -> dict[str, object]:
        """As every method's."""
        ...


def check_lens(lens: Lens) -> None:
    """Refuses fields that no lens can have.

    Raises:
        ConfigError: says what is allowed.
    """
    if tuple(lens.over) not in (("layer", "pos"), ("layer",)):
        raise ConfigError(f"over={lens.over} was asked of a lens", allowed="('layer', 'pos') or ('layer',)")
    check_choice("run", lens.run, RUNS)
    if lens.k < 1:
        raise ConfigError(f"k={lens.k} was asked", allowed="1 or more")


def read_lens(
    lens: Lens,
    model: HookedModel,
    batch: ContrastBatch,
    *,
    execution: Execution,
    translate: Translate | None = None,
) -> Result:
    """The result of a lens, whatever stands between its streams and the readout."""
    batch = batch.to(model.device)
    k = min(lens.k, model.architecture.d_vocab)
    asked = torch.stack([targets_of(model, batch, one, run=lens.run) for one in (lens.target, *lens.tokens)], -1)
    streams = streams_of(model, batch, lens.site, run=lens.run, interventions=lens.interventions)
    real = batch.mask
    read = reading(
        model,
        [stream[real] for stream in streams],
        asked[real],
        k=k,
        translate=translate,
        progress=execution.progress,
    )
    return _result(lens, model, batch, read=read)


def _result(lens: Lens, model: HookedModel, batch: ContrastBatch, *, read: Reading) -> Result:
    real = batch.mask.cpu()
    arrays = {name: _laid(getattr(read, name), real) for name in _MEANING}
    data = {name: variable(_DIMS, arrays[name], *_MEANING[name]) for name in _MEANING}
    tokens = _laid(read.top_token, real, fill=-1)
    wide = (*_DIMS, "k")
    data["top_token"] = variable(wide, tokens, "token", "most probable tokens, by id")
    data["top_text"] = variable(wide, _texts(model, tokens), "token", "most probable tokens, as text")
    data["top_logprob"] = variable(wide, _laid(read.top_logprob, real), "nats", "log-probability of the top tokens")
    per_example = arrays["target_logprob"]
    over = tuple(lens.over)
    if over == ("layer",):
        per_example = per_example[np.arange(len(batch)), :, batch.answer_pos.cpu().numpy()]
    unit, meaning = _MEANING["target_logprob"]
    bounds, mean = mean_interval(per_example), _mean(per_example)
    data["value"] = variable(over, mean, unit, f"mean {meaning}")
    data["value_low"] = variable(over, bounds.low, unit, f"{meaning}, 95 % bootstrap over prompts, low")
    data["value_high"] = variable(over, bounds.high, unit, f"{meaning}, 95 % bootstrap over prompts, high")
    data["per_example"] = variable(("prompt", *over), per_example, unit, f"{meaning}, per prompt")
    given = batch.tokens(lens.run)
    strings = [[model.text.strings([int(token)])[0] for token in row] for row in given.tolist()]
    data["token"] = variable(
        ("prompt", "pos"),
        np.where(real.numpy(), np.array(strings, dtype=object), "").astype(str),
        "token",
        "the prompt",
    )
    coords = {
        "prompt": list(range(len(batch))),
        "layer": list(range(model.architecture.n_layers + 1)),
        "pos": position_labels(batch, range(batch.n_pos)),
        "k": list(range(tokens.shape[-1])),
    }
    if lens.tokens:
        data |= _trajectories(batch, _laid(read.chosen_logprob, real))
        coords["choice"] = [str(token) for token in lens.tokens]
    cost = {"forward_passes": float(len(batch)), "readouts": float(read.entropy.numel())}
    return Result(xr.Dataset(data, coords=coords), run_info(cast("Method", lens), model, batch, cost=cost))


def _trajectories(batch: ContrastBatch, values: np.ndarray) -> dict[str, xr.DataArray]:
    """The chosen tokens everywhere; and at the answer position, the mean over prompts, as ``trajectory``."""
    meaning = "log-probability of the chosen tokens"
    at_end = values[np.arange(len(batch)), :, batch.answer_pos.cpu().numpy()].transpose(
        0, 2, 1
    )  # [prompt, choice, layer]
    interval = mean_interval(at_end)
    found = {"": _mean(at_end), "_low": interval.low, "_high": interval.high}
    title = f"{meaning} at the answer position"
    rows = {f"trajectory{end}": variable(("choice", "layer"), one, "nats", title) for end, one in found.items()}
    return {"chosen_logprob": variable((*_DIMS, "choice"), values, "nats", meaning), **rows}


def _laid(values: Tensor, real: Tensor, fill: int | float = float("nan")) -> np.ndarray:
    """``[layer, place, ...]`` as ``[prompt, layer, pos, ...]``, padding filled."""
    whole = torch.full((len(values), *real.shape, *values.shape[2:]), fill, dtype=values.dtype)
    whole[:, real] = values
    return whole.transpose(0, 1).numpy()


def _texts(model: HookedModel, tokens: np.ndarray) -> np.ndarray:
    """The text of every token, each distinct one decoded once; empty for padding."""
    ids, where = np.unique(tokens, return_inverse=True)
    texts = ["" if token < 0 else model.text.strings([int(token)])[0] for token in ids]
    return np.array(texts, dtype=object)[where].reshape(tokens.shape).astype(str)


def _mean(per_example: np.ndarray) -> np.ndarray:
    """The mean over the prompts that have the position."""
    known = np.isfinite(per_example)
    total = np.where(known, per_example, 0.0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
