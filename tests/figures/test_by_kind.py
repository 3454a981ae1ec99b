"""Every kind of result has an entry in the table of figures and in the table of reports."""

from typing import get_args

import mechxai as mx
from mechxai.core.method import METHODS
from mechxai.core.result import ResultKind
from mechxai.figures.by_kind import FIGURES
from mechxai.report.by_kind import REPORTS

KINDS = get_args(ResultKind)


def test_both_tables_cover_every_kind():
    assert set(FIGURES) == set(KINDS)
    assert set(REPORTS) == set(KINDS)


def test_a_kind_has_one_entry():
    assert len(KINDS) == len(set(KINDS))


def test_every_method_has_a_known_kind():
    assert mx.Ablation.card.kind == "ablation"  # loads the methods
    assert {method.card.kind for method in METHODS.values()} <= set(KINDS)
