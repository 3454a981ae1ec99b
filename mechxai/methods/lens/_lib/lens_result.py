"""The readings of a lens as a dataset by prompt, layer and position."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.result import variable
from mechxai.engine.contrast import Run
from mechxai.methods.lens._lib.stream_reading import StreamReading
from mechxai.methods.lens._lib.targets import Target
from mechxai.methods.result_parts import bounded, position_labels
from mechxai.model.hooked_model import HookedModel

_DIMS = ("prompt", "layer", "pos")
_MEANING = {
    "target_logprob": ("nats", "log-probability of the target"),
    "target_rank": ("rank", "tokens more probable than the target"),
    "entropy": ("nats", "entropy of the layer's distribution"),
    "kl_to_final": ("nats", "KL divergence of the layer's distribution from the model's output"),
}


def lens_dataset(
    model: HookedModel,
    batch: ContrastBatch,
    read: StreamReading,
    *,
    run: Run,
    over: tuple[str, ...],
    choices: Sequence[Target],
) -> xr.Dataset:
    """The dataset of a lens' result.

    Args:
        model: the model, for its tokenizer and number of layers.
        batch: the prompts.
        read: the readings at every real position, prompt after prompt.
        run: the run that was read.
        over: axes of ``value``.
        choices: the tokens of the trajectories.
    """
    real = batch.mask.cpu()
    arrays = {name: _by_prompt(getattr(read, name), real) for name in _MEANING}
    data = {name: variable(_DIMS, arrays[name], *_MEANING[name]) for name in _MEANING}
    tokens, wide = _by_prompt(read.top_token, real, fill=-1), (*_DIMS, "k")
    data["top_token"] = variable(wide, tokens, "token", "most probable tokens, by id")
    data["top_text"] = variable(wide, _texts(model, tokens), "token", "most probable tokens, as text")
    data["top_logprob"] = variable(
        wide, _by_prompt(read.top_logprob, real), "nats", "log-probability of the top tokens"
    )
    per_example = arrays["target_logprob"] if "pos" in over else _at_answers(arrays["target_logprob"], batch)
    unit, meaning = _MEANING["target_logprob"]
    data |= bounded("value", over, per_example, units=unit, meaning=meaning, title=f"mean {meaning}")
    data["per_example"] = variable(("prompt", *over), per_example, unit, f"{meaning}, per prompt")
    prompts = batch.tokens(run).masked_fill(~batch.mask, -1).cpu().numpy()
    data["token"] = variable(("prompt", "pos"), _texts(model, prompts), "token", "the prompt")
    coords: dict[str, object] = {
        "prompt": list(range(len(batch))),
        "layer": list(range(model.architecture.n_layers + 1)),
        "pos": position_labels(batch, range(batch.n_pos)),
        "k": list(range(tokens.shape[-1])),
    }
    if choices:
        data |= _trajectories(batch, _by_prompt(read.chosen_logprob, real))
        coords["choice"] = [str(token) for token in choices]
    return xr.Dataset(data, coords=coords)


def _trajectories(batch: ContrastBatch, values: np.ndarray) -> dict[str, xr.DataArray]:
    """``chosen_logprob`` at every position, and ``trajectory``, its mean over prompts at the answer position."""
    meaning = "log-probability of the chosen tokens"
    by_choice = _at_answers(values, batch).transpose(0, 2, 1)  # [prompt, choice, layer]
    at_answers = f"{meaning} at the answer position"
    everywhere = {"chosen_logprob": variable((*_DIMS, "choice"), values, "nats", meaning)}
    return everywhere | bounded("trajectory", ("choice", "layer"), by_choice, units="nats", meaning=at_answers)


def _at_answers(values: np.ndarray, batch: ContrastBatch) -> np.ndarray:
    """Selects the answer position: ``[prompt, layer, pos, ...]`` to ``[prompt, layer, ...]``."""
    return values[np.arange(len(batch)), :, batch.answer_pos.cpu().numpy()]


def _by_prompt(values: Tensor, real: Tensor, fill: int | float = float("nan")) -> np.ndarray:
    """Rearranges ``[layer, place, ...]`` to ``[prompt, layer, pos, ...]`` and fills the padding."""
    padded = torch.full((len(values), *real.shape, *values.shape[2:]), fill, dtype=values.dtype)
    padded[:, real] = values
    return padded.transpose(0, 1).numpy()


def _texts(model: HookedModel, tokens: np.ndarray) -> np.ndarray:
    """The text of every token; empty for padding. Each distinct token is decoded once."""
    ids, index = np.unique(tokens, return_inverse=True)
    texts = ["" if token < 0 else model.text.strings([int(token)])[0] for token in ids]
    return np.array(texts, dtype=object)[index].reshape(tokens.shape).astype(str)
