"""Attributes of a dataset in the types that netCDF has, and back."""

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any, cast

import numpy as np
import xarray as xr

_JSON = "mechxai_json:"  # before an attribute that is stored as JSON


def storable(data: xr.Dataset) -> xr.Dataset:
    """The dataset with every attribute that netCDF cannot hold as JSON text, and every name as text."""
    return _with_attributes(data, _stored)


def restored(data: xr.Dataset) -> xr.Dataset:
    """The dataset with the attributes that `storable` changed as they were; tuples become lists.

    Raises:
        ValueError: an attribute is damaged.
    """
    return _with_attributes(data, _read)


def _with_attributes(data: xr.Dataset, change: Callable[[object], object]) -> xr.Dataset:
    changed = data.copy(deep=False)
    changed.attrs = _changed(data.attrs, change)
    for name, array in data.variables.items():
        changed[name].attrs = _changed(array.attrs, change)
    return changed


def _changed(attributes: Mapping[Hashable, Any], change: Callable[[object], object]) -> dict[str, object]:
    return {str(name): change(value) for name, value in attributes.items()}


def _stored(value: object) -> object:
    if isinstance(value, (str, np.number)) or type(value) in (int, float):
        return cast("object", value)
    if isinstance(value, (list, tuple, np.ndarray)):
        items = np.asarray(value, dtype=object)
        if items.size and all(type(item) in (int, float) for item in items.ravel().tolist()):
            return np.asarray(items.tolist())
    return _JSON + json.dumps(value, default=_plain)


def _plain(value: object) -> object:
    return cast("Any", value).tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


def _read(value: object) -> object:
    if isinstance(value, str) and value.startswith(_JSON):
        return json.loads(value.removeprefix(_JSON))
    return value
