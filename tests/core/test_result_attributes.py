"""Results with attributes of any kind, with fields of another version, and with paths that begin with ~."""

import json

import numpy as np
import pytest
import xarray as xr

import mechxai as mx
from mechxai.core.errors import ArtifactError
from mechxai.core.netcdf import read_netcdf, write_netcdf
from mechxai.core.result import _INFO, Result, RunInfo, variable


def result(**attributes):
    data = xr.Dataset({"value": variable(("layer",), [1.0, 2.0], "logits", "effect")}, attrs=attributes)
    return Result(data, RunInfo(method={"name": "mine"}))


VALUES = [None, {"a": {"b": None}}, True, [], ["x", None], [1, 2], (1.5, 2.5), "text", "", 3, 2.5, np.float32(1.5)]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_an_attribute_of_any_kind_is_saved_and_read_as_it_was(tmp_path, value):
    made = result(mine=value)
    made.data["value"].attrs["mine"] = value
    read = Result.load(made.save(tmp_path / "r.nc"))
    for attributes in (read.data.attrs, read.data["value"].attrs):
        found = attributes["mine"]
        assert np.array_equal(found, value) if isinstance(value, (list, tuple)) and value else found == value
    assert made.data.attrs["mine"] is value  # saving changes nothing


def test_attributes_that_are_objects_are_saved_as_text(tmp_path):
    read = Result.load(result(mine={"path": tmp_path, 1: np.arange(2)}).save(tmp_path / "r.nc"))
    assert read.data.attrs["mine"] == {"path": str(tmp_path), "1": [0, 1]}


def test_a_path_with_a_tilde_means_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert result().save("~/r.nc") == tmp_path / "r.nc"
    assert not (tmp_path / "~").exists()
    assert Result.load("~/r.nc").data["value"].values.tolist() == [1.0, 2.0]


def rewritten(path, change):
    data = read_netcdf(path, required=_INFO)
    info = change(json.loads(data.attrs[_INFO]))
    data.attrs[_INFO] = info if isinstance(info, str) else json.dumps(info)
    write_netcdf(data, path)
    return path


def test_fields_of_a_newer_version_are_named_in_a_note(tmp_path):
    path = rewritten(result().save(tmp_path / "r.nc"), lambda info: {**info, "carbon": 3, "mood": "good"})
    read = Result.load(path)
    assert read.info.method == {"name": "mine"}
    assert read.info.notes == ("written by another version of MechXAI; not read: carbon, mood",)


def test_a_result_of_a_version_without_notes_is_read(tmp_path):
    path = rewritten(result().save(tmp_path / "r.nc"), lambda info: {"method": info["method"]})
    assert Result.load(path).info.notes == ()


@pytest.mark.parametrize("info", ["[]", "{", "3", '{"method": 7}', '{"notes": 5}'])
def test_damaged_run_info_is_refused_in_a_sentence(tmp_path, info):
    path = rewritten(result().save(tmp_path / "r.nc"), lambda _: info)
    with pytest.raises(ArtifactError, match="cannot read"):
        mx.Result.load(path)
