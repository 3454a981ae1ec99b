"""Datasets as netCDF files with a checksum, and their attributes in the types that netCDF has."""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import h5netcdf  # pyright: ignore[reportMissingTypeStubs]
import h5py  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
import xarray as xr

from mechxai.core.errors import ArtifactError
from mechxai.core.files import atomic_write
from mechxai.core.pieces import checksum

_CHECKSUM = "mechxai_checksum"
_AGAIN = "Run the same command again"
_JSON = "mechxai_json:"  # before an attribute that is stored as JSON


def write_netcdf(data: xr.Dataset, path: Path) -> None:
    """Writes a dataset atomically, with a checksum of what a reader gets: netCDF changes some types."""
    with atomic_write(path) as part:
        data.to_netcdf(part, engine="h5netcdf")  # pyright: ignore[reportUnknownMemberType]  # partly untyped in xarray
        digest = checksum(_parts(_opened(part)))
        with h5netcdf.File(part, "a") as file:
            file.attrs[_CHECKSUM] = digest


def read_netcdf(path: Path, *, required: str) -> xr.Dataset:
    """The dataset in a file that `write_netcdf` wrote.

    Args:
        path: of the file.
        required: an attribute without which the file is not ours.

    Raises:
        ArtifactError: it cannot be read, is not ours, or is damaged.
    """
    try:
        data = _opened(path)
    except Exception as error:
        raise ArtifactError(f"{path} cannot be read as netCDF: {error}") from error
    if required not in data.attrs:
        raise ArtifactError(f"{path} is a netCDF file without MechXAI's run info")
    if _CHECKSUM not in data.attrs:
        raise ArtifactError(f"{path} has no checksum: an earlier version or another program wrote it", fix=_AGAIN)
    if data.attrs.pop(_CHECKSUM) != checksum(_parts(data)):
        raise ArtifactError(f"{path} is damaged: its checksum differs", fix=_AGAIN)
    return data


def storable(data: xr.Dataset) -> xr.Dataset:
    """The dataset with every attribute that netCDF cannot hold as JSON text, and every name as text."""
    return _with_attributes(data, _stored)


def restored(data: xr.Dataset) -> xr.Dataset:
    """The dataset with the attributes that `storable` changed as they were; tuples become lists.

    Raises:
        ValueError: an attribute is damaged.
    """
    return _with_attributes(data, _read)


def _opened(path: Path) -> xr.Dataset:
    with h5py.File(path):  # says what is wrong with a damaged file; h5netcdf leaves half-made objects
        pass
    with xr.open_dataset(path, engine="h5netcdf") as opened:  # pyright: ignore[reportUnknownMemberType]
        return opened.load()  # pyright: ignore[reportUnknownMemberType]


def _parts(data: xr.Dataset) -> Iterator[bytes]:
    """What a checksum covers.

    Yields:
        The attributes, then of every array name, dims, type, attributes and values.
    """
    yield repr(sorted((str(key), str(value)) for key, value in data.attrs.items())).encode()
    for name, array in sorted(data.variables.items(), key=lambda item: str(item[0])):
        attributes = sorted((str(key), str(value)) for key, value in array.attrs.items())
        values: np.ndarray = np.asarray(array.values)
        yield f"\n{name} {array.dims} {values.shape} {values.dtype} {attributes}\n".encode()
        yield values.tobytes() if values.dtype.kind in "biufcmM" else repr(values.tolist()).encode()


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
