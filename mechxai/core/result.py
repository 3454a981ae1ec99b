"""What every method returns and everything else reads: named arrays with units, and how they came about."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from mechxai.core.errors import ArtifactError, ShapeError
from mechxai.core.files import atomic_write

_INFO = "mechxai_run_info"
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
"""What a result holds, which decides how it is drawn, tabulated and put into sentences."""


@dataclass(frozen=True)
class RunInfo:
    """How a result came about: enough for another lab to repeat it.

    Attributes:
        method: name and fields of the method.
        model: name, backend, weight processing, dtype, device, weight hash, architecture.
        task: name and settings of the task, and what was dropped.
        seed: the run's seed.
        versions: of Python and the libraries that decide numbers.
        commit: of MechXAI, when it runs from a checkout.
        cost: forward passes, cells, cells reused, seconds.
        notes: warnings a reader of the numbers must know.
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


@dataclass(frozen=True)
class Result:
    """A dataset with named dims, coords and units, and its `RunInfo`.

    Attributes:
        data: the headline array is ``data["value"]``; every array carries ``units`` and ``long_name``.
        info: how it came about.
    """

    data: xr.Dataset
    info: RunInfo

    def __post_init__(self) -> None:
        for name, array in self.data.data_vars.items():
            if "units" not in array.attrs or "long_name" not in array.attrs:
                raise ShapeError(f"Result variable {name!r} lacks units or long_name", got=dict(array.attrs))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes netCDF (h5netcdf), whole or not at all; returns the path."""
        stored = self.data.assign_attrs({_INFO: json.dumps(self.info.as_dict(), default=str)})
        with atomic_write(path) as part:
            stored.to_netcdf(part, engine="h5netcdf")  # pyright: ignore[reportUnknownMemberType]  # partly untyped in xarray
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Result":
        """The result a file holds.

        Raises:
            ArtifactError: no such file, or not one of ours.
        """
        source = Path(path)
        if not source.is_file():
            raise ArtifactError(f"Result {source} was asked", got="no such file")
        try:  # pyright: ignore below, since xarray leaves its keyword arguments untyped
            with xr.open_dataset(source, engine="h5netcdf") as opened:  # pyright: ignore[reportUnknownMemberType]
                data = opened.load()  # pyright: ignore[reportUnknownMemberType]
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"Result {source} was asked", got=f"a file that cannot be read ({error})") from error
        if _INFO not in data.attrs:
            raise ArtifactError(f"Result {source} was asked", got="a netCDF file without MechXAI's run info")
        info = json.loads(data.attrs.pop(_INFO))
        info["notes"] = tuple(info["notes"])
        return cls(data, RunInfo(**info))


def variable(  # noqa: PLR0917 - a row of a result: dims, values, units, name, as `xarray.Variable` has them
    dims: tuple[str, ...], values: object, units: str, long_name: str
) -> xr.DataArray:
    """An array for a result, with the units and long name it must carry."""
    return xr.DataArray(np.asarray(values), dims=dims, attrs={"units": units, "long_name": long_name})
