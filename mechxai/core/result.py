"""Results: named arrays with units, and the provenance of the run that made them."""

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from mechxai.core.display import Displayed, Summary
from mechxai.core.errors import ArtifactError, ShapeError
from mechxai.core.files import atomic_write
from mechxai.core.pieces import checksum
from mechxai.core.secrets import masked

_INFO, _CHECKSUM = "mechxai_run_info", "mechxai_checksum"
ResultKind = Literal[
    "grid",
    "patching",
    "ablation",
    "head_roles",
    "edges",
    "circuit_curve",
    "circuit_comparison",
    "circuit_criteria",
    "circuit_tests",
    "circuit_stability",
    "routes",
    "lens",
    "lens_training",
    "lens_evaluation",
    "contributions",
    "neuron_factors",
    "probes",
    "probe_check",
    "faithfulness",
    "attribution_comparison",
    "rephrasing_stability",
    "attention",
    "chain_curve",
    "biasing",
    "planted_error",
    "vote",
    "chain_flow",
    "attribution",
]
"""The content of a result, by which its figure, tables and sentences are chosen."""


@dataclass(frozen=True)
class RunInfo:
    """The provenance of a result, enough for another lab to repeat it.

    Attributes:
        method: name and fields of the method.
        model: name, backend, weight processing, dtype, device, weight hash, architecture.
        task: name and settings of the task, and how many prompts were dropped.
        seed: the run's seed.
        versions: of Python and the packages that affect results.
        commit: of the MechXAI checkout, if any.
        cost: forward passes, cells, cells reused, seconds.
        notes: warnings for readers of the numbers.
        kind: what the result holds.
    """

    method: Mapping[str, object] = field(default_factory=dict[str, object])
    model: Mapping[str, object] = field(default_factory=dict[str, object])
    task: Mapping[str, object] = field(default_factory=dict[str, object])
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    commit: str | None = None
    cost: Mapping[str, float] = field(default_factory=dict[str, float])
    notes: tuple[str, ...] = ()
    kind: ResultKind = "grid"

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def title(self) -> str:
        """``activation_patching of resid_pre on zoo/ioi, ioi``."""
        site = self.method.get("site")
        of = f" of {site}" if site else ""
        task = self.task.get("name")
        return f"{self.method.get('name', 'result')}{of} on {self.model.get('name', '?')}" + (
            f", {task}" if task else ""
        )


@dataclass(frozen=True, repr=False)
class Result(Displayed):
    """A dataset with named dims, coords and units, and its `RunInfo`.

    Attributes:
        data: the headline array is ``data["value"]``; every array carries ``units`` and ``long_name``.
        info: its provenance.
    """

    data: xr.Dataset
    info: RunInfo

    def __post_init__(self) -> None:
        for name, array in self.data.data_vars.items():
            if "units" not in array.attrs or "long_name" not in array.attrs:
                raise ShapeError(
                    f"Result variable {name!r} lacks units or long_name: its attributes are {dict(array.attrs)}"
                )

    def summary(self) -> Summary:
        """Title, each variable with dims and units, notes."""
        rows: list[tuple[str, ...]] = []
        for name, array in self.data.data_vars.items():
            dims = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
            rows.append((str(name), f"[{dims}]", str(array.attrs["units"]), str(array.attrs["long_name"])))
        notes = [("note", note) for note in self.info.notes]
        return Summary(f"Result: {self.info.title}", [*rows[: 20 - len(notes[:5])], *notes[:5]])

    def plot(self, variable: str | None = None, **options: Any) -> Any:
        """The result's plotly figure, by default of its headline variable; options as `mechxai.plot`."""
        return importlib.import_module("mechxai").plot(self, variable, **options)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes netCDF (h5netcdf) atomically; returns the path."""
        stored = self.data.assign_attrs({_INFO: json.dumps(self.info.as_dict(), default=str)})
        with atomic_write(path) as part:
            stored.to_netcdf(part, engine="h5netcdf")  # pyright: ignore[reportUnknownMemberType]  # partly untyped in xarray
            digest = _checksum(_read(part))  # of what a reader gets: netCDF changes some types
            with h5netcdf.File(part, "a") as file:
                file.attrs[_CHECKSUM] = digest
        return Path(path)

    def masked(self, masks: Mapping[str, str]) -> "Result":
        """The result with texts of its provenance replaced, such as values of the environment; keys of secrets masked.

        Args:
            masks: text -> what stands for it.
        """
        info = masked(self.info.as_dict(), masks)
        return replace(self, info=RunInfo(**info | {"notes": tuple(info["notes"])}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Result":
        """The result in a file.

        Raises:
            ArtifactError: the file does not exist, is damaged, or MechXAI did not write it.
        """
        source = Path(path)
        if not source.is_file():
            raise ArtifactError(f"{source} does not exist", fix="Check the path")
        try:
            data = _read(source)
        except Exception as error:
            raise ArtifactError(f"{source} cannot be read as netCDF: {error}") from error
        if _INFO not in data.attrs:
            raise ArtifactError(f"{source} is a netCDF file without MechXAI's run info")
        if data.attrs.pop(_CHECKSUM, None) != _checksum(data):
            raise ArtifactError(f"{source} is damaged: its checksum differs", fix="Run the same command again")
        info = json.loads(data.attrs.pop(_INFO))
        info["notes"] = tuple(info["notes"])
        return cls(data, RunInfo(**info))


def _read(path: Path) -> xr.Dataset:
    with h5py.File(path):  # says what is wrong with a damaged file; h5netcdf leaves half-made objects
        pass
    with xr.open_dataset(path, engine="h5netcdf") as opened:  # pyright: ignore[reportUnknownMemberType]
        return opened.load()  # pyright: ignore[reportUnknownMemberType]


def _checksum(data: xr.Dataset) -> str:
    """The checksum of every array and attribute of a dataset."""
    return checksum(_parts(data))


def _parts(data: xr.Dataset) -> Iterator[bytes | memoryview]:
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


def variable(  # noqa: PLR0917 - the order of `xarray.Variable`
    dims: tuple[str, ...], values: object, units: str, long_name: str
) -> xr.DataArray:
    """An array for a result, with its units and long name."""
    return xr.DataArray(np.asarray(values), dims=dims, attrs={"units": units, "long_name": long_name})
