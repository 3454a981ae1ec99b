"""Refuses results whose numbers overflowed, without mistaking padding, special tokens or missing positions for it."""

import numpy as np
import xarray as xr

from mechxai.core.errors import NumericsError
from mechxai.core.result import Result, ResultKind

_HEADLINES = ("value", "per_example", "pattern", "attribution", "target_logprob", "target_score", "baseline_score")
_PLACES = frozenset({"pos", "dest_pos", "src_pos", "player"})  # axes along which NaN stands for "no such position"
_COMPLETE: frozenset[ResultKind] = frozenset(
    {"grid", "patching", "ablation", "head_roles", "edges", "lens", "lens_training", "contributions", "attribution"}
)  # kinds that leave out no entry for another reason


def check_result(result: Result) -> None:
    """Refuses a result with NaN or infinity among its main numbers.

    NaN at a position stands for padding, a special token or a position that a prompt lacks, if it stands there in every
    layer, head or component. Everything else comes of overflow or of an undefined operation.

    Raises:
        NumericsError: names the variable and the first place.
    """
    data = result.data
    listed = result.info.kind == "edges" and "per_example" not in data  # edges read from a list; others have no score
    complete = result.info.kind in _COMPLETE and not listed
    for name in _HEADLINES:
        if name in data and data[name].dtype.kind == "f" and data[name].size:
            bad = np.asarray(_overflowed(data, name, complete=complete))
            if bool(bad.any()):
                raise _error(result, name, bad)


def _overflowed(data: xr.Dataset, name: str, *, complete: bool) -> np.ndarray | np.bool_:
    """The entries of a variable that are not finite and should be."""
    array = data[name]
    values, dims = array.values, array.dims
    logs = array.attrs.get("units") == "nats"  # a probability of zero
    infinite = np.isposinf(values) if logs else np.isinf(values)
    missing = np.isnan(values)
    if "player_index" in data and dims == data["player_index"].dims:
        return infinite | (missing & (data["player_index"].values >= 0))
    if not _PLACES.intersection(dims):
        return infinite | missing if complete else infinite
    others = tuple(axis for axis, dim in enumerate(dims) if dim not in _PLACES and dim != "prompt")
    everywhere = missing.all(axis=others, keepdims=True)  # all layers, heads, components: no such position
    along = tuple(axis for axis, dim in enumerate(dims) if dim != "prompt")
    whole_prompt = missing.all(axis=along, keepdims=True)
    return infinite | (missing & (~everywhere | whole_prompt))


def _error(result: Result, name: str, bad: np.ndarray) -> NumericsError:
    array = result.data[name]
    first = [int(index[0]) for index in bad.nonzero()]
    entry = array[tuple(first)]
    labels = {
        str(dim): entry[dim].item() if dim in entry.coords else index  # pyright: ignore[reportUnknownMemberType]
        for dim, index in zip(array.dims, first, strict=True)
    }
    place = ", ".join(f"{dim} {label}" for dim, label in labels.items())
    value = array.values[tuple(first)]
    where = f" at {place}" if place else ""
    return NumericsError(
        f"{result.info.method.get('name', 'The method')}: {name} is {value}{where}, and {int(bad.sum())} of {bad.size}"
        " numbers are not finite",
        fix="Look for overflow in the model (load it in float32 or bfloat16) or a metric that divides by zero",
    )
