"""The scores that a black box returns, in any of the forms in which libraries return them."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mechxai.core.errors import ShapeError


def scores_of(value: object, name: str, *, n_texts: int, outputs: Sequence[str]) -> np.ndarray:
    """The scores ``[text, output]`` in float64.

    Args:
        value: a tensor, an array, a DataFrame or nested lists ``[text, output]``; a Hugging Face output with
            ``logits``; or scores by output name, as a dict of columns or a dict per text.
        name: of the black box, for errors.
        n_texts: number of texts.
        outputs: names of the outputs.

    Raises:
        ShapeError: not one finite real number per text and output.
    """
    wanted = f"finite numbers of shape {(n_texts, len(outputs))}: a row per text, {list(outputs)}"
    if _is_pipeline_output(value):
        raise ShapeError(
            f"{name} returned the output of a Hugging Face pipeline, labels with their probabilities",
            allowed=wanted,
            fix="Return the logarithm of each label's score, in the order of the outputs (pipeline with top_k=None)",
        )
    try:
        columns = _in_order(value, outputs)
        scores = np.asarray(_plain(value if columns is None else columns))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"{name} returned a {type(value).__name__} that is no table of numbers", allowed=wanted
        ) from error
    if scores.dtype.kind not in "fiub":
        raise ShapeError(f"{name} returned a {type(value).__name__} that is no table of numbers", allowed=wanted)
    scores = scores.astype(np.float64)
    if scores.shape != (n_texts, len(outputs)) or not np.isfinite(scores).all():
        finite = scores.shape == (n_texts, len(outputs))
        problem = "are not finite" if finite else f"have shape {scores.shape}"
        raise ShapeError(f"The scores of {name} {problem}", allowed=wanted)
    return scores


def _in_order(value: object, outputs: Sequence[str]) -> object:
    """Scores that stand under the outputs' names, in the order of the outputs; None for others."""
    names = set(outputs)
    logits = getattr(value, "logits", None)
    if logits is None and isinstance(value, Mapping):
        logits = cast("Mapping[str, object]", value).get("logits") if "logits" not in names else None
    if logits is not None:
        return logits
    if isinstance(value, Mapping) and set(cast("Mapping[str, object]", value)) == names:
        table = cast("Mapping[str, object]", value)
        return np.stack([np.asarray(_plain(table[output]), dtype=np.float64) for output in outputs], axis=-1)
    if isinstance(value, (list, tuple)):
        rows = cast("list[object]", list(cast("Sequence[object]", value)))
        if rows and all(isinstance(row, Mapping) and set(cast("Mapping[str, object]", row)) == names for row in rows):
            return [[cast("Mapping[str, object]", row)[output] for output in outputs] for row in rows]
    labels = getattr(value, "columns", None)  # of a DataFrame
    if labels is not None and set(labels) == names:
        return cast("Any", value)[list(outputs)]
    return None


def _is_pipeline_output(value: object) -> bool:
    """Whether these are ``{"label": ..., "score": ...}`` entries, in a list or in a list per text."""
    first = value
    while isinstance(first, (list, tuple)) and first:
        first = cast("Sequence[object]", first)[0]
    return isinstance(first, Mapping) and {"label", "score"} <= set(cast("Mapping[str, object]", first))


def _plain(value: object) -> Any:
    """Tensors, of any dtype and with gradients, as arrays; lists of them likewise."""
    if isinstance(value, Tensor):
        detached = value.detach().cpu()
        return (detached.to(torch.float64) if detached.is_floating_point() else detached).numpy()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("Sequence[object]", value)]
    return value
