"""Attributes of a dataset in the types that netCDF has, and back."""

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any

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


def _with_attributes(data: xr.Dataset, change: Callable[[Any], object]) -> xr.Dataset:
    changed = data.copy(deep=False)
    changed.attrs = _changed(data.attrs, change)
    for name, array in data.variables.items():
        changed[name].attrs = _changed(array.attrs, change)
    return changed


def _changed(attributes: Mapping[Hashable, Any], change: Callable[[Any], object]) -> dict[str, object]:
    return {str(name): change(value) for name, value in attributes.items()}


def _stored(value: Any) -> object:
    numbers = isinstance(value, (list, tuple, np.ndarray)) and np.asarray(value, dtype=object).size > 0
    if numbers and all(type(item) in (int, float) for item in np.asarray(value, dtype=object).ravel().tolist()):
        return np.asarray(value)
    if isinstance(value, (str, np.number)) or type(value) in (int, float):
        return value
    return _JSON + json.dumps(value, default=_plain)


def _plain(value: Any) -> object:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


def _read(value: Any) -> object:
    return json.loads(value.removeprefix(_JSON)) if isinstance(value, str) and value.startswith(_JSON) else value
