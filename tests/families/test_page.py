"""The page of model families shows the families of the grid, as `make families` wrote it."""

import re

from benchmarks.families import PAGE, is_faulty, read_results, summary
from benchmarks.families_page import COLUMNS, SEQUENCE_COLUMNS, page
from tests.families.checkpoints import FAMILIES
from tests.families.grid import TOKEN_CHECKS
from tests.families.sequence_checks import CHECKS

ROWS = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def test_the_page_has_a_row_for_every_family():
    assert ROWS.findall(PAGE.read_text(encoding="utf-8")) == list(FAMILIES)


def test_the_page_is_that_of_the_saved_outcomes():
    assert PAGE.read_text(encoding="utf-8") == page(read_results())


def test_every_family_ran_on_both_lines():
    report = read_results()
    assert {line: sorted(set(FAMILIES) - set(rows)) for line, rows in report.items()} == {"3.9": [], "4.3": []}


def test_no_family_has_a_wrong_number_or_a_traceback():
    report = read_results()
    assert [f"{name} on {line}" for line, rows in report.items() for name, row in rows.items() if is_faulty(row)] == []


def test_a_summary_names_what_is_not_right():
    outcomes = [
        {"check": "load", "state": "right", "detail": "bridge, folded", "numbers": {}},
        {"check": "patching of resid_pre", "state": "right", "detail": "", "numbers": {"level": 4}},
        {"check": "patching of z", "state": "right", "detail": "", "numbers": {"level": 3}},
        {"check": "edges", "state": "refused", "detail": "ModelSupportError: no graph", "numbers": {}},
    ]
    row = summary(outcomes)
    assert row["loaded"] == "bridge, folded"
    assert row["levels"] == [4, 3]
    assert row["not right"] == {"edges": ["refused", "ModelSupportError: no graph"]}
    assert not is_faulty(row)


def test_reasons_are_listed_once_for_all_families_that_share_them():
    def refused(name, model):
        return {
            "loaded": "bridge, folded",
            "not right": {"edges": ["refused", f"SiteError: {name} ({model}) has none."]},
        }

    rows = {"gemma2": refused("gemma2", "Gemma2ForCausalLM"), "gemma3": refused("gemma3", "Gemma3ForCausalLM")}
    text = page({"3.9": rows, "4.3": {"gemma2": rows["gemma2"]}})
    assert "- **edges**: the model has none. — `gemma2`, `gemma3` (3.9)" in text


def test_every_check_is_in_a_column():
    for columns, checks in ((COLUMNS, TOKEN_CHECKS), (SEQUENCE_COLUMNS, CHECKS)):
        assert {"load", *(check for group in columns.values() for check in group)} == set(checks)
