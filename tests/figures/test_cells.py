"""Cells of a grid: labels of positions, the largest cells, and codes of roles."""

import numpy as np

from mechxai.figures.cells import largest_cells, position_of
from mechxai.figures.role_codes import role_codes
from mechxai.figures.selected_variable import select_variable
from tests.figures.examples import sweep


def test_labels_of_positions_name_their_position():
    assert [position_of(label) for label in ("5: John", "7", "-1", "S2", "0: 3: x", 4)] == [5, 7, -1, "S2", 0, 4]


def test_the_largest_cells_are_the_farthest_from_the_centre():
    found = select_variable(sweep(), "recovered").cells()
    assert [cell.name for cell in largest_cells(found, 2)] == ["blocks.6.resid_pre[pos=9]", "blocks.3.resid_pre[pos=4]"]
    assert largest_cells(found, 1)[0].label == "9: ,"
    assert largest_cells(found, 1, center=0.9)[0].value == -0.4
    assert len(largest_cells(found, 1000)) == 12 * 18


def test_cells_without_a_value_are_never_the_largest_cells():
    result = sweep()
    result.data["recovered"].values[:] = np.nan
    assert largest_cells(select_variable(result, "recovered").cells(), 3) == []


def test_no_two_roles_share_a_code():
    roles = np.array(["name_mover", "negative_mover", "no_matter", "induction", "inhibition", ""])
    found = role_codes(roles)
    assert len(set(found.values())) == len(found) == 5
    assert found["name_mover"] == "NM"
