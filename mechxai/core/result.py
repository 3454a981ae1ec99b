"""Results: named arrays with units, and the provenance of the run that made them."""

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import xarray as xr

from mechxai.core.display import Displayed, Summary
from mechxai.core.errors import ArtifactError, ShapeError
from mechxai.core.netcdf import read_netcdf, restored, storable, write_netcdf
from mechxai.core.secrets import masked

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
        """Writes netCDF (h5netcdf) atomically; returns the path, with ``~`` replaced by the home folder.

        Attributes that netCDF does not have (None, truth values, dicts, lists of them) are written as JSON, and read as
        they were.
        """
        target = Path(path).expanduser()
        stored = storable(self.data).assign_attrs({_INFO: json.dumps(self.info.as_dict(), default=str)})
        write_netcdf(stored, target)
        return target

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
            ArtifactError: the file does not exist, is damaged, MechXAI did not write it, or a newer version of it did.
        """
        source = Path(path).expanduser()
        if not source.is_file():
            raise ArtifactError(f"{source} does not exist", fix="Check the path")
        data = read_netcdf(source, required=_INFO)
        try:
            info = run_info(data.attrs.pop(_INFO))
            return cls(restored(data), info)
        except (TypeError, ValueError, KeyError) as error:
            raise ArtifactError(
                f"{source} is a result that this version of MechXAI cannot read: {error}",
                fix="Read it with the version that wrote it",
            ) from error


def run_info(text: str) -> RunInfo:
    """The run info in JSON; fields that a newer version has added are named in a note.

    Raises:
        ValueError: no JSON object, or a field of another type.
    """
    stored = json.loads(text)
    if not isinstance(stored, dict):
        raise ValueError("its run info is no JSON object")
    info = cast("dict[str, Any]", stored)
    known: dict[str, Any] = {entry.name: info[entry.name] for entry in fields(RunInfo) if entry.name in info}
    for name in ("method", "model", "task", "versions", "cost"):
        if not isinstance(known.get(name, {}), dict):
            raise ValueError(f"{name} of its run info is {known[name]!r}")
    notes = [str(note) for note in known.get("notes", ())]
    unread = sorted(set(info) - set(known))
    if unread:
        notes.append(f"written by another version of MechXAI; not read: {', '.join(unread)}")
    settled: dict[str, Any] = {**known, "notes": tuple(notes)}
    return RunInfo(**settled)


def variable(  # noqa: PLR0917 - the order of `xarray.Variable`
    dims: tuple[str, ...], values: object, units: str, long_name: str
) -> xr.DataArray:
    """An array for a result, with its units and long name."""
    return xr.DataArray(np.asarray(values), dims=dims, attrs={"units": units, "long_name": long_name})
