"""A result in one line: the same cell as a table of all cells begins with."""

import numpy as np
import pytest
import xarray as xr

from mechxai.core.result import Result, variable
from mechxai.figures.cells import largest_cells
from mechxai.figures.selected_variable import select_variable
from mechxai.figures.strongest import strongest
from tests.figures.examples import info, sweep


@pytest.mark.parametrize("over", [("layer", "pos"), ("layer", "head"), ("layer", "head", "neuron")])
def test_strongest_is_the_first_of_all_cells(over):
    result = sweep(over, (4, 6, 3)[: len(over)], site="z" if "head" in over else "resid_pre")
    found = strongest(result)
    assert found.cell == largest_cells(select_variable(result, "recovered").cells(), 1)[0]
    assert found.text == f"recovered 0.9 at {found.cell.name}"
    assert found.variable == "recovered"


def test_nothing_known_is_nothing_said():
    unknown = xr.Dataset({"value": variable(("layer",), np.full(3, np.nan), "logits", "unknown")})
    assert strongest(Result(unknown, info("ablation", "z", ("layer",)))) is None
    texts = xr.Dataset({"top_token": variable(("layer",), np.array(["a", "b"]), "", "texts")})
    assert strongest(Result(texts, info("logit_lens", "resid_pre", ("layer",)))) is None


def test_infinite_cells_are_passed_over():
    values = xr.Dataset({"value": variable(("layer",), np.array([np.inf, -2.0, 1.0]), "logits", "values")})
    assert strongest(Result(values, info("ablation", "z", ("layer",)))).cell.value == -2.0
