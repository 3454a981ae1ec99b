"""Results on disk: a round trip changes nothing, and writes are atomic."""

import numpy as np
import pytest
import xarray as xr

import mechxai as mx
from mechxai.core.errors import ArtifactError, ShapeError
from mechxai.core.result import Result, RunInfo, variable


def result():
    values = np.arange(6.0).reshape(2, 3)
    values[1, 2] = np.nan
    data = xr.Dataset(
        {
            "value": variable(("layer", "pos"), values, "logits", "mean logit_diff"),
            "count": variable((), 3, "prompts", "how many"),
            "role": variable(("layer",), ["", "name mover"], "role", "what it does"),
        },
        coords={"layer": [0, 5], "pos": ["0: <s>", "1: Mary", "2: é→"], "site": "resid_pre"},
        attrs={"experiment": "one"},
    )
    info = RunInfo(
        method={"name": "activation_patching", "site": "resid_pre", "over": ["layer", "pos"]},
        model={"name": "zoo/ioi", "architecture": {"n_layers": 2}},
        task={"name": "ioi", "dropped": {"long": 2}},
        seed=7,
        versions={"python": "3.11"},
        commit="abc+",
        cost={"seconds": 1.5},
        notes=("read me", "and me"),
    )
    return Result(data, info)


def test_reads_back_as_it_was_saved(tmp_path):
    before = result()
    path = before.save(tmp_path / "deep" / "er" / "result.nc")
    after = mx.Result.load(path)
    xr.testing.assert_identical(after.data, before.data)
    assert after.info == before.info
    assert after.data["value"].attrs == {"units": "logits", "long_name": "mean logit_diff"}
    assert "mechxai_run_info" not in before.data.attrs, "saving leaves the dataset alone"
    assert after.save(tmp_path / "again.nc").exists()


def test_title():
    assert result().info.title == "activation_patching of resid_pre on zoo/ioi, ioi"
    assert RunInfo().title == "result on ?"


@pytest.mark.parametrize("attrs", [{}, {"units": "logits"}, {"long_name": "x"}])
def test_units_and_long_name_are_required(attrs):
    with pytest.raises(ShapeError, match="'value' lacks units or long_name"):
        Result(xr.Dataset({"value": xr.DataArray([1.0], dims="a", attrs=attrs)}), RunInfo())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = result().save(tmp_path / "result.nc")
    before = path.read_bytes()

    def fails(self, part, **_):
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fails)
    with pytest.raises(OSError, match="disk full"):
        result().save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["result.nc"]
    assert path.read_bytes() == before


def test_writing_over_a_file_replaces_it(tmp_path):
    path = tmp_path / "result.nc"
    Result(result().data.isel(layer=[0]), RunInfo()).save(path)
    result().save(path)
    assert mx.Result.load(path).data.sizes["layer"] == 2


def test_files_that_are_not_ours_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        mx.Result.load(tmp_path / "none.nc")
    xr.Dataset({"x": ("a", [1.0])}).to_netcdf(tmp_path / "foreign.nc", engine="h5netcdf")
    with pytest.raises(ArtifactError, match="without MechXAI's run info"):
        mx.Result.load(tmp_path / "foreign.nc")


@pytest.mark.parametrize("content", [b"", b"not netCDF at all", b"\x89HDF\r\n\x1a\n cut off"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "damaged.nc").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"damaged.nc"):
        mx.Result.load(tmp_path / "damaged.nc")


def test_a_result_of_a_method_survives_the_disk(tmp_path, model_of, pairs):
    model = model_of("gpt2")
    before = mx.ActivationPatching("z", ("layer", "head"))(model, pairs(model))
    after = mx.Result.load(before.save(tmp_path / "r.nc"))
    xr.testing.assert_identical(after.data, before.data)
    assert after.info.method["name"] == "activation_patching"
    assert after.info.model["weight_hash"] == model.weight_hash
    assert after.info.cost == before.info.cost
